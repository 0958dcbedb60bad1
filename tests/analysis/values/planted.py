"""Made-up vectors of answers, with a class in them or without."""

import numpy as np

from jaxlingua.analysis.values.identification import Labeled
from jaxlingua.analysis.values.questions import SETS

EMBED = 24


def planted(
    signal: float, *, classes: int = 4, questions: int = 30, seed: int = 0, kept: int | None = None
) -> Labeled:
    """One answer of each class to each question: what the question is about, the class, and noise.

    Args:
        signal: length of what belongs to the class; noise has length 1 a dimension.
        kept: seed of what belongs to the classes, where two sets have the same.
    """
    rng = np.random.default_rng(seed)
    of_class = np.random.default_rng(seed if kept is None else kept).normal(size=(classes, EMBED))
    about = 2 * rng.normal(size=(questions, 1, EMBED))
    noise = rng.normal(size=(questions, classes, EMBED))
    vectors = (about + signal * of_class + noise).reshape(-1, EMBED).astype(np.float32)
    numbers = np.repeat(np.arange(questions), classes)
    return Labeled(vectors, np.tile(np.arange(classes), questions), numbers, numbers % 3 == 2)


def three(signal: float, **options: int) -> dict[str, Labeled]:
    """Values and both controls, alike but for their noise."""
    return {name: planted(signal, seed=place, kept=0, **options) for place, name in enumerate(SETS)}
