"""Bytes per device of a training step by arithmetic: what is known before anything is compiled."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxlingua.config import OptimizerConfig
from jaxlingua.model.attention import REFERENCE_SCORES
from jaxlingua.model.llama import learns_head
from jaxlingua.model.lora import AXES, CODES, PATHS, PROJECTIONS, matrix_dtype, sizes_of
from jaxlingua.model.presets import LlamaConfig
from jaxlingua.model.quantized import block_size
from jaxlingua.model.remat import POLICIES
from jaxlingua.sharding.rules import RULES

MIB = 2**20
_LANES = 128  # of a TPU: the last axis of an array is padded to a multiple of it
_FACTORED_FROM = 128  # optax.scale_by_factored_rms factors matrices whose two longest axes have this length

# Up to some number of logits per position, libtpu 0.0.51 computes their gradient as part of the products that
# take it, and writes it out beyond: 32,000 is seen of the one, 64,128 of the other.
_FUSED_VOCAB = 32_768


@dataclass(frozen=True)
class Memory:
    """Bytes that one device holds at the fullest moment of a step.

    Parameters, optimizer, `frozen`, the base beside adapters with the adapters of earlier stages, and
    `anchor`, what a stage remembers of its beginning, are exact; all else is an estimate, and 0 where that
    moment is another one. `weights` are
    copies of the layers' parameters in the compute dtype, before they are gathered; `activations` is what the
    remat policy keeps of all layers, `layer` the work of the one that is being done. `layer` and `logits`
    never meet, so only the larger counts.
    """

    parameters: int
    optimizer: int
    gradients: int
    activations: int
    layer: int
    logits: int
    weights: int = 0
    frozen: int = 0
    anchor: int = 0

    @property
    def total(self) -> int:
        return sum(asdict(self).values()) - min(self.layer, self.logits)

    def describe(self) -> str:
        """One line for the log, in MiB."""
        parts = ", ".join(f"{name} {size / MIB:,.1f}" for name, size in self.parts().items())
        return f"{self.total / MIB:,.1f} MiB per device ({parts})"

    def parts(self) -> dict[str, int]:
        """By kind; `weights`, `frozen` and `anchor` only where there are any."""
        optional = ("weights", "frozen", "anchor")
        return {name: size for name, size in asdict(self).items() if size or name not in optional}


@dataclass(frozen=True)
class Placing:
    """How a batch and a model lie on devices.

    Args:
        mesh: size of each axis, of devices that need not exist.
        platform, device_kind: of the devices, as JAX names them.
    """

    mesh: Mapping[str, int]
    platform: str
    device_kind: str
    batch_rows: int
    micro_batches: int
    row_length_tokens: int
    loss_chunk_tokens: int

    @property
    def tokens(self) -> int:
        """Of one pass on one device."""
        shards = self.mesh["data"] * self.mesh["fsdp"]
        return self.batch_rows // self.micro_batches // shards * self.row_length_tokens


def bytes_per_device(tree: Any) -> int:
    """What one device holds of a tree of arrays, or of their shapes with shardings.

    XLA puts two codes of four bits into one byte, on CPUs too; NumPy says twice as much of such types.
    """
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * _bits(leaf.dtype) // 8
        for leaf in jax.tree.leaves(tree)
    )


def _bits(dtype: Any) -> int:
    """Of one number, as XLA keeps it."""
    return 4 if dtype == jnp.uint4 else 8 * jnp.dtype(dtype).itemsize


def step_memory(
    state: Any,
    config: LlamaConfig,
    mesh: Mesh,
    *,
    batch_rows: int,
    micro_batches: int,
    row_length_tokens: int,
    loss_chunk_tokens: int,
    is_taught: bool = False,
) -> Memory:
    """Memory of one training step.

    Args:
        state: a train state or its abstract shapes with shardings.
        is_taught: whether another model answers beside, to whose answers it is held.
        config: of the model that computes, in which adapters of earlier stages stand side by side with those
            that are trained.
    """
    device = mesh.devices.flat[0]
    placing = Placing(
        dict(mesh.shape), device.platform, device.device_kind, batch_rows, micro_batches, row_length_tokens,
        loss_chunk_tokens,
    )  # fmt: skip
    held = (bytes_per_device(tree) for tree in (state.params, state.opt_state, (state.frozen, state.earlier)))
    memory = replace(_memory(config, placing, *held), anchor=bytes_per_device(state.anchor))
    return taught(memory) if is_taught else memory


def taught(memory: Memory) -> Memory:
    """With the logits of another model, and its weights in the compute dtype."""
    return replace(memory, logits=2 * memory.logits, weights=2 * memory.weights)


def planned_memory(config: LlamaConfig, optimizer: OptimizerConfig, placing: Placing) -> Memory:
    """The same for a state that is not described yet, on devices that need not exist; microseconds."""
    shapes = trained_shapes(config)
    parameters = sum(4 * _shard_size(axes, placing.mesh) for axes in shapes.values())
    moments = optimizer_bytes(optimizer, shapes, placing.mesh)
    return _memory(config, placing, parameters, moments, frozen_bytes(config, placing.mesh))


def _memory(config: LlamaConfig, placing: Placing, parameters: int, optimizer: int, frozen: int) -> Memory:
    if placing.platform == "tpu":
        return _on_tpu(config, placing, parameters, optimizer, frozen)
    if placing.platform == "gpu" and config.attention == "auto" and config.compute_dtype == "bfloat16":
        config = replace(config, attention="cudnn")  # whose kernel holds no scores
    tokens, tensor, length = placing.tokens, placing.mesh["tensor"], placing.row_length_tokens
    return Memory(
        parameters=parameters,
        optimizer=optimizer,
        gradients=parameters * (2 if placing.micro_batches > 1 else 1),
        activations=tokens * config.layers * kept_bytes_per_token(config, tensor, length),
        layer=tokens * 2 * layer_bytes_per_token(config, tensor, length) + _decoded_bytes(config, placing),
        logits=_loss_bytes(config, placing, min(placing.loss_chunk_tokens, tokens)),
        frozen=frozen,
    )


# ── what is exact: parameters, the state of their optimizer, and the base beside adapters ──────────────────

Axes = tuple[tuple[str, int], ...]


def parameter_shapes(config: LlamaConfig) -> dict[str, Axes]:
    """Logical axes with their sizes of every parameter, by its path."""
    names = ("embed", "layers", "heads", "kv_heads", "head_dim", "mlp")
    size = {name: getattr(config, name) for name in names} | {"vocab": config.vocab_size}

    def axes(names: str) -> Axes:
        return tuple((name, size[name]) for name in names.split())

    layer = {
        "attention/q": "embed heads head_dim",
        "attention/k": "embed kv_heads head_dim",
        "attention/v": "embed kv_heads head_dim",
        "attention/o": "heads head_dim embed",
        "mlp/gate": "embed mlp",
        "mlp/up": "embed mlp",
        "mlp/down": "mlp embed",
    }
    if config.qkv_bias:
        layer |= {
            "attention/q_bias": "heads head_dim",
            "attention/k_bias": "kv_heads head_dim",
            "attention/v_bias": "kv_heads head_dim",
        }
    if config.mlp_bias:
        layer |= {"mlp/gate_bias": "mlp", "mlp/up_bias": "mlp"}
    shapes = {f"layers/{name}": axes(f"layers {names}") for name, names in layer.items()}
    whole = {"attention_norm/scale": config.embed, "mlp_norm/scale": config.embed}  # on every device
    whole |= {"attention/o_bias": config.embed} if config.o_bias else {}
    whole |= {"mlp/down_bias": config.embed} if config.mlp_bias else {}
    if config.qk_norm:
        whole |= {"attention/q_norm/scale": config.head_dim, "attention/k_norm/scale": config.head_dim}
    for name, length in whole.items():
        shapes[f"layers/{name}"] = (("layers", config.layers), ("norm", length))
    shapes |= {"embed/embedding": axes("vocab embed"), "final_norm/scale": (("norm", config.embed),)}
    return shapes if config.tie_embeddings else shapes | {"head/kernel": axes("embed vocab")}


def trained_shapes(config: LlamaConfig) -> dict[str, Axes]:
    """The same of what is trained: adapters where there are any."""
    if config.lora is None:
        return parameter_shapes(config)

    def axes(letters: str) -> Axes:
        return tuple(zip((AXES[each] for each in letters), sizes_of(letters, config), strict=True))

    shapes: dict[str, Axes] = {}
    for target in config.lora.targets:
        _, path, inputs, out = PATHS[target]
        stacked = (("layers", config.layers),) if target in PROJECTIONS else ()
        shapes |= {f"{path}_a": stacked + axes(f"{inputs}r"), f"{path}_b": stacked + axes(f"r{out}")}
        if config.lora.dora:
            shapes[f"{path}_magnitude"] = stacked + axes(out)
    return shapes


def adapter_count(config: LlamaConfig) -> int:
    """Numbers that are trained beside a frozen base; 0 where all of the model is trained."""
    shapes = trained_shapes(config).values() if config.lora else ()
    return sum(math.prod(size for _, size in axes) for axes in shapes)


def frozen_bytes(config: LlamaConfig, mesh: Mapping[str, int]) -> int:
    """The base on one device as `model.lora.base` keeps it; 0 without adapters."""
    if config.lora is None:
        return 0
    return sum(_stored_bytes(config, name, axes, mesh) for name, axes in parameter_shapes(config).items())


def _stored_bytes(config: LlamaConfig, name: str, axes: Axes, mesh: Mapping[str, int]) -> int:
    """Of one frozen parameter: norms and biases in float32, matrices as numbers, or as codes with scales."""
    size = _shard_size(axes, mesh)
    if name.endswith(("/scale", "_bias")):
        return 4 * size
    target = name.rpartition("/")[2]
    if not config.lora.is_quantized or target not in PROJECTIONS:
        return jnp.dtype(matrix_dtype(config)).itemsize * size
    blocked = len(PROJECTIONS[target][0])  # after the axis of layers
    length = axes[blocked][1]
    blocks = (*axes[:blocked], ("blocks", length // block_size(length)), *axes[blocked + 1 :])
    return size * _bits(CODES[config.lora.base]) // 8 + 4 * _shard_size(blocks, mesh)


def optimizer_bytes(optimizer: OptimizerConfig, shapes: Mapping[str, Axes], mesh: Mapping[str, int]) -> int:
    """Moments of the optimizer and its counter on one device."""
    if optimizer.kind == "adafactor":
        return 4 + sum(_factored_bytes(axes, mesh) for axes in shapes.values())
    first = 2 if optimizer.first_moment_dtype == "bfloat16" else 4
    second = 4 if optimizer.kind == "adamw" else 0
    return 4 + (first + second) * sum(_shard_size(axes, mesh) for axes in shapes.values())


def _factored_bytes(axes: Axes, mesh: Mapping[str, int]) -> int:
    """Adafactor's second moment: two sums for the two longest axes, or all of it; one number for the rest."""
    order = np.argsort([size for _, size in axes])
    if len(axes) < 2 or axes[order[-2]][1] < _FACTORED_FROM:
        return 4 * (_shard_size(axes, mesh) + 2)
    sums = ([axis for place, axis in enumerate(axes) if place != gone] for gone in order[-2:])
    return 4 * (sum(_shard_size(tuple(left), mesh) for left in sums) + 1)


def _shard_size(axes: Axes, mesh: Mapping[str, int]) -> int:
    table = dict(RULES)
    return math.prod(size // (mesh[table[name]] if table[name] else 1) for name, size in axes)


# ── TPUs ───────────────────────────────────────────────────────────────────────────────────────────────────


def _on_tpu(config: LlamaConfig, placing: Placing, parameters: int, optimizer: int, frozen: int) -> Memory:
    """The fullest of three moments of the step as libtpu 0.0.51 schedules it (benchmarks/plan_memory.py).

    In each lie parameters, optimizer and, with micro-batches, the float32 sums of all gradients so far.
    What the compiler puts into the chip's fast memory (128 MiB on v5e) is counted as if it lay in HBM: models
    with a layer's work of that order take less than is said here.

    1. The loss: all that the layers keep; the layers' weights in the compute dtype, which XLA makes for all
       layers at once, before the loop; the logits.
    2. A layer's backward pass, taken at the first one, where everything is still kept: the same, with the
       gradients of all layers in float32, for which XLA makes room before the loop; what is left of the
       logits; the layer's work.
    3. The update: all gradients, and one more array for the longest parameter.

    Where there are adapters, all gradients are theirs. Codes are turned into numbers one layer at a time.
    """
    shapes = trained_shapes(config)
    layers = {name: axes for name, axes in shapes.items() if "layers/" in name}
    gradients = {name: _gradient_bytes(config, name, axes, placing) for name, axes in shapes.items()}
    sums = sum(gradients.values()) if placing.micro_batches > 1 else 0
    weights = _itemsize(config) * sum(_shard_size(axes, placing.mesh) for axes in layers.values())
    weights += _base_copies(config, placing.mesh)
    hidden = placing.tokens * config.embed * _itemsize(config)
    kept = placing.tokens * config.layers * _kept_on_tpu(config, placing)
    logits, left = _loss_on_tpu(config, placing)
    stacked, longest = sum(gradients[name] for name in layers), max(gradients.values())
    state = {"parameters": parameters, "optimizer": optimizer, "frozen": frozen}
    logits += 3 * hidden  # the last hidden states, and in float32 for their norm
    moments = (
        Memory(**state, gradients=sums, activations=kept, weights=weights, layer=0, logits=logits),
        Memory(
            **state, gradients=sums + stacked + left, activations=kept, weights=weights,
            layer=_layer_on_tpu(config, placing) + hidden, logits=0,
        ),
        Memory(**state, gradients=(sums or parameters) + longest, activations=0, layer=0, logits=0),
    )  # fmt: skip
    return max(moments, key=lambda memory: memory.total)


def _gradient_bytes(config: LlamaConfig, name: str, axes: Axes, placing: Placing) -> int:
    """The float32 gradient of one parameter of all layers, as it lies in HBM.

    XLA gives each a layout that fills the lanes, but for two matrices in the ordered backward pass, whose
    last axis is the split one: 64 numbers of LLaMA-2 7B's 4,096 on each of 64 chips take the room of 128.
    """
    size = _shard_size(axes, placing.mesh)
    if name.endswith(("attention/o", "mlp/down")) and is_ordered(config, placing.device_kind):
        last = axes[-1][1] // placing.mesh["fsdp"]
        size = size // last * _padded(last)
    return 4 * size


def _base_copies(config: LlamaConfig, mesh: Mapping[str, int]) -> int:
    """Copies of the layers' frozen numbers that XLA makes before the loop over the layers; none of codes.

    Of numbers in another type than the compute dtype all, in that one. Of others, where they lie whole and
    head_dim fills the lanes, q, k and v in a layout with heads first.
    """
    if config.lora is None or config.lora.is_quantized:
        return 0
    shapes = parameter_shapes(config)
    copied = [name for name in shapes if name.startswith("layers/")]
    if config.lora.base == config.compute_dtype:
        is_relaid = mesh["fsdp"] * mesh["tensor"] == 1 and config.head_dim % _LANES == 0
        copied = [f"layers/attention/{name}" for name in "qkv" if is_relaid]
    return _itemsize(config) * sum(_shard_size(shapes[name], mesh) for name in copied)


def _decoded_bytes(config: LlamaConfig, placing: Placing) -> int:
    """What a layer makes of its frozen matrices: numbers of codes, and for DoRA's norm one in float32.

    Of codes there are the numbers of one matrix, and where the backward pass repeats a product those of its
    matrix too, which wait for the gradient of its input.
    """
    if config.lora is None:
        return 0
    queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
    widths = {"q": queries, "k": keys, "v": keys, "residual": queries, "gate": config.mlp, "up": config.mlp}
    kept = POLICIES.get(config.remat, tuple(widths))
    wait = sum(width for name, width in widths.items() if name not in kept)
    decoded = (config.mlp + wait) * _itemsize(config) if config.lora.is_quantized else 0
    return config.embed * (decoded + 4 * config.mlp * config.lora.dora) // placing.mesh["tensor"]


def _kept_on_tpu(config: LlamaConfig, placing: Placing) -> int:
    """Bytes per token that a layer leaves: as elsewhere, with what the kernel's arrays have beside.

    Keys, values and the output stay as the kernel has them, head_dim filled up to 128 lanes; queries do not.
    Beside the output the softmax's normalizer is kept. What "dots" keeps lies as products give it.
    """
    tensor = placing.mesh["tensor"]
    kept = kept_bytes_per_token(config, tensor, placing.row_length_tokens)
    if not has_kernel(config, placing.row_length_tokens) or config.remat == "dots":
        return kept
    if config.remat == "none":
        return _all_of_a_layer(config, tensor)
    names, sizes = POLICIES[config.remat], named_activations(config, tensor)
    padding = _padded(config.head_dim) / config.head_dim - 1
    padded = sum(sizes[name] for name in ("k", "v", "attention_out") if name in names)
    normalizer = 4 * config.heads // tensor if "attention_out" in names else 0
    return kept + int(padded * padding) * _itemsize(config) + normalizer


def _all_of_a_layer(config: LlamaConfig, tensor: int) -> int:
    """What XLA keeps per token without a remat policy, as the loops of such programs carry it.

    Six arrays of the MLP's width; of the residual stream's six in float32, three for each norm, and two in
    the compute dtype; queries, keys, values and output as the kernel has them, the output again as the
    product with o does; the kernel's normalizer and the two norms' in float32.
    """
    heads, kv_heads = config.heads // tensor, config.kv_heads // tensor
    attention = 2 * (heads + kv_heads) * _padded(config.head_dim) + heads * config.head_dim
    numbers = 6 * config.mlp // tensor + 2 * config.embed + attention
    return numbers * _itemsize(config) + 4 * (6 * config.embed + heads + 2)


def _layer_on_tpu(config: LlamaConfig, placing: Placing) -> int:
    """The work of one layer where it is most: in the MLP's backward pass, whatever was kept.

    - gate and up, which become their own gradients in place, and the gradient of their product;
    - of the MLP's matrices one gradient, on its way to be summed over devices, unless they are frozen, and
      where they are split over devices one that was gathered, or two where the backward pass is not ordered;
    - by heads, for attention, whose backward pass is still to come: queries, keys, values, and its output
      twice, once as the kernel has it and once as the product with o does; the last axis fills the lanes;
    - of the kernel's own outputs its normalizer, which it writes to all 128 lanes in float32, unless a
      policy has kept it;
    - the residual stream, its norm and its gradient.
    """
    tokens, tensor, size = placing.tokens, placing.mesh["tensor"], _itemsize(config)
    mlp, heads, kv_heads = config.mlp // tensor, config.heads // tensor, config.kv_heads // tensor
    width = _padded(config.head_dim)
    is_frozen = config.lora is not None
    is_one_by_one = is_ordered(config, placing.device_kind) and not is_frozen
    gathered = (1 if is_one_by_one else 2) if placing.mesh["fsdp"] > 1 else 0
    matrices = (gathered + (not is_frozen)) * config.embed * mlp * size + _decoded_bytes(config, placing)
    numbers = 3 * mlp + (3 * heads + 2 * kv_heads) * width + 3 * config.embed
    if not has_kernel(config, placing.row_length_tokens):
        is_whole = _holds_scores(config, placing.row_length_tokens)
        scores = 2 * heads * placing.row_length_tokens * 4 if is_whole else 0
        return matrices + tokens * (numbers * size + scores)
    keeps_normalizer = config.remat == "none" or "attention_out" in POLICIES.get(config.remat, ())
    lanes = 0 if keeps_normalizer else 4 * heads * _LANES
    return matrices + tokens * (numbers * size + lanes)


def _loss_on_tpu(config: LlamaConfig, placing: Placing) -> tuple[int, int]:
    """Bytes of the loss at its fullest, and what of them waits until after the layers' backward pass.

    In one chunk: logits in float32, the head in the compute dtype, and the logits' gradient, unless that is
    computed inside the two products that take it. What waits is the head's gradient, to be summed over
    devices, or on a single one the logits' gradient that it is made of. In several: logits of one, the
    head, its gradient in float32 as it was and as it becomes; the sum waits. Over micro-batches the
    gathered head stays. A frozen head has no gradient, and no copy where it lies whole in its type.
    """
    tokens, size = placing.tokens, _itemsize(config)
    vocab, chunk = config.vocab_size // placing.mesh["tensor"], min(placing.loss_chunk_tokens, placing.tokens)
    head = vocab * config.embed
    learned = head if learns_head(config) else 0
    is_gathered = math.prod(placing.mesh[axis] for axis in ("fsdp", "tensor")) > 1
    is_ready = jnp.dtype(matrix_dtype(config)) == config.compute_dtype  # no copy in another type
    copied = head * size if learned or is_gathered or not is_ready else 0
    stays = copied if placing.micro_batches > 1 else 0
    if chunk < tokens:
        sums = 8
        if config.lora is not None:  # in place; what the adapter is added to, or W + s·A·B for DoRA's norm
            sums = 4 + (4 if config.lora.dora else size)
        return chunk * vocab * 4 + copied + learned * sums, learned * 4 + stays
    is_alone = math.prod(placing.mesh.values()) == 1
    gradient = chunk * vocab * size if vocab > _FUSED_VOCAB else 0
    waits = (chunk * vocab if is_alone else head) * size if learned else 0
    return chunk * vocab * 4 + gradient + copied, waits + stays


def has_kernel(config: LlamaConfig, row_length_tokens: int) -> bool:
    """Whether the kernel of model/attention.py is taken on a TPU."""
    is_able = config.compute_dtype == "bfloat16" and row_length_tokens % 128 == 0
    return config.attention in ("auto", "splash") and is_able and config.sliding_layers is None


def is_ordered(config: LlamaConfig, device_kind: str) -> bool:
    """Whether the backward pass takes one weight after the other (model/products.py)."""
    return device_kind == "TPU v5 lite" if config.barriers == "auto" else config.barriers


def _padded(size: int) -> int:
    return -(-size // _LANES) * _LANES


# ── other devices ──────────────────────────────────────────────────────────────────────────────────────────


def kept_bytes_per_token(config: LlamaConfig, tensor: int, row_length_tokens: int) -> int:
    """What one layer leaves for the backward pass: its input, and what the remat policy names."""
    sizes = named_activations(config, tensor)
    if config.remat == "none":
        elementwise = 4 * config.embed + 3 * config.mlp // tensor
        return layer_bytes_per_token(config, tensor, row_length_tokens) + elementwise * _itemsize(config)
    # "dots" keeps what products with weights give; those of attention are batched.
    kept = POLICIES.get(config.remat, tuple(name for name in sizes if name != "attention_out"))
    return (config.embed + sum(sizes[name] for name in kept)) * _itemsize(config)


def layer_bytes_per_token(config: LlamaConfig, tensor: int, row_length_tokens: int) -> int:
    """The work of one layer: both norms' inputs and outputs, all that has a name, silu and its product.

    Reference attention adds the float32 scores of every head and their softmax. The backward pass holds
    about as much again as gradients.
    """
    scores = 2 * config.heads // tensor * row_length_tokens if _holds_scores(config, row_length_tokens) else 0
    numbers = 4 * config.embed + sum(named_activations(config, tensor).values()) + 2 * config.mlp // tensor
    return numbers * _itemsize(config) + 4 * scores


def named_activations(config: LlamaConfig, tensor: int) -> Mapping[str, int]:
    """Numbers per token and device of the activations that remat policies know by name."""
    queries, keys = config.heads * config.head_dim // tensor, config.kv_heads * config.head_dim // tensor
    mlp = config.mlp // tensor
    return {
        "q": queries,
        "k": keys,
        "v": keys,
        "attention_out": queries,
        "residual": config.embed,
        "up": mlp,
        "gate": mlp,
    }


def _loss_bytes(config: LlamaConfig, placing: Placing, chunk: int) -> int:
    """Logits of a chunk and their gradient, the gathered head, and this device's share of its gradient."""
    vocab = config.vocab_size // placing.mesh["tensor"]
    gathered = vocab * config.embed * _itemsize(config) if placing.mesh["fsdp"] > 1 else 0
    return chunk * vocab * 4 * 2 + gathered + (vocab * config.embed * 4 if learns_head(config) else 0)


def _holds_scores(config: LlamaConfig, row_length_tokens: int) -> bool:
    """Whether attention holds all scores at once, as model/attention.py decides it without a kernel."""
    is_short = row_length_tokens**2 <= REFERENCE_SCORES
    return config.attention == "reference" or (config.attention == "auto" and is_short)


def _itemsize(config: LlamaConfig) -> int:
    return 2 if config.compute_dtype == "bfloat16" else 4
