"""Adapters beside frozen weights: LoRA, rsLoRA and DoRA, and the base that they stand beside.

A target with weight W answers gain ⊙ (x·W + s·(x·A)·B). The collection `params` is the base, the collection
`lora` the adapters, both scanned with the layers. Outside of Linen they are one tree, the weights: the base
as ever, with the adapters under "lora". W + s·A·B exists only where it is asked for: `merge`, and a head that
is a target; its norm, where DoRA needs it.

Papers: LoRA arXiv:2106.09685, rsLoRA arXiv:2312.03732, DoRA arXiv:2402.09353, QLoRA arXiv:2305.14314.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array
from jax.sharding import Sharding

from jaxlingua.errors import ConfigError
from jaxlingua.model.quantized import dequantize

if TYPE_CHECKING:
    from jaxlingua.config import ModelConfig
    from jaxlingua.model.presets import LlamaConfig

COLLECTION = "lora"
CODES = {"int8": jnp.int8, "nf4": jnp.uint4}  # types that a quantized base is kept in
ADAPTER = ("a", "b", "magnitude")  # endings of the names of an adapter's arrays
# Letters of the axes that a projection sums over, and of those that result.
PROJECTIONS = {
    **{"q": ("d", "nh"), "k": ("d", "kh"), "v": ("d", "kh"), "o": ("nh", "d")},
    **{"gate": ("d", "f"), "up": ("d", "f"), "down": ("f", "d")},
}
TARGETS = (*PROJECTIONS, "embed", "head")
# Letters of products with weights: a size of LlamaConfig and, by the same name, a logical axis.
AXES = {
    **{"d": "embed", "n": "heads", "k": "kv_heads", "h": "head_dim", "f": "mlp"},
    **{"v": "vocab", "r": "rank"},
}


@dataclass(frozen=True)
class Lora:
    """What is learned beside frozen weights.

    Args:
        targets: of `TARGETS`, in that order.
        rank_stabilized: scaled by alpha / √rank (rsLoRA) instead of alpha / rank.
        dora: each output has a magnitude of its own.
        base: type in which the frozen weights are kept; int8 and nf4 hold the projections only, and what is
            left of matrices is bfloat16.
    """

    rank: int
    alpha: float
    targets: tuple[str, ...]
    rank_stabilized: bool = False
    dora: bool = False
    base: Literal["float32", "bfloat16", "int8", "nf4"] = "float32"

    @property
    def scaling(self) -> float:
        """What A·B is multiplied with."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilized else self.rank)

    def describe(self) -> str:
        """In words, such as "LoRA of rank 16, alpha 32, on q, v"."""
        kind = "rank-stabilized " * self.rank_stabilized + ("DoRA" if self.dora else "LoRA")
        return f"{kind} of rank {self.rank}, alpha {self.alpha:g}, on {', '.join(self.targets)}"

    @property
    def is_quantized(self) -> bool:
        """Whether the base is codes and scales."""
        return self.base in CODES


def check_lora(config: "LlamaConfig") -> None:
    """Raises: ConfigError for a rank larger than a target's matrix, and for none or unknown targets."""
    lora = config.lora
    unknown = [target for target in lora.targets if target not in TARGETS]
    if unknown or not lora.targets:
        given = f"'{unknown[0]}'" if unknown else "none"
        raise ConfigError(f"model.lora.targets: {given} given; {', '.join(TARGETS)} are allowed; name some")
    for target in lora.targets:
        inputs, outputs = PROJECTIONS.get(target, ("d", "d"))  # a vocabulary is no bound
        shape = [math.prod(sizes_of(axes, config)) for axes in (inputs, outputs)]
        if lora.rank > min(shape):
            raise ConfigError(
                f"model.lora.rank: {lora.rank} given; the matrix of target '{target}' is {shape[0]} × "
                f"{shape[1]}, so {min(shape)} at most; lower it, or leave '{target}' out of "
                f"model.lora.targets"
            )


def resolved(model: "ModelConfig", first: Lora | None) -> Lora | None:
    """What `model.lora` of a configuration means, with what is "auto" in place; None where it is off.

    Args:
        first: what the adapter of `model.lora.adapter` is.
    Raises: ConfigError where the configuration asks for another one than this adapter.
    """
    given = model.lora
    if given == "off":
        return None
    rank = 16 if given.rank == "auto" else given.rank
    default = first or Lora(rank, 2.0 * rank, tuple(PROJECTIONS))
    values = {name: getattr(given, name) for name in ("rank", "alpha", "rank_stabilized", "dora")}
    values["targets"] = given.targets
    if given.targets != "auto":
        values["targets"] = tuple(target for target in TARGETS if target in given.targets)
    values = {name: value for name, value in values.items() if value != "auto"}
    for name, value in values.items() if first else ():
        if value != (has := getattr(first, name)):
            value, has = (" ".join(x) if isinstance(x, tuple) else x for x in (value, has))
            raise ConfigError(
                f"model.lora.{name}: {value} given; the adapter '{given.adapter}' has {has}; leave it out"
            )
    base = model.compute_dtype if given.base == "auto" else given.base
    return replace(default, **values, base=base)


# ── the two collections and the one tree ───────────────────────────────────────────────────────────────────


def collections(weights: dict) -> dict:
    """What `apply` takes: the weights by collection."""
    if COLLECTION not in weights:
        return {"params": weights}
    base = {name: tree for name, tree in weights.items() if name != COLLECTION}
    return {"params": base, COLLECTION: weights[COLLECTION]}


def joined(variables: dict) -> dict:
    """The inverse: one tree of what `init` gives."""
    adapters = {COLLECTION: variables[COLLECTION]} if COLLECTION in variables else {}
    return {**variables["params"], **adapters}


def sizes_of(axes: str, config: "LlamaConfig") -> tuple[int, ...]:
    """Lengths of the axes with these letters."""
    sizes = {"v": config.vocab_size} | ({"r": config.lora.rank} if config.lora else {})
    return tuple(sizes[axis] if axis in sizes else getattr(config, AXES[axis]) for axis in axes)


def matrix_dtype(config: "LlamaConfig") -> Any:
    """Type of matrices that are not codes."""
    return jnp.float32 if config.lora is None or config.lora.base == "float32" else jnp.bfloat16


# ── inside the model ───────────────────────────────────────────────────────────────────────────────────────


def frozen_products(
    module: nn.Module, x: Array, weights: dict[str, tuple[Array, Array | None]], inputs: str, outputs: dict
) -> tuple[Array, ...]:
    """`x` [rows inputs] times each of the weights, with what the adapters of those that are targets add.

    Weights have no gradient, and of codes nothing is kept for the backward pass but the codes: they are
    turned into numbers again.

    Args:
        weights: as they are stored, with the scales of codes; both by name, as `outputs`.
        inputs, outputs: letters of the axes.
    """
    config, results = module.config, []
    for name, out in outputs.items():
        product = partial(_product, f"m{inputs},{inputs}z->mz", len(inputs) - 1, config.precision)
        if config.lora.is_quantized:
            product = jax.checkpoint(product, prevent_cse=False)
        y = product(x, *weights[name])
        if name in config.lora.targets:
            a, b, magnitude = adapter(module, name, inputs, out)
            low = jnp.einsum(f"m{inputs},{inputs}r->mr", x, a.astype(x.dtype), precision=config.precision)
            b_scaled = (b * config.lora.scaling).astype(x.dtype)
            y = y + jnp.einsum(f"mr,r{out}->m{out}", low, b_scaled, precision=config.precision)
            if magnitude is not None:
                weight = number(*weights[name], jnp.float32, len(inputs) - 1)
                y = y * gain(magnitude, weight, a, b, config.lora.scaling, inputs, out).astype(x.dtype)
        results.append(y)
    return tuple(results)


def number(weight: Array, scales: Array | None, dtype: Any, axis: int) -> Array:
    """A stored weight as numbers; `axis` is the one that codes are blocked along."""
    return weight.astype(dtype) if scales is None else dequantize(weight, scales, dtype, axis)


def _product(spec: str, axis: int, precision: str | None, x: Array, weight: Array, scales: Array | None):
    weight = jax.lax.stop_gradient(number(weight, scales, x.dtype, axis))
    outputs = weight.shape[axis + 1 :]
    # Heads as one axis: XLA for TPUs would copy the codes of all layers into a layout with heads first.
    y = jnp.einsum(spec, x, weight.reshape(*weight.shape[: axis + 1], -1), precision=precision)
    return y.reshape(-1, *outputs)


def adapter(module: nn.Module, name: str, inputs: str, out: str) -> tuple[Array, Array, Array | None]:
    """A [inputs rank], B [rank out] and, with DoRA, the magnitudes [out]; all float32.

    Drawn as peft does: A uniform within 1 / √inputs and B zero, so that the first output is the base's; for
    an embedding, of which A has a row for each token, the other way round.
    """
    config = module.config
    is_table = inputs == "v"
    bound = math.prod(sizes_of(inputs, config)) ** -0.5
    zeros, normal = nn.initializers.zeros_init(), nn.initializers.normal(1.0)

    def uniform(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    def of(ending: str, axes: str, init: Any) -> Array:
        init = nn.with_logical_partitioning(init, tuple(AXES[axis] for axis in axes))
        shape = sizes_of(axes, config)
        drawn = module.variable(
            COLLECTION, f"{name}_{ending}", lambda: init(module.make_rng("params"), shape, jnp.float32)
        )
        return drawn.value

    a = of("a", f"{inputs}r", zeros if is_table else uniform)
    b = of("b", f"r{out}", normal if is_table else zeros)
    return a, b, of("magnitude", out, nn.initializers.ones_init()) if config.lora.dora else None


def gain(magnitude: Array, weight: Array, a: Array, b: Array, scaling: float, inputs: str, out: str) -> Array:
    """DoRA's magnitude / ‖W + s·A·B‖ for each output, in float32; the norm has no gradient (section 4.3).

    Where the norm is 0, as in the padding of a vocabulary, there is nothing to scale.

    Cost: W + s·A·B in float32, once.
    """
    norm = jax.lax.stop_gradient(norm_of(weight, a, b, scaling, inputs, out))
    return magnitude / jnp.where(norm > 0, norm, 1.0)


def norm_of(weight: Array, a: Array, b: Array, scaling: float, inputs: str, out: str) -> Array:
    """‖W + s·A·B‖ over the inputs, for each output."""
    whole = weight + _product_of(a, b, scaling, inputs, out)
    return jnp.sqrt(jnp.sum(jnp.square(whole), axis=tuple(range(len(inputs)))))


def looked_up(module: nn.Module, embedding: Array, tokens: Any) -> Array:
    """Rows of an embedding, with what its adapter adds; in the compute dtype."""
    config, dtype = module.config, jnp.dtype(module.config.compute_dtype)
    x = jnp.take(embedding.astype(dtype), tokens, axis=0)
    if config.lora is None or "embed" not in config.lora.targets:
        return x
    a, b, magnitude = module.embedding_adapter
    low = jnp.take(a, tokens, axis=0).astype(dtype)  # in this order gradients of a token add up in float32
    b_scaled = (b * config.lora.scaling).astype(dtype)
    x = x + jnp.einsum("btr,rd->btd", low, b_scaled, precision=config.precision)
    if magnitude is None:
        return x
    weight = embedding.astype(jnp.float32)
    return x * gain(magnitude, weight, a, b, config.lora.scaling, "v", "d").astype(dtype)


# ── whole matrices ─────────────────────────────────────────────────────────────────────────────────────────

# Of each target: its path in the weights, that of its adapters, and the letters of its axes.
PATHS = {
    **{
        name: (f"layers/{part}/{name}", f"{COLLECTION}/layers/{part}/{name}", *PROJECTIONS[name])
        for part, names in (("attention", "qkvo"), ("mlp", ("gate", "up", "down")))
        for name in names
    },
    "embed": ("embed/embedding", f"{COLLECTION}/embed/embedding", "v", "d"),
    "head": ("head/kernel", f"{COLLECTION}/head/kernel", "d", "v"),
}
_TARGET_AT = {path: target for target, (path, *_) in PATHS.items()}


def merged_config(config: "LlamaConfig") -> "LlamaConfig":
    """Of the merged model. Where the embedding or a tied head had an adapter, they are no longer the same."""
    is_tied = config.tie_embeddings and not {"embed", "head"} & set(config.lora.targets)
    return replace(config, lora=None, tie_embeddings=is_tied)


def merged_at(flat: dict[str, Array], path: str, config: "LlamaConfig", layer: Any = None) -> Array:
    """A parameter of the merged model, gain ⊙ (W + s·A·B) in float32; of stacked ones one layer.

    Args:
        flat: the weights by path, with "/".
        path: a parameter of `merged_config`.
    Cost: one such array, and one more for the product.
    """
    lora, is_head = config.lora, path == "head/kernel"

    def one(name: str) -> Array | None:
        array = flat.get(name)
        if array is None or layer is None:
            return array
        return jax.lax.dynamic_index_in_dim(array, layer, 0, keepdims=False)

    stored = flat["embed/embedding"].T if is_head and config.tie_embeddings else one(path)
    target = _TARGET_AT.get(path)
    if target is None:
        return stored.astype(jnp.float32)
    _, adapters, inputs, out = PATHS[target]
    weight = number(stored, one(f"{path}_scale"), jnp.float32, len(inputs) - 1)
    if target not in lora.targets:
        return weight
    return with_adapter(weight, *(one(f"{adapters}_{ending}") for ending in ADAPTER), lora, inputs, out)


def with_adapter(
    weight: Array, a: Array, b: Array, magnitude: Array | None, lora: Lora, inputs: str, out: str
) -> Array:
    """gain ⊙ (W + s·A·B) in float32, for a weight that is numbers."""
    weight = weight.astype(jnp.float32)
    whole = weight + _product_of(a, b, lora.scaling, inputs, out)
    return whole if magnitude is None else whole * gain(magnitude, weight, a, b, lora.scaling, inputs, out)


def parts_of(flat: dict[str, Array], path: str, config: "LlamaConfig") -> dict[str, Array]:
    """Of the weights by path those that `merged_at` reads for `path`."""
    names = [path, f"{path}_scale"]
    if path == "head/kernel" and config.tie_embeddings:
        names = ["embed/embedding"]
    if (target := _TARGET_AT.get(path)) in config.lora.targets:
        names += [f"{PATHS[target][1]}_{ending}" for ending in ADAPTER]
    return {name: flat[name] for name in names if name in flat}


def merge(weights: dict, config: "LlamaConfig") -> dict:
    """The parameters of `merged_config`, float32, with the adapters in them.

    Cost: a whole model in float32; `merged_at` takes one layer of one matrix at a time.
    """
    flat, after = flatten_dict(weights, sep="/"), merged_config(config)
    paths = [path for path in flat if not path.startswith(f"{COLLECTION}/") and not _is_scale_of(path, flat)]
    if "head/kernel" not in paths and not after.tie_embeddings:
        paths.append("head/kernel")
    params = {
        path: jax.vmap(lambda layer, path=path: merged_at(flat, path, config, layer))(
            jnp.arange(config.layers)
        )
        if path.startswith("layers/")
        else merged_at(flat, path, config)
        for path in paths
    }
    return unflatten_dict(params, sep="/")


def unmerge(params: dict, adapters: dict, config: "LlamaConfig", norms: dict | None = None) -> dict:
    """The base of a merged model in float32, W = W' / gain − s·A·B.

    Args:
        params: what `merge` gave, or what became of it.
        adapters: those under "lora" in the weights that were merged.
        config: of these weights.
        norms: ‖W + s·A·B‖ of these weights, by the path of the matrix, as `norms` gives them: DoRA's gain
            cannot be told from the merged model.
    Raises: ConfigError for DoRA without norms.
    """
    lora, flat = config.lora, flatten_dict(params, sep="/")
    of = {f"{COLLECTION}/{path}": leaf for path, leaf in flatten_dict(adapters, sep="/").items()}
    if lora.dora and norms is None:
        raise ConfigError(
            "unmerge: no norms given; with DoRA those of the weights before they were merged are needed; "
            "keep what norms(weights, config) gives"
        )
    for target in lora.targets:
        path, where, inputs, out = PATHS[target]
        a, b, magnitude = (of.get(f"{where}_{ending}") for ending in ADAPTER)

        def base(
            whole: Array, a: Array, b: Array, undo: Array, inputs: str = inputs, out: str = out
        ) -> Array:
            return whole * undo - _product_of(a, b, lora.scaling, inputs, out)

        undo = jnp.ones(flat[path].shape[-len(out) :]) if magnitude is None else norms[path] / magnitude
        if path.startswith("layers/"):
            undo = jnp.broadcast_to(undo, (config.layers, *undo.shape[-len(out) :]))
            flat[path] = jax.vmap(base)(flat[path], a, b, undo)
        else:
            flat[path] = base(flat[path], a, b, undo)
    if config.tie_embeddings:
        flat.pop("head/kernel", None)
    return unflatten_dict(flat, sep="/")


def norms(weights: dict, config: "LlamaConfig") -> dict[str, Array]:
    """‖W + s·A·B‖ over the inputs of every target, by the path of its matrix: [outputs], or with layers."""
    flat, found = flatten_dict(weights, sep="/"), {}
    for target in config.lora.targets:
        path, where, inputs, out = PATHS[target]
        is_tied_head = target == "head" and config.tie_embeddings
        stored = flat["embed/embedding"].T if is_tied_head else flat[path]
        leaves = [stored, flat.get(f"{path}_scale"), flat[f"{where}_a"], flat[f"{where}_b"]]

        def norm(weight, scales, a, b, inputs=inputs, out=out):
            weight = number(weight, scales, jnp.float32, len(inputs) - 1)
            return norm_of(weight, a, b, config.lora.scaling, inputs, out)

        # Layer after layer, so that no more than one matrix is there in float32.
        found[path] = (
            jax.lax.map(lambda one, norm=norm: norm(*one), tuple(leaves))
            if path.startswith("layers/")
            else norm(*leaves)
        )
    return found


def with_first_magnitudes(weights: dict, config: "LlamaConfig") -> dict:
    """The weights with DoRA's magnitudes equal to the norms, so that the gain is 1; others as they are."""
    if not config.lora.dora:
        return weights
    flat = flatten_dict(weights, sep="/")
    for path, norm in norms(weights, config).items():
        flat[f"{PATHS[_TARGET_AT[path]][1]}_magnitude"] = norm
    return unflatten_dict(flat, sep="/")


# ── several adapters ───────────────────────────────────────────────────────────────────────────────────────


def stacked(lora: Lora, count: int) -> Lora:
    """What `count` adapters side by side are, each of them scaled as it is alone."""
    factor = math.sqrt(count) if lora.rank_stabilized else count
    return replace(lora, rank=count * lora.rank, alpha=factor * lora.alpha)


def side_by_side(parts: Sequence[dict]) -> dict:
    """One adapter that answers the sum of what all of them do: x·A·B = Σ x·Aᵢ·Bᵢ, joined along rank.

    Args:
        parts: trees {"lora": adapters} without magnitudes, or their abstract shapes, or their shardings.
    """
    if len(parts) == 1:
        return parts[0]
    flats = [flatten_dict(part, sep="/") for part in parts]
    return unflatten_dict({path: _joined(path, [one[path] for one in flats]) for path in flats[0]}, sep="/")


def one_by_one(adapters: dict, rank: int) -> list[dict]:
    """The inverse: adapters of `rank` that stand side by side."""
    flat = flatten_dict(adapters, sep="/")
    parts = {
        path: jnp.split(leaf, leaf.shape[_rank_axis(path)] // rank, _rank_axis(path))
        for path, leaf in flat.items()
    }
    count = len(next(iter(parts.values())))
    return [
        unflatten_dict({path: each[place] for path, each in parts.items()}, sep="/") for place in range(count)
    ]


def _rank_axis(path: str) -> int:
    """Of an adapter's array by its path: the last one of A, the first one of B after that of the layers."""
    return -1 if path.endswith("_a") else int(path.startswith(f"{COLLECTION}/layers/"))


def _joined(path: str, leaves: Sequence[Any]) -> Any:
    first, axis = leaves[0], _rank_axis(path)
    if isinstance(first, Sharding):  # rank is never split
        return first
    if isinstance(first, jax.ShapeDtypeStruct):
        shape = list(first.shape)
        shape[axis] = sum(leaf.shape[axis] for leaf in leaves)
        return jax.ShapeDtypeStruct(tuple(shape), first.dtype, sharding=first.sharding)
    return jnp.concatenate(leaves, axis)


def with_merged(base: dict, adapters: dict, config: "LlamaConfig") -> dict:
    """The base with adapters in it for good: W + s·A·B in float32, kept in the type of W.

    Those that stand side by side are merged one after the other, so that it is the same to the bit whether
    they come at once or one by one.

    Args:
        base: weights that are numbers; their memory is written over.
        adapters: {"lora": adapters}, of the rank of `config` or several side by side; no magnitudes.
        config: that of one of them; embedding and head are two matrices where one of them is a target.
    Cost: one layer of one matrix in float32, and its product.
    """
    flat = flatten_dict(base, sep="/")
    for one in one_by_one(adapters, config.lora.rank):
        parts = flatten_dict(one, sep="/")
        for target in config.lora.targets:
            path, where, *_ = PATHS[target]
            a, b = (parts[f"{where}_{ending}"] for ending in ("a", "b"))
            flat[path] = _merge_into(flat[path], a, b, config.lora, target, flat[path].sharding)
    return unflatten_dict(flat, sep="/")


@partial(jax.jit, static_argnames=("lora", "target", "sharding"), donate_argnames="weight")
def _merge_into(weight: Array, a: Array, b: Array, lora: Lora, target: str, sharding: Sharding) -> Array:
    *_, inputs, out = PATHS[target]
    if target not in PROJECTIONS:
        whole = with_adapter(weight, a, b, None, lora, inputs, out).astype(weight.dtype)
        return jax.lax.with_sharding_constraint(whole, sharding)

    def merge_layer(layer: Array, weight: Array) -> Array:
        old, a_, b_ = (jax.lax.dynamic_index_in_dim(x, layer, 0, keepdims=False) for x in (weight, a, b))
        new = with_adapter(old, a_, b_, None, lora, inputs, out).astype(weight.dtype)
        return jax.lax.dynamic_update_index_in_dim(weight, new, layer, 0)

    return jax.lax.with_sharding_constraint(jax.lax.fori_loop(0, len(weight), merge_layer, weight), sharding)


def _product_of(a: Array, b: Array, scaling: float, inputs: str, out: str) -> Array:
    return scaling * jnp.einsum(f"{inputs}r,r{out}->{inputs}{out}", a, b, precision="highest")


def _is_scale_of(path: str, flat: dict) -> bool:
    return path.endswith("_scale") and path.removesuffix("_scale") in flat
