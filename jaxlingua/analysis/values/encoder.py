"""What two views of a class share and others do not: an InfoNCE encoder over frozen vectors, in JAX."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax import Array
from jaxtyping import Bool, Float, Int

from jaxlingua.analysis.values.views import NONE, Views
from jaxlingua.errors import DataError

TEMPERATURE = 0.02  # the paper's, which fixes the logit scale at 50: learned, it grows where classes are few
SIZE = 64  # of the learned vectors; classes are some dozens
BATCH_ROWS = 64  # the paper's
PEAK_LR, WEIGHT_DECAY, CLIP = 3e-3, 0.01, 1.0  # the last two are the paper's; the first is of a small head
WARMUP_RATIO = 0.1


class Head(nn.Module):
    """Two layers and a unit length."""

    width: int
    size: int

    @nn.compact
    def __call__(self, x: Float[Array, "... embed"]) -> Float[Array, "... size"]:
        x = nn.Dense(self.size)(nn.gelu(nn.Dense(self.width)(x)))
        return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-6)


@dataclass(frozen=True, eq=False)
class Scale:
    """Mean and deviation of each dimension, of the vectors that are learned from.

    In states of language models a few dimensions are so much larger than the others that cosines and linear
    layers would see these alone.
    """

    mean: Float[np.ndarray, " embed"]
    deviation: Float[np.ndarray, " embed"]

    @classmethod
    def of(cls, vectors: Float[np.ndarray, "pairs embed"]) -> "Scale":
        deviation = vectors.std(axis=0, dtype=np.float64)
        return cls(vectors.mean(axis=0, dtype=np.float64), np.where(deviation > 1e-8, deviation, 1.0))

    def __call__(self, vectors: Float[np.ndarray, "pairs embed"]) -> Float[np.ndarray, "pairs embed"]:
        return ((vectors - self.mean) / self.deviation).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Encoder:
    """A head that has learned.

    Attributes:
        loss: mean of the last tenth of the steps.
    """

    head: Head
    params: Any
    loss: float

    def __call__(self, vectors: Float[np.ndarray, "pairs embed"]) -> Float[np.ndarray, "pairs size"]:
        """Unit vectors of scaled frozen ones.

        The loss sees differences alone: all may have much in common, which cosines of class means would show
        before all else, unless it is taken away.
        """
        return np.asarray(self.head.apply(self.params, jnp.asarray(vectors)))


def info_nce(
    anchors: Float[Array, "rows size"],
    others: Float[Array, "rows size"],
    is_negative: Bool[Array, "rows rows"],
) -> Float[Array, ""]:
    """How badly each anchor finds the other view of its row among those of its negatives: mean, in nats.

    One-directional, as in the paper's code: anchors are told from others, not others from anchors. What
    multiplies its loss by the number of processes only scales the rate.

    Args:
        anchors, others: unit vectors, of both views of each row.
        is_negative: whether row m's other view is a negative of anchor n; the diagonal is not read.
    Paper: arXiv:1807.03748 (InfoNCE); arXiv:2404.07900.
    """
    logits = jnp.einsum("nd,md->nm", anchors, others, precision=jax.lax.Precision.HIGHEST) / TEMPERATURE
    own = jnp.diagonal(logits)
    is_read = is_negative | jnp.eye(len(logits), dtype=bool)
    return jnp.mean(jax.nn.logsumexp(logits, axis=1, where=is_read) - own)


def negatives(classes: Int[Array, " rows"], *, masks_same_class: bool) -> Bool[Array, "rows rows"]:
    """Which rows are negatives of which: all, or those of other classes.

    Of few classes, many rows of a batch are of one class; as negatives they push apart what the views are to
    show to be alike. The paper's code keeps them.
    """
    is_other = classes[:, None] != classes[None, :]
    return is_other if masks_same_class else jnp.ones_like(is_other)


def view_means(
    vectors: Float[Array, "pairs embed"], members: Int[Array, "2 rows most"]
) -> Float[Array, "2 rows embed"]:
    """A view as the mean of the frozen vectors of its pairs.

    The alternative is to join its pairs by line breaks and read that: a pass of the frozen model for each
    view of each step, 2 × rows × steps of them, instead of one for each pair.
    """
    is_there = (members != NONE)[..., None]
    return jnp.where(is_there, vectors[members], 0.0).sum(axis=2) / is_there.sum(axis=2)


def learn(
    vectors: Float[np.ndarray, "pairs embed"],
    views: Views,
    *,
    steps: int,
    masks_same_class: bool,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Encoder:
    """Train a head on views; the frozen vectors stay as they are.

    Args:
        vectors: scaled, of the pairs that `views` are drawn from.
    Raises: DataError where the loss is not finite.
    Cost: a step is two passes of a head of (embed + size) × min(embed, 512) parameters over the rows.
    """
    head = Head(width=min(vectors.shape[1], 512), size=SIZE)
    params = head.init(jax.random.key(views.seed), jnp.zeros((1, vectors.shape[1])))
    warmup_steps = max(1, int(WARMUP_RATIO * steps))
    rate = optax.warmup_cosine_decay_schedule(0.0, PEAK_LR, warmup_steps, max(steps, warmup_steps + 1))
    optimizer = optax.chain(optax.clip_by_global_norm(CLIP), optax.adamw(rate, weight_decay=WEIGHT_DECAY))
    state = optimizer.init(params)
    frozen = jnp.asarray(vectors)

    @jax.jit
    def step(params: Any, state: Any, frozen: Array, members: Array, classes: Array) -> Any:
        def loss_of(params: Any) -> Array:
            anchors, others = head.apply(params, view_means(frozen, members))
            return info_nce(anchors, others, negatives(classes, masks_same_class=masks_same_class))

        loss, gradients = jax.value_and_grad(loss_of)(params)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, loss

    losses = []
    for number in range(steps):
        members, classes = views.at(number)
        params, state, loss = step(params, state, frozen, jnp.asarray(members), jnp.asarray(classes))
        losses.append(loss)
        on_progress(number + 1, steps)
    last = float(np.mean(jax.device_get(losses[-max(1, steps // 10) :])))
    if not np.isfinite(last):
        raise DataError(
            "values: the loss of the encoder is not finite; finite vectors are needed; give another --encode"
        )
    return Encoder(head, params, last)
