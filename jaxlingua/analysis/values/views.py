"""Two views of a class for each row of a batch: some of its pairs, drawn without replacement."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Int

from jaxlingua.errors import DataError

NONE = -1  # where a view has fewer members than λ


@dataclass(frozen=True, eq=False)
class Views:
    """Batches of views, each a pure function of (seed, step): the same on any number of devices.

    A row picks a pair at random, and so a class in proportion to its pairs. Each of its two views then has
    1 to `most` pairs of that class, uniformly and independently, none twice. The views share a pair only
    where the class has fewer than both need, and then as few as can be. The released code of UniVaR draws
    them unseeded, lets views overlap and, at evaluation, draws over all classes.

    Attributes:
        classes: [pairs], the class of each pair.
        most: λ.
    Paper: arXiv:2404.07900, section 3 (λ).
    """

    classes: Int[np.ndarray, " pairs"]
    most: int
    batch_rows: int
    seed: int

    @cached_property
    def _members(self) -> dict[int, np.ndarray]:
        return {int(one): np.flatnonzero(self.classes == one) for one in np.unique(self.classes)}

    def at(self, step: int) -> tuple[Int[np.ndarray, "2 rows most"], Int[np.ndarray, " rows"]]:
        """Pairs of both views of each row, filled up with `NONE`, and the rows' classes.

        Cost: some microseconds a row, and a permutation of its class.
        """
        rng = np.random.default_rng([self.seed, step])
        classes = self.classes[rng.integers(len(self.classes), size=self.batch_rows)]
        sizes = rng.integers(1, self.most + 1, size=(self.batch_rows, 2))
        found = np.full((2, self.batch_rows, self.most), NONE)
        for row, (one, (first, second)) in enumerate(zip(classes, sizes, strict=True)):
            order = rng.permutation(self._members[int(one)])
            found[0, row, :first] = order[:first]
            found[1, row, :second] = order[len(order) - second :]
        return found, classes


def check_views(counts: Mapping[str, int], most: int) -> None:
    """Refuse what no views can be drawn from.

    Args:
        counts: training pairs by class.
        most: λ.
    Raises: DataError.
    """
    if len(counts) < 2:
        raise DataError(
            f"values: answers of one class given ({', '.join(counts) or 'none'}); two or more models or "
            f"languages are needed to tell apart; add one"
        )
    few = min(counts, key=counts.__getitem__)
    if counts[few] < most:
        raise DataError(
            f"--lambda: {most} given, and {few} has {counts[few]} answers to learn from; a view has up to "
            f"{most} different ones; lower it, or raise --samples"
        )
