"""LLaMA as a pure function of parameters, tokens, positions and segments.

Mistral, Qwen2 and Qwen3 are the same block with other settings.
"""

import operator
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Float, Int

from jaxlingua.model.attention import Call, attention, kind_for
from jaxlingua.model.cache import Cache, Ring, note_token, note_tokens, write_layer, write_token
from jaxlingua.model.lora import (
    ADAPTER,
    AXES,
    CODES,
    COLLECTION,
    adapter,
    collections,
    frozen_products,
    joined,
    looked_up,
    matrix_dtype,
    sizes_of,
    with_adapter,
)
from jaxlingua.model.platform import device_kind
from jaxlingua.model.presets import LlamaConfig
from jaxlingua.model.products import products
from jaxlingua.model.quantized import block_size
from jaxlingua.model.remat import with_remat
from jaxlingua.model.rope import check_length, rotate, rotations

IntRows = Int[Array | np.ndarray, "batch length"]
_RESIDUAL = ("activation_batch", "activation_length", "activation_embed")
_HEADS = ("activation_batch", "activation_length", "activation_heads", None)
_KV_HEADS = ("activation_batch", "activation_length", "activation_kv_heads", None)
_MLP = ("activation_batch", "activation_length", "activation_mlp")
_WHOLE_DOCUMENT = np.iinfo(np.int32).max  # as a window


class Row(NamedTuple):
    """What all layers share: rotations of the queries, and who may attend to whom."""

    cos: Float[Array, "batch length half"]
    sin: Float[Array, "batch length half"]
    query_segments: Int[Array, "batch length"]
    key_segments: Int[Array, "batch key"]
    query_positions: Int[Array, "batch length"]
    key_positions: Int[Array, "batch key"]
    index: Int[Array, ""] | None  # write position in the cache
    keep_inputs: tuple[()] | None  # () asks every layer for its input: tree structure, so known when tracing


def _normal(std: float, names: tuple[str, ...]):
    return nn.with_logical_partitioning(nn.initializers.normal(std), names)


def _project(
    module: nn.Module, x: Array, inputs: str, outputs: dict[str, str], *, std: float, bias: bool
) -> tuple[Array, ...]:
    """Products of activations and the module's weights, plus their biases, in the compute dtype.

    Batch and length are one axis (m), so that the weight's gradient is a sum over one axis, a plain matrix
    product. Over two, XLA transposes the activations before it on CPUs: 14 % of a step of the model in
    benchmarks/train_cpu.py.

    Args:
        inputs: letters of the axes that are summed over (`AXES` of model/lora.py).
        outputs: letters of the axes that result, by the name of the weight.
    """
    config = module.config
    weights = {name: _weight(module, name, inputs, out, std) for name, out in outputs.items()}
    rows = x.reshape(-1, *x.shape[2:])
    if config.lora is None:
        results = products(
            rows, [weight.astype(x.dtype) for weight, _ in weights.values()], inputs, tuple(outputs.values()),
            precision=config.precision, is_ordered=has_barriers(config),
        )  # fmt: skip
    else:
        results = frozen_products(module, rows, weights, inputs, outputs)
    if bias:
        results = tuple(
            result + _bias(module, name, out).astype(x.dtype)
            for result, (name, out) in zip(results, outputs.items(), strict=True)
        )
    return tuple(result.reshape(*x.shape[:2], *result.shape[1:]) for result in results)


def _weight(module: nn.Module, name: str, inputs: str, out: str, std: float) -> tuple[Array, Array | None]:
    """A matrix as it is stored: numbers, or codes and the scales of their blocks along the last input."""
    config = module.config
    axes, sizes = tuple(AXES[letter] for letter in inputs + out), sizes_of(inputs + out, config)
    if config.lora is None or not config.lora.is_quantized:
        return module.param(name, _normal(std, axes), sizes, matrix_dtype(config)), None
    blocked = len(inputs) - 1
    blocks = sizes[blocked] // block_size(sizes[blocked])
    zeros = nn.with_logical_partitioning(nn.initializers.zeros_init(), axes)
    codes = module.param(name, zeros, sizes, CODES[config.lora.base])
    sizes = (*sizes[:blocked], blocks, *sizes[blocked + 1 :])
    zeros = nn.with_logical_partitioning(
        nn.initializers.zeros_init(), (*axes[:blocked], "blocks", *axes[blocked + 1 :])
    )
    return codes, module.param(f"{name}_scale", zeros, sizes, jnp.float32)


def _bias(module: nn.Module, name: str, out: str) -> Array:
    axes, sizes = tuple(AXES[letter] for letter in out), sizes_of(out, module.config)
    axes = ("bias",) if axes == ("embed",) else axes
    init = nn.with_logical_partitioning(nn.initializers.zeros_init(), axes)
    return module.param(f"{name}_bias", init, sizes, jnp.float32)


def has_barriers(config: LlamaConfig) -> bool:
    """What `barriers` is in the mesh that is set.

    Of TPUs only the compiler of v5e hides sums over devices behind products (train/compiler_options.py).
    Where it does not, the order leaves more of them to wait for: 0.41 s of a 7B step instead of 0.32 s
    (benchmarks/tpu_plan.py without compiler options). Norms have none: those after products already keep
    their gradients apart, and one more on their output gained nothing.
    """
    return device_kind() == "TPU v5 lite" if config.barriers == "auto" else config.barriers


def attention_of_rows(config: LlamaConfig, row_length_tokens: int) -> str:
    """What `attention` is for whole rows in the mesh that is set. Raises: ConfigError where it cannot be."""
    dtype, length = jnp.dtype(config.compute_dtype), row_length_tokens
    call = Call(dtype, length, length, config.head_dim, config.sliding_layers is None)
    return kind_for(config.attention, call)


class RmsNorm(nn.Module):
    """Scale the last axis to unit root mean square, in float32. Paper: arXiv:1910.07467."""

    config: LlamaConfig

    @nn.compact
    def __call__(self, x: Float[Array, "*axes size"]) -> Float[Array, "*axes size"]:
        init = nn.with_logical_partitioning(nn.initializers.ones_init(), ("norm",))
        scale = self.param("scale", init, x.shape[-1:], jnp.float32)
        x32 = x.astype(jnp.float32)
        x32 = x32 * jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + self.config.norm_eps)
        return (x32 * scale).astype(x.dtype)


class Attention(nn.Module):
    """Projections around `attention`, with the cache in between when there is one."""

    config: LlamaConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch length embed"], row: Row, kv: tuple | None, layer: Int[Array, ""]
    ):
        config, std = self.config, self.config.embed**-0.5
        outputs = {"q": "nh", "k": "kh", "v": "kh"}
        q, k, v = _project(self, x, "d", outputs, std=std, bias=config.qkv_bias)
        q = nn.with_logical_constraint(q, _HEADS)
        k = nn.with_logical_constraint(k, _KV_HEADS)
        v = checkpoint_name(nn.with_logical_constraint(v, _KV_HEADS), "v")
        # Named where the least is computed again: after the rotation, or before a norm, whose gradient needs
        # its input.
        if config.qk_norm:
            q, k = checkpoint_name(q, "q"), checkpoint_name(k, "k")
            q, k = RmsNorm(config, name="q_norm")(q), RmsNorm(config, name="k_norm")(k)
        q, k = rotate(q, row.cos, row.sin), rotate(k, row.cos, row.sin)
        if not config.qk_norm:
            q, k = checkpoint_name(q, "q"), checkpoint_name(k, "k")
        if kv is not None and kv[0].ndim == 4:  # this layer's part of a ring
            kv = tuple(write_token(old, new, row.index) for old, new in zip(kv, (k, v), strict=True))
            k, v = (ring.swapaxes(1, 2) for ring in kv)
        elif kv is not None:
            (all_k, k), (all_v, v) = (
                write_layer(old, new, layer, row.index) for old, new in zip(kv, (k, v), strict=True)
            )
            kv = (all_k, all_v)
        out = attention(
            q,
            k.astype(x.dtype),
            v.astype(x.dtype),
            query_segments=row.query_segments,
            key_segments=row.key_segments,
            query_positions=row.query_positions,
            key_positions=row.key_positions,
            window=_window(config, layer),
            kind=config.attention,
            block_tokens=config.attention_block_tokens,
        )
        out = nn.with_logical_constraint(out, _HEADS)
        std = (config.heads * config.head_dim * 2 * config.layers) ** -0.5
        (out,) = _project(self, out, "nh", {"o": "d"}, std=std, bias=config.o_bias)
        return nn.with_logical_constraint(out, _RESIDUAL), kv


def _window(config: LlamaConfig, layer: Int[Array, ""]) -> Int[Array, ""] | int | None:
    """How far back a layer sees; one program serves all layers, so where they differ it is looked up."""
    if config.sliding_layers is None:
        return config.sliding_window
    return jnp.where(jnp.asarray(config.sliding_layers)[layer], config.sliding_window, _WHOLE_DOCUMENT)


def _swiglu(gate: Array, up: Array, config: LlamaConfig) -> Array:
    """silu(gate) × up; with barriers computed by itself, and its gradient too.

    XLA for TPUs computes it inside the matrix products before and after it, in the backward pass once for
    every tile, which makes these up to 1.9 times as long.
    """
    if not has_barriers(config):
        return nn.silu(gate) * up
    gate, up = jax.lax.optimization_barrier((gate, up))
    return jax.lax.optimization_barrier(nn.silu(gate) * up)


class Mlp(nn.Module):
    """SwiGLU: down(silu(gate) × up). Paper: arXiv:2002.05202."""

    config: LlamaConfig

    @nn.compact
    def __call__(self, x: Float[Array, "batch length embed"]) -> Float[Array, "batch length embed"]:
        config, std = self.config, self.config.embed**-0.5
        gate, up = _project(self, x, "d", {"gate": "f", "up": "f"}, std=std, bias=config.mlp_bias)
        gate = checkpoint_name(nn.with_logical_constraint(gate, _MLP), "gate")
        up = checkpoint_name(nn.with_logical_constraint(up, _MLP), "up")
        hidden = _swiglu(gate, up, config)
        std = (config.mlp * 2 * config.layers) ** -0.5
        (out,) = _project(self, hidden, "f", {"down": "d"}, std=std, bias=config.mlp_bias)
        return nn.with_logical_constraint(out, _RESIDUAL)


class Layer(nn.Module):
    """One layer: attention and MLP, each normalized first and added to the residual stream."""

    config: LlamaConfig

    @nn.compact
    def __call__(self, carry, layer: Int[Array, ""], row: Row):
        x, kv = carry
        inputs = None if row.keep_inputs is None else x
        normed = RmsNorm(self.config, name="attention_norm")(x)
        added, kv = Attention(self.config, name="attention")(normed, row, kv, layer)
        x = checkpoint_name(x + added, "residual")
        x = x + Mlp(self.config, name="mlp")(RmsNorm(self.config, name="mlp_norm")(x))
        return (x, kv), inputs


class Embed(nn.Module):
    """Tokens to vectors."""

    config: LlamaConfig

    def setup(self):
        # As large as what layers add to the residual stream, so that a token is not drowned, and with a tied
        # head first logits of unit variance. 0.02, which is this at a width of 2,500, is too small for narrow
        # models: an early form of the demo had a loss of 0.33 after 750 steps with it, of 0.11 so.
        shape = (self.config.vocab_size, self.config.embed)
        std = self.config.embed**-0.5
        self.embedding = self.param(
            "embedding", _normal(std, ("vocab", "embed")), shape, matrix_dtype(self.config)
        )
        if _has_adapter(self.config, "embed"):
            self.embedding_adapter = adapter(self, "embedding", "v", "d")

    def __call__(self, tokens: IntRows) -> Float[Array, "batch length embed"]:
        return nn.with_logical_constraint(looked_up(self, self.embedding, tokens), _RESIDUAL)


class Head(nn.Module):
    """Owner of an untied head's matrix, and of the head's adapter."""

    config: LlamaConfig

    def setup(self):
        shape = (self.config.embed, self.config.vocab_size)
        std = self.config.embed**-0.5
        if not self.config.tie_embeddings:
            self.kernel = self.param(
                "kernel", _normal(std, ("embed", "vocab")), shape, matrix_dtype(self.config)
            )
        if _has_adapter(self.config, "head"):
            self.kernel_adapter = adapter(self, "kernel", "d", "v")


class Llama(nn.Module):
    """A LLaMA. Parameters are float32; activations have the compute dtype; logits are float32."""

    config: LlamaConfig

    def setup(self):
        self.embed = Embed(self.config)
        self.layers = _scanned(self.config)(self.config)
        self.final_norm = RmsNorm(self.config)
        if not self.config.tie_embeddings or _has_adapter(self.config, "head"):
            self.head = Head(self.config)

    def __call__(
        self, tokens: IntRows, positions: IntRows, segments: IntRows
    ) -> Float[Array, "batch length vocab"]:
        """Logits of the next token at every position."""
        hidden, _ = self.hidden(tokens, positions, segments)
        kernel = self.embed.embedding.T if self.config.tie_embeddings else self.head.kernel
        if _has_adapter(self.config, "head"):
            kernel = with_adapter(kernel, *self.head.kernel_adapter, self.config.lora, "d", "v")
        return logits(hidden, kernel, self.config)

    def hidden(
        self, tokens: IntRows, positions: IntRows, segments: IntRows, cache: Cache | None = None
    ) -> tuple[Float[Array, "batch length embed"], Cache | None]:
        """Normalized output of the last layer; with a cache, the tokens follow what the cache holds."""
        row, cache = _row(self.config, positions, segments, cache)
        kv = None if cache is None else (cache.k, cache.v)
        (x, kv), _ = self.layers((self.embed(tokens), kv), jnp.arange(self.config.layers), row)
        if cache is not None:
            cache = cache._replace(k=kv[0], v=kv[1], index=cache.index + tokens.shape[1])
        return self.final_norm(x), cache

    def next_hidden(
        self,
        tokens: Int[Array, " batch"],
        positions: Int[Array, " batch"],
        segments: Int[Array, " batch"],
        ring: Ring,
    ) -> tuple[Float[Array, "batch embed"], Ring]:
        """Normalized output of the last layer for one more token of every row, which the ring then holds.

        Layer after layer instead of scanned: a scan would copy each layer's weights and keys to where the
        layer reads them, for every token. The parameters are those of `layers_apart`: of stacked ones a loop
        over tokens would hold a second copy.
        """
        positions, segments = positions[:, None], segments[:, None]
        ring = note_token(ring, positions, segments)
        check_length(self.config.rope_scaling, self.config.max_positions, ring.segments.shape[1])
        row = Row(
            *rotations(positions, self.config.rope_scaling, self.config.head_dim, self.config.rope_theta),
            segments, ring.segments, positions, ring.positions, ring.index, None,
        )  # fmt: skip
        x, layers = self.embed(tokens[:, None]), []
        apart = [
            dict(zip(self.variables, of_layer, strict=True))
            for of_layer in zip(*(tree["layers"] for tree in self.variables.values()), strict=True)
        ]
        is_split = jax.sharding.get_abstract_mesh().shape.get("fsdp", 1) > 1
        is_late = is_split or (self.config.lora is not None and self.config.lora.is_quantized)
        for layer, kv in enumerate(zip(ring.k, ring.v, strict=True)):
            # Each layer's weights are gathered, and turned from codes into numbers, where they are used; XLA
            # would do so for all of them before a loop over tokens.
            weights, x = jax.lax.optimization_barrier((apart[layer], x)) if is_late else (apart[layer], x)
            (x, kv), _ = Layer(self.config, parent=None).apply(weights, (x, kv), jnp.int32(layer), row)
            layers.append(kv)
        k, v = zip(*layers, strict=True)
        index = (ring.index + 1) % ring.segments.shape[1]
        return self.final_norm(x)[:, 0], ring._replace(k=k, v=v, index=index)

    def hidden_states(
        self, tokens: IntRows, positions: IntRows, segments: IntRows
    ) -> Float[Array, "states batch length embed"]:
        """Embeddings, then the output of every layer, the last one normalized: layers + 1 states.

        Same as: `hidden_states` of transformers' LlamaModel.
        """
        row, _ = _row(self.config, positions, segments, None)
        row = row._replace(keep_inputs=())
        (x, _), inputs = self.layers((self.embed(tokens), None), jnp.arange(self.config.layers), row)
        return jnp.concatenate([inputs, self.final_norm(x)[None]])


def layers_apart(weights: dict, config: LlamaConfig) -> dict:
    """The weights with arrays of its own for each layer, instead of stacked ones for all."""

    def apart(tree: dict) -> dict:
        layers = tuple(
            jax.tree.map(operator.itemgetter(layer), tree.get("layers", {})) for layer in range(config.layers)
        )
        return {**tree, "layers": layers}

    return joined({name: apart(tree) for name, tree in collections(weights).items()})


def _scanned(config: LlamaConfig):
    """The layers as one, with stacked parameters: compiled once, whatever their number."""
    return nn.scan(
        with_remat(Layer, config.remat),
        variable_axes={"params": 0, COLLECTION: 0},
        split_rngs={"params": True},
        in_axes=(0, nn.broadcast),
        length=config.layers,
        metadata_params={nn.PARTITION_NAME: "layers"},
    )


def _row(
    config: LlamaConfig, positions: IntRows, segments: IntRows, cache: Cache | None
) -> tuple[Row, Cache | None]:
    """Rotations and masks for new tokens, and the cache with their places noted."""
    positions, segments = jnp.asarray(positions), jnp.asarray(segments)
    length = positions.shape[1] if cache is None else cache.segments.shape[1]
    check_length(config.rope_scaling, config.max_positions, length)
    cos, sin = rotations(positions, config.rope_scaling, config.head_dim, config.rope_theta)
    if cache is None:
        return Row(cos, sin, segments, segments, positions, positions, None, None), None
    cache = note_tokens(cache, positions, segments)
    return Row(cos, sin, segments, cache.segments, positions, cache.positions, cache.index, None), cache


def logits(
    hidden: Float[Array, "batch length embed"], kernel: Float[Array, "embed vocab"], config: LlamaConfig
) -> Float[Array, "batch length vocab"]:
    """Logits in float32 from hidden states in the compute dtype."""
    out = jnp.einsum(
        "btd,dv->btv",
        hidden,
        kernel.astype(hidden.dtype),
        precision=config.precision,
        preferred_element_type=jnp.float32,
    )
    return nn.with_logical_constraint(out, ("activation_batch", "activation_length", "activation_vocab"))


def head_kernel(weights: dict, config: LlamaConfig) -> Float[Array, "embed vocab"]:
    """The matrix that turns hidden states into logits: the transposed embedding where the head is tied.

    Where the head has an adapter, with it, in float32: gain ⊙ (W + s·A·B).
    """
    kernel = weights["embed"]["embedding"].T if config.tie_embeddings else weights["head"]["kernel"]
    if not _has_adapter(config, "head"):
        return kernel
    of = weights[COLLECTION]["head"]
    return with_adapter(kernel, *(of.get(f"kernel_{name}") for name in ADAPTER), config.lora, "d", "v")


def learns_head(config: LlamaConfig) -> bool:
    """Whether anything in `head_kernel` is trained."""
    return config.lora is None or _has_adapter(config, "head")


def _has_adapter(config: LlamaConfig, target: str) -> bool:
    return config.lora is not None and target in config.lora.targets
