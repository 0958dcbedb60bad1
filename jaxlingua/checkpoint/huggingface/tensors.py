"""Every parameter and the tensor that it is in a Hugging Face folder: one table, and what follows from it.

Families that share LLaMA's block share its names too. A file keeps matrices as [output, input], all heads in
one axis, a tensor per layer; we keep [layer, input, head, head_dim] and the like.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from jaxlingua.model.presets import LlamaConfig

# Written by early conversions, and a function of config.json.
DERIVED = re.compile(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq")


@dataclass(frozen=True)
class Layout:
    """How one parameter, or one layer of it, lies in a file.

    Axes are letters: d embed, n heads, k kv_heads, h head_dim, f mlp, v vocab. In `theirs` letters that
    stand together are one axis: "nh d" is [heads × head_dim, embed].
    """

    name: str  # in the file, with {} for the layer
    ours: str
    theirs: str
    is_in: Callable[[LlamaConfig], bool] = lambda config: True

    def shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Shape in the file."""
        return tuple(math.prod(sizes[axis] for axis in group) for group in self.theirs.split())

    def from_file(self, array: Any, sizes: Mapping[str, int]) -> Any:
        """What is read, as a parameter or one layer of it."""
        axes = self._file_axes()
        array = array.reshape([sizes[axis] for axis in axes])
        return array.transpose([axes.index(axis) for axis in self.ours.split()])

    def to_file(self, array: Any, sizes: Mapping[str, int]) -> Any:
        """The inverse of `from_file`."""
        ours = self.ours.split()
        array = array.transpose([ours.index(axis) for axis in self._file_axes()])
        return array.reshape(self.shape(sizes))

    @property
    def row_axis(self) -> str:
        """Letter of the axis along which rows of a file can be read alone."""
        return self.theirs[0]

    @property
    def is_stacked(self) -> bool:
        """Whether the parameter holds all layers, and the file a tensor for each."""
        return "{}" in self.name

    def _file_axes(self) -> str:
        return self.theirs.replace(" ", "")


def _of_layer(name: str, ours: str, theirs: str, flag: str = "layers") -> Layout:
    """`flag` is the field of LlamaConfig that says whether the model has it; all have layers."""
    return Layout(f"model.layers.{{}}.{name}", ours, theirs, attrgetter(flag))


LAYOUTS: dict[str, Layout] = {
    "embed/embedding": Layout("model.embed_tokens.weight", "v d", "v d"),
    "layers/attention_norm/scale": _of_layer("input_layernorm.weight", "d", "d"),
    "layers/attention/q": _of_layer("self_attn.q_proj.weight", "d n h", "nh d"),
    "layers/attention/k": _of_layer("self_attn.k_proj.weight", "d k h", "kh d"),
    "layers/attention/v": _of_layer("self_attn.v_proj.weight", "d k h", "kh d"),
    "layers/attention/o": _of_layer("self_attn.o_proj.weight", "n h d", "d nh"),
    "layers/attention/q_bias": _of_layer("self_attn.q_proj.bias", "n h", "nh", "qkv_bias"),
    "layers/attention/k_bias": _of_layer("self_attn.k_proj.bias", "k h", "kh", "qkv_bias"),
    "layers/attention/v_bias": _of_layer("self_attn.v_proj.bias", "k h", "kh", "qkv_bias"),
    "layers/attention/o_bias": _of_layer("self_attn.o_proj.bias", "d", "d", "o_bias"),
    "layers/attention/q_norm/scale": _of_layer("self_attn.q_norm.weight", "h", "h", "qk_norm"),
    "layers/attention/k_norm/scale": _of_layer("self_attn.k_norm.weight", "h", "h", "qk_norm"),
    "layers/mlp_norm/scale": _of_layer("post_attention_layernorm.weight", "d", "d"),
    "layers/mlp/gate": _of_layer("mlp.gate_proj.weight", "d f", "f d"),
    "layers/mlp/up": _of_layer("mlp.up_proj.weight", "d f", "f d"),
    "layers/mlp/down": _of_layer("mlp.down_proj.weight", "f d", "d f"),
    "layers/mlp/gate_bias": _of_layer("mlp.gate_proj.bias", "f", "f", "mlp_bias"),
    "layers/mlp/up_bias": _of_layer("mlp.up_proj.bias", "f", "f", "mlp_bias"),
    "layers/mlp/down_bias": _of_layer("mlp.down_proj.bias", "d", "d", "mlp_bias"),
    "final_norm/scale": Layout("model.norm.weight", "d", "d"),
    "head/kernel": Layout("lm_head.weight", "d v", "v d", lambda config: not config.tie_embeddings),
}


@dataclass(frozen=True)
class Place:
    """Where a tensor of a file belongs: a parameter, and a layer of it if it is stacked."""

    path: str
    layer: int | None

    @property
    def layout(self) -> Layout:
        return LAYOUTS[self.path]

    @property
    def name(self) -> str:
        """The tensor's name in a file."""
        return self.layout.name.format(self.layer)


def places(config: LlamaConfig) -> Iterator[Place]:
    """All tensors of a model, in the order in which transformers writes them."""
    there = {path: layout for path, layout in LAYOUTS.items() if layout.is_in(config)}
    stacked = [path for path, layout in there.items() if layout.is_stacked]
    yield Place("embed/embedding", None)
    for layer in range(config.layers):
        yield from (Place(path, layer) for path in stacked)
    yield Place("final_norm/scale", None)
    if "head/kernel" in there:
        yield Place("head/kernel", None)


def axis_sizes(config: LlamaConfig, vocab_size: int) -> dict[str, int]:
    """The size of every axis; `vocab_size` is the file's, or the model's padded one."""
    return {
        "d": config.embed,
        "n": config.heads,
        "k": config.kv_heads,
        "h": config.head_dim,
        "f": config.mlp,
        "v": vocab_size,
    }
