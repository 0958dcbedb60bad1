"""Causal attention within segments behind one signature; each platform has the kernel that is best there."""

import re
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Float, Int

from jaxlingua.errors import ConfigError
from jaxlingua.model.blockwise import blockwise_attention
from jaxlingua.model.cudnn import cudnn_attention
from jaxlingua.model.platform import device_kind, platform
from jaxlingua.model.reference import Ids, reference_attention
from jaxlingua.model.splash import splash_attention

KINDS = ("auto", "reference", "blockwise", "splash", "cudnn")
_PLATFORMS = {"splash": "tpu", "cudnn": "gpu"}
_BEFORE_AMPERE = r"\b(T4|V100|P100|P40|P4|K80|GTX|TITAN|RTX 20\d\d|Quadro)\b"
REFERENCE_SCORES = 1024 * 1024  # "auto": so many scores per head are held at once


def attention(
    q: Float[Array, "batch query heads head_dim"],
    k: Float[Array, "batch key kv_heads head_dim"],
    v: Float[Array, "batch key kv_heads head_dim"],
    *,
    query_segments: Int[Array, "batch query"],
    key_segments: Int[Array, "batch key"],
    query_positions: Int[Array, "batch query"],
    key_positions: Int[Array, "batch key"],
    window: Int[Array, ""] | int | None = None,
    kind: str,
    block_tokens: int,
) -> Float[Array, "batch query heads head_dim"]:
    """Each query attends to the keys of its own segment at its own or an earlier position.

    With a `window` of w it sees its own position and the w - 1 before it; it may differ from layer to layer.
    Segment 0 is padding: it sees nothing, nothing sees it, and its output is zero. Query heads share the keys
    of their group, which are never copied. Scores and softmax are float32. Where queries and keys are equally
    many they are taken to be one row, in which each document lies in one piece and its positions increase.

    "auto" goes by the platform of the mesh that the program is traced for (a program may be compiled for
    another one than it is compiled on): splash on TPUs and cuDNN on GPUs, where they can; elsewhere reference
    for short rows and blockwise for long ones. Queries that follow a cache are always as under "auto", since
    splash and cuDNN take whole rows.

    Paper: arXiv:2305.13245 (groups), arXiv:2310.06825 (window), arXiv:2112.05682, arXiv:2205.14135 (blocks).
    Same as: jax.nn.dot_product_attention with the equivalent mask.

    Raises: ConfigError for a kind that does not exist, or that cannot do this.
    """
    call = Call(q.dtype, q.shape[1], k.shape[1], q.shape[3], not isinstance(window, Array))
    kind = kind_for(kind, call)
    ids = Ids(query_segments, key_segments, query_positions, key_positions, window)
    grouped = q.reshape(*q.shape[:2], k.shape[2], -1, q.shape[3])  # b t k g h
    if kind == "reference":
        out = checkpoint_name(reference_attention(grouped, k, v, ids), "attention_out")
    elif kind == "blockwise":
        out = blockwise_attention(grouped, k, v, ids, block_tokens)
    elif kind == "splash":
        out = splash_attention(grouped, k, v, ids)
    else:
        out = checkpoint_name(cudnn_attention(grouped, k, v, ids), "attention_out")
    return out.reshape(q.shape)  # b t n h


class Call(NamedTuple):
    """What decides which kernel can do it; `has_one_window`: the window, if any, is that of all layers."""

    dtype: jnp.dtype
    queries: int
    keys: int
    head_dim: int
    has_one_window: bool


def kind_for(kind: str, call: Call) -> str:
    """What does a call in the mesh that is set, where `kind` is `model.attention`.

    Raises: ConfigError for a kind that does not exist, or that cannot do this.
    """
    if kind not in KINDS:
        raise ConfigError(f"model.attention: unknown kind '{kind}'; choose one of {', '.join(KINDS)}")
    if kind in _PLATFORMS and call.queries == call.keys:
        if reason := _refusal(kind, call):
            raise ConfigError(f"model.attention: '{kind}' given; {reason}; set model.attention=auto")
        return kind
    if kind in ("reference", "blockwise"):
        return kind
    for best in _PLATFORMS:
        if not _refusal(best, call):
            return best
    return "reference" if call.queries * call.keys <= REFERENCE_SCORES else "blockwise"


def _refusal(kind: str, call: Call) -> str:
    """Why a kernel of one platform cannot do this; "" where it can."""
    if platform() != _PLATFORMS[kind]:
        return f"it runs on {_PLATFORMS[kind].upper()}s, and this program is for a {platform()}"
    if call.dtype == jnp.float32:
        return "it multiplies in bfloat16, and model.compute_dtype is float32"
    if call.queries != call.keys:
        return f"it takes whole rows, not {call.queries} queries that follow a cache of {call.keys} keys"
    if not call.has_one_window:
        return "its window is one for all layers, and these differ"
    if kind == "splash" and call.queries % 128:
        return f"it takes rows of a multiple of 128 tokens, not of {call.queries}"
    return _cudnn_refusal(call) if kind == "cudnn" else ""


def _cudnn_refusal(call: Call) -> str:
    """As JAX says of cuDNN 9 when it lowers; the generation of the GPU it finds out only when it runs."""
    if "NVIDIA" not in device_kind() or re.search(_BEFORE_AMPERE, device_kind()):
        return f"it needs an NVIDIA GPU of the Ampere generation or later, not {device_kind()}"
    if call.head_dim % 8 or call.head_dim > 128:
        return f"it takes heads of a multiple of 8, at most 128, not of {call.head_dim}"
    if call.queries % 2:
        return f"it takes rows of an even number of tokens, not of {call.queries}"
    return ""
