"""Logical axes to mesh axes: one table, and what follows from it for parameters, state and batches."""

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from jaxlingua.errors import ShardingError
from jaxlingua.model.lora import joined

# Rows of a batch are spread over both of these; weights are split over fsdp and tensor.
BATCH_AXES = ("data", "fsdp")

# The one table. What a parameter is split over, then what an activation is split over.
RULES: tuple[tuple[str, str | tuple[str, ...] | None], ...] = (
    ("vocab", "tensor"),
    ("embed", "fsdp"),
    ("layers", None),
    ("heads", "tensor"),
    ("kv_heads", "tensor"),
    ("head_dim", None),
    ("mlp", "tensor"),
    ("norm", None),
    ("bias", None),
    ("rank", None),
    ("blocks", None),  # of codes: too few to be split wherever the codes are
    ("activation_batch", BATCH_AXES),
    ("activation_length", None),
    ("activation_embed", None),
    ("activation_heads", "tensor"),
    ("activation_kv_heads", "tensor"),
    ("activation_mlp", "tensor"),
    ("activation_vocab", "tensor"),
)

# A vocabulary is padded to this, whatever the mesh: 128 divides over any usual tensor axis and fills a
# TPU lane, and a shape that followed the mesh could not be resumed on another one.
VOCAB_MULTIPLE = 128


def padded_vocab_size(vocab_size: int) -> int:
    """The model's vocabulary for a tokenizer of `vocab_size` pieces: the next multiple of 128.

    The padding is left out of every softmax, so no loss depends on it.
    """
    return -(-vocab_size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE


@contextmanager
def sharding_context(mesh: Mesh) -> Iterator[Mesh]:
    """Make `mesh` and the table known to everything that is traced inside.

    `with mesh:` would not do: `nn.with_logical_constraint` silently does nothing under it.
    """
    with jax.set_mesh(mesh), nn.logical_axis_rules(RULES):
        yield mesh


@dataclass(frozen=True)
class MeshFunction:
    """A jitted function that is always traced and called inside its sharding context.

    `first` are arguments that come first in every call: data that belongs to the function.
    """

    jitted: Callable
    mesh: Mesh
    first: tuple = ()

    def __call__(self, *args: Any) -> Any:
        with sharding_context(self.mesh):
            return self.jitted(*self.first, *args)

    def lower(self, *args: Any) -> jax.stages.Lowered:
        """The lowered program for arguments or their abstract shapes, to compile or inspect."""
        with sharding_context(self.mesh):
            return self.jitted.lower(*self.first, *args)

    def compile_count(self) -> int:
        """How many programs were compiled so far; more than one means that shapes changed."""
        return self.jitted._cache_size()


def batch_shards() -> int:
    """Over how many devices the rows of a batch are spread in the current sharding context (1 outside)."""
    sizes = jax.sharding.get_abstract_mesh().shape
    return math.prod(sizes.get(axis, 1) for axis in BATCH_AXES)


def rows_multiple(mesh: Mesh | AbstractMesh) -> int:
    """What a number of rows must be a multiple of, to be spread evenly over the mesh."""
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows over data and fsdp; each device holds whole rows."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same value on every device."""
    return NamedSharding(mesh, PartitionSpec())


def count_micro_batches(batch_rows: int, micro_batch_rows: int | str, mesh: Mesh | AbstractMesh) -> int:
    """How many micro-batches make one batch; "auto" is one.

    Raises: ShardingError if the rows do not divide over micro-batches or devices.
    """
    micro_batch_rows = batch_rows if micro_batch_rows == "auto" else int(micro_batch_rows)
    if batch_rows % micro_batch_rows:
        raise ShardingError(
            f"train.micro_batch_rows: {micro_batch_rows} rows do not divide train.batch_rows={batch_rows}; "
            f"use a divisor of {batch_rows}"
        )
    check_rows(
        "train.micro_batch_rows" if micro_batch_rows < batch_rows else "train.batch_rows",
        micro_batch_rows,
        mesh,
    )
    return batch_rows // micro_batch_rows


def check_rows(where: str, rows: int, mesh: Mesh | AbstractMesh) -> None:
    """Refuse a number of rows that cannot be spread evenly; `where` is the field it came from."""
    shards = rows_multiple(mesh)
    if rows % shards:
        sizes = " x ".join(f"{axis}={mesh.shape[axis]}" for axis in BATCH_AXES)
        raise ShardingError(
            f"{where}: {rows} rows cannot be split over {sizes} = {shards} devices; "
            f"use a multiple of {shards}"
        )


@functools.lru_cache(maxsize=16)
def abstract_params(model: nn.Module, mesh: Mesh) -> Any:
    """Shapes and dtypes of the parameters, still boxed with their logical axes; computes nothing.

    Cost: the model is traced once, some tenths of a second; a run asks for them a dozen times.
    """
    return jax.eval_shape(lambda: init_params(model, jax.random.key(0), mesh))


def init_params(model: nn.Module, key: jax.Array, mesh: Mesh) -> Any:
    """Draw the parameters, boxed with their logical axes."""
    # Of attention only the shapes matter, and a kernel of another platform could not be traced here.
    model = model.clone(config=replace(model.config, attention="reference"))
    tokens = jnp.zeros((rows_multiple(mesh), 8), jnp.int32)  # values do not matter, rows must divide
    positions = jnp.broadcast_to(jnp.arange(8, dtype=jnp.int32), tokens.shape)
    return joined(model.init(key, tokens, positions, jnp.ones_like(tokens)))


def param_shardings(model: nn.Module, mesh: Mesh) -> Any:
    """The sharding of every parameter, as a plain tree.

    Raises: ShardingError naming the parameter, if an axis has no rule, does not divide, or two axes want
    the same mesh axis.
    """
    boxed = abstract_params(model, mesh)
    logical = nn.get_partition_spec(boxed)
    return jax.tree_util.tree_map_with_path(
        lambda path, spec, shape: NamedSharding(mesh, mesh_spec(_name(path), shape.shape, tuple(spec), mesh)),
        logical,
        nn.unbox(boxed),
        is_leaf=lambda leaf: isinstance(leaf, PartitionSpec),
    )


def abstract_sharded_params(model: nn.Module, mesh: Mesh) -> Any:
    """Shapes, dtypes and shardings of the parameters: what a checkpoint is read into."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        nn.unbox(abstract_params(model, mesh)),
        param_shardings(model, mesh),
    )


def mesh_spec(
    name: str, shape: tuple[int, ...], logical: tuple[str | None, ...], mesh: Mesh
) -> PartitionSpec:
    """Translate the logical axes of one parameter, refusing what cannot be split."""
    table = dict(RULES)
    what = f"sharding: parameter '{name}' {shape}"
    if len(logical) != len(shape):
        raise ShardingError(f"{what} has logical axes {logical}; name every one of its {len(shape)} axes")
    taken: dict[str, str] = {}
    for axis, size in zip(logical, shape, strict=True):
        if axis not in table:
            raise ShardingError(
                f"{what}, axis '{axis}' has no rule; known: {', '.join(table)}; add it to RULES"
            )
        mesh_axis = table[axis]
        if mesh_axis is None:
            continue
        if mesh_axis in taken:
            raise ShardingError(
                f"{what}, axes '{taken[mesh_axis]}' and '{axis}' both lie on mesh axis '{mesh_axis}'; "
                f"give one of them another rule"
            )
        taken[mesh_axis] = axis
        if size % mesh.shape[mesh_axis]:
            raise ShardingError(
                f"{what}, axis '{axis}' = {size} cannot be split over mesh axis '{mesh_axis}' = "
                f"{mesh.shape[mesh_axis]}; use a divisor of {size}"
            )
    return PartitionSpec(*(table[axis] for axis in logical))


def tree_shardings(tree: Any, params: Any, shardings: Any, mesh: Mesh) -> Any:
    """Shardings of `tree`, any tree of arrays in which trees like `params` are nested.

    A leaf whose path ends like that of a parameter is split like it: the first and second moments of
    Adam. A leaf with the axes of the parameter but one (the factored moments of Adafactor) is split
    along those it has. All else, such as counts, lies on every device.
    """
    known = {
        _name(path): (leaf.shape, sharding.spec)
        for (path, leaf), sharding in zip(
            jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(shardings), strict=True
        )
    }

    def sharding_of(path: Any, leaf: Any) -> NamedSharding:
        parts = _name(path).split("/")
        for start in range(len(parts)):
            if (found := known.get("/".join(parts[start:]))) is not None:
                return NamedSharding(mesh, _reduced_spec(leaf.shape, *found))
        return replicated(mesh)

    return jax.tree_util.tree_map_with_path(sharding_of, tree)


def _reduced_spec(shape: tuple[int, ...], param_shape: tuple[int, ...], spec: PartitionSpec) -> PartitionSpec:
    """The spec of an array that has the axes of a parameter, or all but one of them."""
    if shape == param_shape:
        return spec
    axes = tuple(spec) + (None,) * (len(param_shape) - len(spec))
    for gone in range(len(param_shape)):
        if shape == param_shape[:gone] + param_shape[gone + 1 :]:
            return PartitionSpec(*axes[:gone], *axes[gone + 1 :])
    return PartitionSpec()


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
