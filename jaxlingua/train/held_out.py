"""Loss on held-out documents: nats per target token and bits per byte, per mixture entry and language."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from jaxlingua.errors import DataError
from jaxlingua.sharding.feed import place_rows
from jaxlingua.sharding.rules import MeshFunction, batch_sharding, replicated
from jaxlingua.tokens.batches import Batch, OnePass
from jaxlingua.tokens.documents import Group
from jaxlingua.train.objective import LossSums, Objective, summed_loss


@dataclass(frozen=True)
class HeldOutLoss:
    """What one group lost.

    `bits_per_byte` divides by the UTF-8 bytes of the learned text and so can be compared between tokenizers
    and scripts; the end-of-text tokens are paid for and have no bytes.
    """

    loss: float
    bits_per_byte: float
    target_tokens: int
    target_bytes: int


@dataclass(frozen=True)
class HeldOut:
    """Fixed batches that lie on the mesh, and the program that measures them."""

    batches: tuple[Batch, ...]
    group_names: tuple[Group, ...]
    target_bytes: np.ndarray  # int64 [groups]
    sums: MeshFunction

    def measure(self, weights: Any) -> tuple[LossSums, ...]:
        """Sums per batch, still on the device."""
        return tuple(self.sums(weights, batch) for batch in self.batches)

    def tell(self, sums: Sequence[LossSums]) -> dict[Group, HeldOutLoss]:
        """What `measure` gave, fetched to the host, as one value per (entry, language)."""
        loss = np.sum([np.asarray(batch.group_loss, np.float64) for batch in sums], axis=0)
        tokens = np.sum([np.asarray(batch.group_target_tokens, np.int64) for batch in sums], axis=0)
        return {
            group: HeldOutLoss(
                loss=float(loss[i] / max(tokens[i], 1)),
                bits_per_byte=float(loss[i] / math.log(2) / max(self.target_bytes[i], 1)),
                target_tokens=int(tokens[i]),
                target_bytes=int(self.target_bytes[i]),
            )
            for i, group in enumerate(self.group_names)
        }


def make_held_out(
    documents: OnePass, model: nn.Module, objective: Objective, weight_shardings: Any
) -> HeldOut:
    """Place the held-out documents on the mesh, once, and prepare the program.

    Args:
        documents: `tokens.batches.one_pass` of the held-out documents; its rows decide how much memory a
            measurement takes, never what comes out.
        objective: the one of training; its groups are replaced by those of the documents.

    Raises: DataError if there are no documents.
    """
    if not documents.steps:
        raise DataError(
            "data.sources: no held-out document is left to measure; raise held_out_records or set "
            "train.held_out_documents=0"
        )
    mesh = jax.tree.leaves(weight_shardings)[0].mesh
    corpus = documents.corpus
    byte_counts = np.concatenate([store.target_bytes for store in corpus.stores])
    target_bytes = np.bincount(corpus.groups, byte_counts, len(documents.group_names)).astype(np.int64)
    objective = replace(objective, groups=len(documents.group_names))
    jitted = jax.jit(
        partial(_sums, model, objective),
        in_shardings=(weight_shardings, batch_sharding(mesh)),
        out_shardings=replicated(mesh),
    )
    batches = tuple(
        place_rows(documents.batch, step, documents.batch_rows, mesh) for step in range(documents.steps)
    )
    return HeldOut(batches, tuple(documents.group_names), target_bytes, MeshFunction(jitted, mesh))


def _sums(model: nn.Module, objective: Objective, weights: Any, batch: Batch) -> LossSums:
    return summed_loss(model, weights, batch, objective)[1]
