"""What a step changes, and what it leaves as it is, as one value that is created in its shards."""

from collections.abc import Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import Mesh

from jaxlingua.model import lora
from jaxlingua.model.lora import COLLECTION, side_by_side, with_first_magnitudes
from jaxlingua.sharding.rules import (
    abstract_params,
    init_params,
    param_shardings,
    sharding_context,
    tree_shardings,
)
from jaxlingua.train.earlier import NONE, Earlier
from jaxlingua.train.learned import ALL, Learned

MERGED, STACKED = "merged", "stacked"  # in `TrainState.earlier`


@flax.struct.dataclass
class TrainState:
    """Parameters, optimizer state and counters. The same class holds their shapes or their shardings.

    `params` is what is trained: the whole model, or adapters alone, and then `frozen` is the model that they
    stand beside. A checkpoint holds all but `frozen`, which is read again from where it came from.
    `anchor` is what a stage remembers of its beginning: "params", what it trains as it was, and EWC's
    "fisher".
    `earlier` is adapters of earlier stages, those of several side by side: "stacked" stand beside `params`,
    "merged" are in `frozen` already.
    `step` counts every step, `skipped_steps` those that changed nothing because a loss or gradient was not
    finite, and `nonfinite_in_a_row` the latest of these without a good one between.
    """

    step: Any
    params: Any
    opt_state: Any
    nonfinite_in_a_row: Any
    skipped_steps: Any
    frozen: Any = flax.struct.field(default_factory=dict)
    anchor: Any = flax.struct.field(default_factory=dict)
    earlier: Any = flax.struct.field(default_factory=dict)

    @property
    def fixed(self) -> Any:
        """What the model computes with beside `params`: the base, and adapters that are stacked beside it."""
        return self.frozen | self.earlier.get(STACKED, {})

    @property
    def weights(self) -> Any:
        """All that the model computes with. Cost: a copy of all adapters where there are stacked ones."""
        return weights_of(self.fixed, self.params)

    @property
    def saved(self) -> "TrainState":
        """What a checkpoint holds."""
        return self.replace(frozen={})


def weights_of(fixed: dict, params: dict) -> dict:
    """All that the model computes with; adapters of both stand side by side."""
    if COLLECTION in fixed:
        params = side_by_side([{COLLECTION: fixed[COLLECTION]}, params])
    return fixed | params


def with_merged(frozen: dict, earlier: dict, model: nn.Module) -> dict:
    """Frozen weights with the earlier adapters that are merged into them.

    Args:
        frozen: as they were read; they are used up.
        model: with one adapter.
    """
    return lora.with_merged(frozen, earlier[MERGED], model.config) if MERGED in earlier else frozen


def state_from_weights(
    weights: Any, optimizer: optax.GradientTransformation, learned: Learned = ALL
) -> TrainState:
    """Step 0 with the given weights."""
    zero, (params, frozen) = jnp.zeros((), jnp.int32), parted(weights)
    return TrainState(zero, params, optimizer.init(learned.parts(params)[0]), zero, zero, frozen)


def parted(weights: dict) -> tuple[dict, dict]:
    """What is trained and what is frozen: where there are adapters, these alone are trained."""
    if COLLECTION not in weights:
        return weights, {}
    frozen = {name: tree for name, tree in weights.items() if name != COLLECTION}
    return {COLLECTION: weights[COLLECTION]}, frozen


def abstract_state(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    learned: Learned = ALL,
    remembered: Sequence[str] = (),
    earlier: Earlier = NONE,
) -> TrainState:
    """Shapes, dtypes and shardings of the state: what a checkpoint is restored into.

    Args:
        model: with one adapter, if any.
        remembered: names in `anchor`.
    """
    weights = nn.unbox(abstract_params(model, mesh))
    shapes = jax.eval_shape(lambda weights: state_from_weights(weights, optimizer, learned), weights)
    shapes = shapes.replace(anchor=dict.fromkeys(remembered, learned.parts(shapes.params)[0]))
    shardings = tree_shardings(shapes, weights, param_shardings(model, mesh), mesh)
    state = jax.tree.map(
        lambda shape, sharding: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding),
        shapes,
        shardings,
    )
    counts = {MERGED: earlier.merged, STACKED: earlier.stacked}
    kept = {name: side_by_side([state.params] * count) for name, count in counts.items() if count}
    return state.replace(earlier=kept)


def shardings_of(tree: Any) -> Any:
    """The sharding of every leaf, of arrays or of their abstract shapes."""
    return jax.tree.map(lambda leaf: leaf.sharding, tree)


def initial_state(
    model: nn.Module, optimizer: optax.GradientTransformation, mesh: Mesh, seed: int, learned: Learned = ALL
) -> TrainState:
    """Draw the first parameters. Each device makes only its shards; values do not depend on the mesh."""
    shardings = shardings_of(abstract_state(model, optimizer, mesh, learned))

    def create(key: jax.Array) -> TrainState:
        weights = nn.unbox(init_params(model, key, mesh))
        return state_from_weights(weights, optimizer, learned)

    with sharding_context(mesh):
        return jax.jit(create, out_shardings=shardings)(jax.random.key(seed))


def first_adapters(base: Any, model: nn.Module, mesh: Mesh, seed: int, place: int = 0) -> Any:
    """New adapters for weights that are there, sharded; with them the model answers as it does without.

    Args:
        place: of the stage that begins with them; those of another are drawn differently.
    Cost: with DoRA, whose magnitudes are the norms of the weights, one matrix in float32 at a time.
    """
    shardings = param_shardings(model, mesh)

    def create(key: jax.Array) -> Any:
        return nn.unbox(init_params(model, key, mesh))[COLLECTION]

    def with_magnitudes(base: Any, adapters: Any) -> Any:
        return with_first_magnitudes({**base, COLLECTION: adapters}, model.config)[COLLECTION]

    key = jax.random.fold_in(jax.random.key(seed), place) if place else jax.random.key(seed)
    with sharding_context(mesh):
        adapters = jax.jit(create, out_shardings=shardings[COLLECTION])(key)
        if not model.config.lora.dora:
            return adapters
        return jax.jit(with_magnitudes, out_shardings=shardings[COLLECTION])(base, adapters)


def state_around(
    weights: Any,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    learned: Learned = ALL,
) -> TrainState:
    """Step 0 with weights that are there already, sharded; they go into the state and are not copied."""
    shardings = shardings_of(abstract_state(model, optimizer, mesh, learned))
    with sharding_context(mesh):
        create = jax.jit(state_from_weights, static_argnums=(1, 2), out_shardings=shardings, donate_argnums=0)
        return create(weights, optimizer, learned)


def with_new_adapters(
    state: TrainState, model: nn.Module, mesh: Mesh, seed: int, place: int, *, is_merged: bool
) -> TrainState:
    """The state with adapters that have learned nothing; those that it has stay as they are.

    Args:
        model: with one adapter.
        place: of the stage that begins.
        is_merged: whether those so far are merged into the frozen weights, which are written over, or
            stacked beside the new ones.
    Cost: a copy of the adapters so far; merged, a layer of one matrix in float32.
    """
    earlier, frozen = dict(state.earlier), state.frozen
    beside = side_by_side([earlier.pop(STACKED), state.params]) if STACKED in earlier else state.params
    if is_merged:
        frozen = lora.with_merged(frozen, beside, model.config)
        earlier[MERGED] = side_by_side([earlier[MERGED], beside]) if MERGED in earlier else beside
    else:
        earlier[STACKED] = beside
    params = {COLLECTION: first_adapters(frozen, model, mesh, seed, place)}
    return state.replace(params=params, frozen=frozen, earlier=earlier)


def with_fresh_optimizer(
    state: TrainState,
    optimizer: optax.GradientTransformation,
    shardings: TrainState,
    learned: Learned = ALL,
) -> TrainState:
    """The same parameters and counters with an optimizer that saw nothing: the start of a later stage."""
    create = jax.jit(optimizer.init, out_shardings=shardings.opt_state)
    return state.replace(opt_state=create(learned.parts(state.params)[0]))
