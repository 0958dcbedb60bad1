"""One optimizer update: micro-batches, one division by the batch's target tokens, a guard against NaN."""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int32

from jaxlingua.model.llama import Llama
from jaxlingua.sharding.rules import BATCH_AXES, MeshFunction, batch_sharding, batch_shards, replicated
from jaxlingua.tokens.batches import Batch
from jaxlingua.train.objective import LossSums, Objective, summed_loss
from jaxlingua.train.optimizer import Schedule
from jaxlingua.train.state import TrainState


class Metrics(NamedTuple):
    """What a step tells, all on the device. Group values are sums over the target tokens of each group."""

    loss: Float[Array, ""]
    target_tokens: Int32[Array, ""]
    group_loss: Float[Array, "groups"]
    group_target_tokens: Int32[Array, "groups"]
    grad_norm: Float[Array, ""]
    learning_rate: Float[Array, ""]
    skipped: Bool[Array, ""]
    nonfinite_in_a_row: Int32[Array, ""]
    skipped_steps: Int32[Array, ""]


def make_train_step(
    model: Llama,
    optimizer: optax.GradientTransformationExtraArgs,
    schedule: Schedule,
    objective: Objective,
    shardings: TrainState,
    micro_batches: int = 1,
    compiler_options: Mapping[str, bool | int | str] | None = None,
) -> MeshFunction:
    """The jitted (state, batch) -> (state, metrics). The state given is donated to the new one.

    Args:
        schedule: learning rate by `state.step`.
        shardings: of the state; the batch comes as `sharding.feed` places it.
        micro_batches: into how many passes a batch is split; changes memory, not results.
        compiler_options: those of `train.compiler_options` for the devices of the shardings.
    """
    mesh = shardings.step.mesh
    step = partial(train_step, model, optimizer, schedule, objective, shardings.params, micro_batches)
    jitted = jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(shardings, batch_sharding(mesh)),
        out_shardings=(shardings, replicated(mesh)),
        compiler_options=dict(compiler_options) if compiler_options else None,
    )
    return MeshFunction(jitted, mesh)


def train_step(
    model, optimizer, schedule, objective, param_shardings, micro_batches, state: TrainState, batch: Batch
):
    """One optimizer update; loss and gradient are means over the target tokens of the whole batch.

    Gradients are taken of `state.params` alone; `state.frozen` goes through as it is.

    Where either is not finite the parameters and the optimizer stay as they were.
    """
    loss_and_grads = partial(_summed_loss_and_grads, model, objective, param_shardings, state.frozen)
    if micro_batches == 1:
        sums, grads = loss_and_grads(state.params, batch)
    else:
        sums, grads = _accumulate(loss_and_grads, state.params, split_rows(batch, micro_batches))

    # The one division: sums over every micro-batch, row and device by the target tokens of all of them.
    count = jnp.maximum(sums.target_tokens, 1)
    loss = sums.loss / count
    grads = jax.tree.map(lambda g: g / count.astype(g.dtype), grads)

    grad_norm = optax.global_norm(grads)
    finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
    learning_rate = jnp.asarray(schedule(state.step), jnp.float32)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params, learning_rate=learning_rate)
    params = optax.apply_updates(state.params, updates)

    skipped = jnp.logical_not(finite)
    new_state = state.replace(
        step=state.step + 1,
        params=_where(finite, params, state.params),
        opt_state=_where(finite, opt_state, state.opt_state),
        nonfinite_in_a_row=jnp.where(finite, 0, state.nonfinite_in_a_row + 1),
        skipped_steps=state.skipped_steps + skipped,
    )
    metrics = Metrics(
        loss=loss,
        target_tokens=sums.target_tokens,
        group_loss=sums.group_loss,
        group_target_tokens=sums.group_target_tokens,
        grad_norm=grad_norm,
        learning_rate=learning_rate,
        skipped=skipped,
        nonfinite_in_a_row=new_state.nonfinite_in_a_row,
        skipped_steps=new_state.skipped_steps,
    )
    return new_state, metrics


def split_rows(batch: Any, micro_batches: int) -> Any:
    """[b t] to [micro_batches, b / micro_batches, t]; every device takes its part from its own rows."""
    shards = batch_shards()

    def split(x: Array) -> Array:
        parts = x.reshape(shards, micro_batches, -1, *x.shape[1:])  # s m r t
        parts = jnp.swapaxes(parts, 0, 1).reshape(micro_batches, -1, *x.shape[1:])  # m b/m t
        return (
            jax.lax.with_sharding_constraint(parts, PartitionSpec(None, BATCH_AXES)) if shards > 1 else parts
        )

    return jax.tree.map(split, batch)


def _summed_loss_and_grads(
    model, objective, param_shardings, frozen, params, batch: Batch
) -> tuple[LossSums, Any]:
    grad_fn = jax.value_and_grad(
        lambda params: summed_loss(model, frozen | params, batch, objective), has_aux=True
    )
    (_, sums), grads = grad_fn(params)
    return sums, jax.lax.with_sharding_constraint(grads, param_shardings)


def _accumulate(loss_and_grads, params, micro_batches) -> tuple[LossSums, Any]:
    """Sums of losses, counts and gradients over micro-batches, one after the other."""

    def add(total, micro_batch):
        return jax.tree.map(jnp.add, total, loss_and_grads(params, micro_batch)), None

    first = jax.tree.map(lambda x: x[0], micro_batches)
    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(loss_and_grads, params, first))
    return jax.lax.scan(add, zero, micro_batches)[0]


def _where(condition, new, old):
    return jax.tree.map(lambda n, o: jnp.where(condition, n, o), new, old)
