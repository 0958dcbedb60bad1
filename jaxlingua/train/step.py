"""One optimizer update: micro-batches, one division by the batch's target tokens, a guard against NaN."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int32

from jaxlingua.config import AnchorConfig
from jaxlingua.model.llama import Llama
from jaxlingua.sharding.rules import BATCH_AXES, MeshFunction, batch_sharding, batch_shards, replicated
from jaxlingua.tokens.batches import Batch
from jaxlingua.train.anchors import PARAMS, pulled
from jaxlingua.train.learned import ALL, Learned
from jaxlingua.train.objective import LossSums, Objective, summed_loss
from jaxlingua.train.optimizer import Schedule
from jaxlingua.train.state import TrainState


class Metrics(NamedTuple):
    """What a step tells, all on the device. Group values are sums over the target tokens of each group.

    `loss` is the mean over target tokens alone; what anchors add to it is `anchor_loss`.
    """

    loss: Float[Array, ""]
    target_tokens: Int32[Array, ""]
    group_loss: Float[Array, "groups"]
    group_target_tokens: Int32[Array, "groups"]
    grad_norm: Float[Array, ""]
    learning_rate: Float[Array, ""]
    skipped: Bool[Array, ""]
    nonfinite_in_a_row: Int32[Array, ""]
    skipped_steps: Int32[Array, ""]
    anchor_loss: Float[Array, ""]


def make_train_step(
    model: Llama,
    optimizer: optax.GradientTransformationExtraArgs,
    schedule: Schedule,
    objective: Objective,
    shardings: TrainState,
    micro_batches: int = 1,
    compiler_options: Mapping[str, bool | int | str] | None = None,
    *,
    learned: Learned = ALL,
    anchor: AnchorConfig | None = None,
) -> MeshFunction:
    """The jitted (state, batch) -> (state, metrics). The state given is donated to the new one.

    Args:
        schedule: learning rate by `state.step`. Its numbers are data: schedules of one shape share a program.
        shardings: of the state; the batch comes as `sharding.feed` places it.
        micro_batches: into how many passes a batch is split; changes memory, not results.
        compiler_options: those of `train.compiler_options` for the devices of the shardings.
        learned: which parameters are trained.
        anchor: what holds them; what it holds them to is in the state.
    """
    mesh = shardings.step.mesh
    step = partial(
        train_step, model, optimizer, objective, learned.parts(shardings.params)[0], micro_batches, learned,
        anchor,
    )  # fmt: skip
    jitted = jax.jit(
        step,
        donate_argnums=1,
        in_shardings=(replicated(mesh), shardings, batch_sharding(mesh)),
        out_shardings=(shardings, replicated(mesh)),
        compiler_options=dict(compiler_options) if compiler_options else None,
    )
    return MeshFunction(jitted, mesh, (schedule,))


def train_step(
    model, optimizer, objective, shardings, micro_batches, learned, anchor, schedule: Schedule,
    state: TrainState, batch: Batch,
):  # fmt: skip
    """One optimizer update; loss and gradient are means over the target tokens of the whole batch.

    Gradients are taken of the part of `state.params` that is `learned`; all else goes through as it is.

    Where either is not finite the parameters and the optimizer stay as they were.
    """
    trained, held = learned.parts(state.params)

    def whole(part: Any) -> Any:
        return state.replace(params=learned.joined(part, held)).weights

    earlier = whole(state.anchor[PARAMS]) if anchor and anchor.kl != "off" else None
    loss_and_grads = partial(summed_loss_and_grads, model, objective, shardings, whole, earlier)
    sums, grads = accumulated(loss_and_grads, trained, batch, micro_batches)

    # The one division: sums over every micro-batch, row and device by the target tokens of all of them.
    count = jnp.maximum(sums.target_tokens, 1)
    loss = sums.loss / count
    grads = jax.tree.map(lambda g: g / count.astype(g.dtype), grads)
    anchor_loss = objective.kl_weight * (sums.divergence / count)
    if anchor:
        grads, penalty = pulled(anchor, trained, state.anchor, grads)
        anchor_loss = anchor_loss + penalty
    if learned.frozen:
        grads = learned.where_trained(grads, jax.tree.map(jnp.zeros_like, grads))

    grad_norm = optax.global_norm(grads)
    finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
    learning_rate = jnp.asarray(schedule(state.step), jnp.float32)
    updates, opt_state = optimizer.update(grads, state.opt_state, trained, learning_rate=learning_rate)
    updated = learned.where_trained(optax.apply_updates(trained, updates), trained)

    skipped = jnp.logical_not(finite)
    new_state = state.replace(
        step=state.step + 1,
        params=learned.joined(_where(finite, updated, trained), held),
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
        anchor_loss=anchor_loss,
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


def summed_loss_and_grads(
    model: Llama, objective: Objective, shardings: Any, whole: Callable[[Any], Any], earlier: Any,
    trained: Any, batch: Batch,
) -> tuple[LossSums, Any]:  # fmt: skip
    """Sums over the target tokens of a batch, and the gradient of their loss.

    Args:
        shardings: of what is trained.
        whole: all weights, by those that are trained.
        earlier: weights whose answers the model is held to, or None.
    """
    grad_fn = jax.value_and_grad(
        lambda part: summed_loss(model, whole(part), batch, objective, earlier), has_aux=True
    )
    (_, sums), grads = grad_fn(trained)
    return sums, jax.lax.with_sharding_constraint(grads, shardings)


def accumulated(
    loss_and_grads: Callable[[Any, Any], tuple[LossSums, Any]], trained: Any, rows: Any, micro_batches: int
) -> tuple[LossSums, Any]:
    """Sums of losses, counts and gradients over micro-batches, one after the other.

    Args:
        rows: a tree of arrays with the rows of a batch as their first axis.
    """
    if micro_batches == 1:
        return loss_and_grads(trained, rows)
    parts = split_rows(rows, micro_batches)

    def add(total, micro_batch):
        return jax.tree.map(jnp.add, total, loss_and_grads(trained, micro_batch)), None

    first = jax.tree.map(lambda x: x[0], parts)
    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(loss_and_grads, trained, first))
    return jax.lax.scan(add, zero, parts)[0]


def _where(condition, new, old):
    return jax.tree.map(lambda n, o: jnp.where(condition, n, o), new, old)
