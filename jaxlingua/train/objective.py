"""Next-token cross-entropy as sums over target tokens, without ever holding the logits of a whole batch."""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int32

from jaxlingua.model.llama import Llama, head_kernel, learns_head
from jaxlingua.model.lora import collections
from jaxlingua.sharding.rules import batch_shards
from jaxlingua.tokens.batches import Batch


@dataclass(frozen=True)
class Objective:
    """What the loss is made of.

    Args:
        vocab_size: the tokenizer's; logits of the padding beyond it take no part in the softmax.
        groups: number of (mixture entry, language) groups that losses are told apart by.
        loss_chunk_tokens: positions whose logits one device holds at one time.
        kl_weight: of the divergence from the answers of an earlier model, where one is given.
    """

    vocab_size: int
    groups: int
    loss_chunk_tokens: int
    kl_weight: float = 0.0


class LossSums(NamedTuple):
    """Sums over target tokens; a mean is made in one place only, the train step."""

    loss: Float[Array, ""]
    target_tokens: Int32[Array, ""]
    group_loss: Float[Array, "groups"]
    group_target_tokens: Int32[Array, "groups"]
    divergence: Float[Array, ""]


def summed_loss(
    model: Llama, weights: Any, batch: Batch, objective: Objective, earlier: Any = None
) -> tuple[Float[Array, ""], LossSums]:
    """Sum over target tokens of -log p(target) in nats, and the same per group.

    The first value is to be differentiated; the sums beside it carry no gradient.

    Args:
        earlier: weights whose answers p₀ the model is held to: `objective.kl_weight` times KL(p₀ ‖ p) of each
            target token is part of the first value, and the divergence alone of the sums. Costs a forward
            pass.
    """
    hidden, kernel = _hidden_and_head(model, weights, batch)
    teacher = None
    if earlier is not None:
        teacher = jax.lax.stop_gradient(_hidden_and_head(model, earlier, batch))
    total, group_loss, divergence = summed_cross_entropy(
        objective, hidden, kernel, batch.targets, batch.target_mask, batch.groups,
        learns_kernel=learns_head(model.config), teacher=teacher,
    )  # fmt: skip
    loss = total if earlier is None else total - objective.kl_weight * divergence
    counts = _sum_by_group(batch.target_mask.astype(jnp.int32), batch.groups, objective.groups)
    sums = LossSums(loss, jnp.sum(batch.target_mask, dtype=jnp.int32), group_loss, counts, divergence)
    return total, jax.lax.stop_gradient(sums)


def drawn_targets(
    model: Llama,
    weights: Any,
    batch: Batch,
    uniform: Float[Array | np.ndarray, "batch length"],
    objective: Objective,
) -> Int32[Array, "batch length"]:
    """A token for each position, drawn from what the model answers there.

    Args:
        uniform: numbers in [0, 1), one for each position; the token is where the distribution passes it.
    Cost: a forward pass.
    """
    hidden, kernel = _hidden_and_head(model, weights, batch)
    flat = partial(_by_shard, shards=batch_shards())
    hidden, uniform, kernel = flat(hidden), flat(uniform), _gathered(kernel.astype(hidden.dtype))

    def draw(chunk: tuple[Array, Array]) -> Array:
        hidden, uniform = chunk
        below = jnp.cumsum(jnp.exp(_log_softmax(_logits(objective, hidden, kernel))), axis=2)
        return jnp.sum(below <= uniform[..., None], axis=2, dtype=jnp.int32)

    drawn = jax.lax.map(draw, _chunks(objective, hidden, uniform))  # n s c
    drawn = jnp.moveaxis(drawn, 0, 1).reshape(hidden.shape[0], -1)[:, : hidden.shape[1]]
    # The sum of all probabilities may be a little below 1.
    return jnp.minimum(drawn, objective.vocab_size - 1).reshape(batch.targets.shape)


def _hidden_and_head(model: Llama, weights: Any, batch: Batch) -> tuple[Array, Array]:
    hidden, _ = model.apply(
        collections(weights), batch.tokens, batch.positions, batch.segments, method="hidden"
    )
    return hidden, head_kernel(weights, model.config)


def summed_cross_entropy(
    objective: Objective,
    hidden: Float[Array, "batch length embed"],
    kernel: Float[Array, "embed padded_vocab"],
    targets: Int32[Array | np.ndarray, "batch length"],
    target_mask: Bool[Array | np.ndarray, "batch length"],
    groups: Int32[Array | np.ndarray, "batch length"],
    *,
    learns_kernel: bool = True,
    teacher: tuple[Array, Array] | None = None,
) -> tuple[Float[Array, ""], Float[Array, "groups"], Float[Array, ""]]:
    """Summed cross-entropy of the logits `hidden @ kernel`, in all and per group; softmax in fp32.

    With a teacher, hidden states and kernel of a model that is not trained, the first value holds
    `kl_weight` times the summed KL(teacher ‖ model) as well, which is the third; 0 without one.

    Logits exist for `loss_chunk_tokens` positions per device at one time. The gradient is taken in the
    forward pass, chunk by chunk, so nothing is computed twice: each chunk costs three matrix products
    where recomputing the logits would cost four. The kernel is gathered once in the type of `hidden`, and
    each device adds up its own share of the kernel's gradient: one reduction at the end, none per chunk.
    A kernel that is not learned has no gradient, which spares the third product and the room for it.
    """
    flat = partial(_by_shard, shards=batch_shards())
    kernel = kernel.astype(hidden.dtype)
    if teacher is not None:
        teacher = flat(teacher[0]), _gathered(teacher[1].astype(teacher[0].dtype))
    return _cross_entropy(
        objective,
        learns_kernel,
        flat(hidden),
        kernel,
        flat(targets),
        flat(target_mask),
        flat(groups),
        teacher,
    )


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _cross_entropy(objective, learns_kernel, hidden, kernel, targets, target_mask, groups, teacher):
    kernel = _gathered(kernel)

    def add(sums, chunk):
        hidden, targets, mask, groups, *taught = chunk
        found = _chunk_nll(objective, hidden, kernel, targets, mask, *taught, teacher=teacher)
        return _add_nll(objective, sums, *found[:2], groups), None

    zero = _no_sums(objective)
    chunks = _chunks(objective, hidden, targets, target_mask, groups, *(teacher or ())[:1])
    if chunks[0].shape[0] == 1:
        return add(zero, jax.tree.map(lambda x: x[0], chunks))[0]
    return jax.lax.scan(add, zero, chunks)[0]


def _forward(objective, learns_kernel, hidden, kernel, targets, target_mask, groups, teacher):
    gathered = _gathered(kernel)

    def add(carry, chunk):
        sums, d_kernel = carry
        hidden, targets, mask, groups, *taught = chunk
        nll, divergence, d_logits = _chunk_nll(
            objective, hidden, gathered, targets, mask, *taught, teacher=teacher
        )
        d_logits = d_logits.astype(hidden.dtype)  # s c v
        d_hidden = _einsum("scv,dv->scd", d_logits, gathered).astype(hidden.dtype)
        if not learns_kernel:
            return (_add_nll(objective, sums, nll, divergence, groups), None), d_hidden
        d_kernel = d_kernel + _einsum("scd,scv->sdv", hidden, d_logits)  # one sum per shard s of the rows
        d_kernel = nn.with_logical_constraint(d_kernel, ("activation_batch", None, "activation_vocab"))
        return (_add_nll(objective, sums, nll, divergence, groups), d_kernel), d_hidden

    zero = _no_sums(objective)
    chunks = _chunks(objective, hidden, targets, target_mask, groups, *(teacher or ())[:1])
    if chunks[0].shape[0] == 1:
        (sums, d_kernel), d_hidden = add((zero, jnp.float32(0)), jax.tree.map(lambda x: x[0], chunks))
    else:
        zero_kernel = None
        if learns_kernel:
            zero_kernel = jnp.zeros((hidden.shape[0], *kernel.shape), jnp.float32)
            zero_kernel = nn.with_logical_constraint(
                zero_kernel, ("activation_batch", None, "activation_vocab")
            )
        (sums, d_kernel), d_hidden = jax.lax.scan(add, (zero, zero_kernel), chunks)
        d_hidden = jnp.moveaxis(d_hidden, 0, 1).reshape(hidden.shape[0], -1, hidden.shape[2])  # s m d
        d_hidden = d_hidden[:, : hidden.shape[1]]
    if not learns_kernel:
        return sums, (d_hidden, None)
    d_kernel = jnp.sum(d_kernel.astype(kernel.dtype), axis=0)
    return sums, (d_hidden, nn.with_logical_constraint(d_kernel, ("embed", "vocab")))


def _backward(objective, learns_kernel, residuals, cotangents):
    d_hidden, d_kernel = residuals
    scale = cotangents[0]  # that of the group sums is zero: summed_loss stops gradients there
    return (
        (d_hidden * scale).astype(d_hidden.dtype),
        None if d_kernel is None else (d_kernel * scale).astype(d_kernel.dtype),
        None,
        None,
        None,
        None,
    )


_cross_entropy.defvjp(_forward, _backward)


def _chunk_nll(objective, hidden, kernel, targets, mask, taught=None, teacher=None):
    """-log p(target) of one chunk, its divergence from the teacher's answers, and the gradient of both with
    respect to the logits, all zero where masked."""
    logits = _logits(objective, hidden, kernel)
    ids = jax.lax.broadcasted_iota(jnp.int32, logits.shape, 2)
    top = jnp.max(logits, axis=2, keepdims=True)
    exps = jnp.exp(logits - top)
    total = jnp.sum(exps, axis=2, keepdims=True)
    is_target = ids == targets[..., None]  # a comparison, not a gather: the vocabulary may be split
    target_logit = jnp.sum(jnp.where(is_target, logits, 0), axis=2)
    log_total = jnp.log(total) + top
    nll = jnp.where(mask, log_total[..., 0] - target_logit, 0)
    gradient, divergence = exps / total - is_target, jnp.zeros_like(nll)
    if teacher is not None:
        log_taught = _log_softmax(_logits(objective, taught, teacher[1]))
        probability = jnp.exp(log_taught)
        divergence = jnp.sum(probability * (log_taught - (logits - log_total)), axis=2)
        divergence = jnp.where(mask, divergence, 0)
        gradient = gradient + objective.kl_weight * (exps / total - probability)
    return nll, divergence, jnp.where(mask[..., None], gradient, 0)


def _logits(objective, hidden, kernel):
    """In fp32; those of the padding of the vocabulary are as good as minus infinity."""
    logits = _einsum("scd,dv->scv", hidden, kernel)
    logits = nn.with_logical_constraint(logits, ("activation_batch", None, "activation_vocab"))
    if objective.vocab_size == logits.shape[2]:
        return logits
    ids = jax.lax.broadcasted_iota(jnp.int32, logits.shape, 2)
    return jnp.where(ids < objective.vocab_size, logits, jnp.finfo(jnp.float32).min)


def _log_softmax(logits):
    top = jnp.max(logits, axis=2, keepdims=True)
    return logits - (jnp.log(jnp.sum(jnp.exp(logits - top), axis=2, keepdims=True)) + top)


def _no_sums(objective):
    return jnp.float32(0), jnp.zeros(objective.groups, jnp.float32), jnp.float32(0)


def _add_nll(objective, sums, nll, divergence, groups):
    """Sums of the loss, with the weighted divergence, of the loss per group, and of the divergence alone."""
    loss, group_loss, diverged = sums
    here = jnp.sum(divergence)
    return (
        loss + jnp.sum(nll) + objective.kl_weight * here,
        group_loss + _sum_by_group(nll, groups, objective.groups),
        diverged + here,
    )


def _sum_by_group(values: Array | np.ndarray, groups: Array | np.ndarray, count: int) -> Array:
    """Sums of `values` per group; a NaN stays in its own group, unlike in a product with one-hots."""
    member = groups.reshape(-1, 1) == jnp.arange(count, dtype=groups.dtype)
    return jnp.sum(jnp.where(member, values.reshape(-1, 1), jnp.zeros((), values.dtype)), axis=0)


def _by_shard(x: Array | np.ndarray, *, shards: int) -> Array:
    """[b t ...] to [s m ...]: the positions that each device holds, laid end to end; moves nothing."""
    x = jnp.asarray(x).reshape(shards, -1, *x.shape[2:])
    return nn.with_logical_constraint(x, ("activation_batch",) + (None,) * (x.ndim - 1))


def _chunks(objective, *arrays):
    """Cut axis 1 of [s m ...] into chunks [n s c ...]; the last one is filled with masked positions."""
    length = arrays[0].shape[1]
    chunk = min(objective.loss_chunk_tokens, length)
    count = -(-length // chunk)

    def cut(x):
        x = jnp.pad(x, [(0, 0), (0, count * chunk - length)] + [(0, 0)] * (x.ndim - 2))
        return jnp.moveaxis(x.reshape(x.shape[0], count, chunk, *x.shape[2:]), 1, 0)

    return tuple(cut(x) for x in arrays)


def _gathered(kernel):
    """The head on every device that needs it, split over the vocabulary only."""
    return nn.with_logical_constraint(kernel, (None, "activation_vocab"))


def _einsum(spec, x, y):
    precision = jax.lax.Precision.HIGHEST if x.dtype == jnp.float32 else None
    return jnp.einsum(spec, x, y, precision=precision, preferred_element_type=jnp.float32)
