"""Vectors of parallel sentences to numbers per layer, before and after training."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxlingua.analysis.alignment.measures import (
    CKA_SENTENCES,
    Interval,
    change_interval,
    cka,
    cosine_gap,
    cosines,
    interval,
    mean_of,
    plane,
    retrieved,
)
from jaxlingua.analysis.alignment.sentences import Sentences
from jaxlingua.generate.states import POOLINGS, Vectors

# What is measured, in the order in which it is told.
MEASURES = ("retrieval", "retrieval_forth", "retrieval_back", "cosine_gap", "cka")

SHOWN_SENTENCES = 150  # of the pictures by language and meaning

Key = tuple[str, tuple[str, str], str]  # pooling, pair of languages, measure


@dataclass(frozen=True, eq=False)
class Compared:
    """What was measured of one model.

    Attributes:
        name: base, a stage and step, or what the user calls it.
        states: layers + 1.
        draws: [states draws] of each key; the first draw is the sentences as they are.
        planes: of each layer the first two principal components of the mean vectors [languages sentences 2]
            of the first `SHOWN_SENTENCES`, and their shares of the variance.
    """

    name: str
    path: str
    states: int
    draws: Mapping[Key, Float[np.ndarray, "states draws"]]
    planes: Sequence[tuple[Float[np.ndarray, "languages sentences 2"], list[float]]]
    cut_sentences: int
    cut_tokens: int
    mean_tokens: Mapping[str, float]


def compare(
    name: str,
    path: str,
    sentences: Sentences,
    vectors: Mapping[str, Vectors],
    weights: Float[np.ndarray, "draws sentences"],
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Compared:
    """All numbers of one model.

    Args:
        vectors: language → those of its sentences.
        weights: of `measures.resamples`.
        on_progress: called with layers done and layers in all, of every pooling and pair.
    """
    states = len(next(iter(vectors.values())).mean)
    draws = {
        (pooling, pair, measure): np.empty((states, len(weights)))
        for pooling in POOLINGS
        for pair in sentences.pairs
        for measure in MEASURES
    }
    for place, (pooling, pair) in enumerate(itertools.product(POOLINGS, sentences.pairs)):
        x, y = (vectors[language].of(pooling) for language in pair)
        for layer in range(states):
            for measure, found in _measured(x[layer], y[layer], weights):
                draws[pooling, pair, measure][layer] = found
            on_progress(place * states + layer + 1, states * len(POOLINGS) * len(sentences.pairs))
    shown = min(SHOWN_SENTENCES, len(sentences.ids))
    stacked = np.stack([each.mean[:, :shown] for each in vectors.values()], axis=1)  # s languages shown d
    planes = []
    for of_layer in stacked:
        points, shares = plane(of_layer.reshape(-1, of_layer.shape[-1]))
        planes.append((points.reshape(len(vectors), shown, 2), shares))
    cut = np.max([each.cut for each in vectors.values()], axis=0)
    return Compared(
        name=name,
        path=path,
        states=states,
        draws=draws,
        planes=planes,
        cut_sentences=int(np.count_nonzero(cut)),
        cut_tokens=int(sum(each.cut.sum() for each in vectors.values())),
        mean_tokens={language: float(each.tokens.mean()) for language, each in vectors.items()},
    )


def _measured(
    x: Float[np.ndarray, "sentences embed"],
    y: Float[np.ndarray, "sentences embed"],
    weights: Float[np.ndarray, "draws sentences"],
) -> Iterator[tuple[str, Float[np.ndarray, " draws"]]]:
    of = cosines(x, y)
    forth, back = mean_of(retrieved(of), weights), mean_of(retrieved(of.T), weights)
    yield "retrieval", (forth + back) / 2
    yield "retrieval_forth", forth
    yield "retrieval_back", back
    yield "cosine_gap", cosine_gap(of, weights)
    is_defined = len(x) >= CKA_SENTENCES
    yield "cka", cka(x, y, weights) if is_defined else np.full(len(weights), np.nan)


def best_layer(models: Sequence[Compared], states: int) -> int:
    """The layer between embeddings and last state at which models of `states` states retrieve best.

    Mean over models, pairs and directions, of mean-pooled vectors; the first of equal ones.
    """
    accuracy = np.mean(
        [
            found[:, 0]
            for model in models
            if model.states == states
            for (pooling, _, measure), found in model.draws.items()
            if (pooling, measure) == ("mean", "retrieval")
        ],
        axis=0,
    )
    middle = accuracy[1:-1]
    return 1 + int(middle.argmax()) if len(middle) else states - 1


def interval_of(measure: str, draws: Float[np.ndarray, " draws"], sentences: int) -> Interval:
    """Value and interval of a measure in one layer."""
    return interval(draws, _items(measure, sentences))


def _items(measure: str, sentences: int) -> int | None:
    """How many sentences a share is of; None for what is no share."""
    return sentences if measure.startswith("retrieval") else None


def numbers_of(models: Sequence[Compared], sentences: int) -> list[dict[str, Any]]:
    """A row for each model, layer, pooling, pair and measure, with its 95 % interval.

    `change` is against the first model, on the same resamples; only models with as many layers have it.
    """
    rows = []
    for model in models:
        is_first = model is models[0]
        for (pooling, pair, measure), draws in model.draws.items():
            for layer, of_layer in enumerate(draws):
                row: dict[str, Any] = {
                    "model": model.name,
                    "layer": layer,
                    "pooling": pooling,
                    "languages": list(pair),
                    "measure": measure,
                    **interval_of(measure, of_layer, sentences)._asdict(),
                }
                if not is_first and model.states == models[0].states:
                    first = models[0].draws[pooling, pair, measure][layer]
                    change = change_interval(of_layer, first, _items(measure, sentences))
                    row |= {"change": change.value, "change_low": change.low, "change_high": change.high}
                rows.append(row)
    return rows
