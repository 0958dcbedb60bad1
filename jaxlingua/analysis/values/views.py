"""Two views of a class for each row of a batch: answers to some of its questions, no question twice."""

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
    1 to `most` questions of that class, uniformly and independently, none twice, and one of its answers to
    each, drawn by lot. The views share a question only where the class has fewer than both need, and then as
    few as can be: two answers to a question are told to belong together by what was asked. The released code
    of UniVaR draws views unseeded, lets them overlap and, at evaluation, draws over all classes.

    Attributes:
        classes: [pairs], the class of each pair.
        most: λ.
        questions: [pairs], the question of each pair; without it each pair has its own.
    Paper: arXiv:2404.07900, section 3 (λ).
    """

    classes: Int[np.ndarray, " pairs"]
    most: int
    batch_rows: int
    seed: int
    questions: Int[np.ndarray, " pairs"] | None = None

    @cached_property
    def _pairs_by_question(self) -> dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Of each class its pairs, question by question; where each question starts, and how many it has."""
        questions = np.arange(len(self.classes)) if self.questions is None else self.questions
        found = {}
        for one in np.unique(self.classes):
            members = np.flatnonzero(self.classes == one)
            members = members[np.argsort(questions[members], kind="stable")]
            _, starts, counts = np.unique(questions[members], return_index=True, return_counts=True)
            found[int(one)] = (members, starts, counts)
        return found

    def at(self, step: int) -> tuple[Int[np.ndarray, "2 rows most"], Int[np.ndarray, " rows"]]:
        """Pairs of both views of each row, filled up with `NONE`, and the rows' classes.

        Cost: some microseconds a row, and a permutation of the questions of its class.
        """
        rng = np.random.default_rng([self.seed, step])
        classes = self.classes[rng.integers(len(self.classes), size=self.batch_rows)]
        sizes = rng.integers(1, self.most + 1, size=(self.batch_rows, 2))
        lots = rng.random((2, self.batch_rows, self.most))
        found = np.full(lots.shape, NONE)
        for row, (one, (first, second)) in enumerate(zip(classes, sizes, strict=True)):
            members, starts, counts = self._pairs_by_question[int(one)]
            order = rng.permutation(len(starts))
            for view, asked in enumerate((order[:first], order[len(order) - second :])):
                lot = (lots[view, row, : len(asked)] * counts[asked]).astype(int)
                found[view, row, : len(asked)] = members[starts[asked] + lot]
        return found, classes


def check_views(counts: Mapping[str, int], most: int) -> None:
    """Refuse what no views can be drawn from.

    Args:
        counts: training questions by class.
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
            f"--lambda: {most} given, and {few} has {counts[few]} answers to learn from to different "
            f"questions; a view has up to {most}; lower it, or ask more questions"
        )
