"""Whose answer is it: neighbors and a linear probe, on held-out questions, with both controls beside.

Only `identified` makes a score, and it makes those of all three sets: without its controls a score for values
says nothing, since style and language identify a class as well.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import minimize
from scipy.special import logsumexp

from jaxlingua.analysis.alignment.measures import Interval, interval, resamples
from jaxlingua.analysis.values.questions import SETS
from jaxlingua.errors import DataError

NEIGHBORS = 50  # the paper's
TOP = (1, 3, 5, 10)
METHODS = ("neighbors", "probe")
_TIE = 1e-9

Scores = Float[np.ndarray, "tests classes"]


@dataclass(frozen=True, eq=False)
class Labeled:
    """Vectors of answers of one set, with what is to be told of them.

    Attributes:
        labels: [answers], numbers of classes.
        questions: [answers], numbers of questions.
        is_test: [answers], the same for all answers to a question.
    """

    vectors: Float[np.ndarray, "answers embed"]
    labels: Int[np.ndarray, " answers"]
    questions: Int[np.ndarray, " answers"]
    is_test: Bool[np.ndarray, " answers"]


def identified(sets: Mapping[str, Labeled], *, samples: int, seed: int) -> list[dict[str, Any]]:
    """A row for each set, method and measure, controls always beside.

    All sets learn from as many questions, as the smallest has, with as many neighbors: of more questions, or
    by more neighbors, a set would be told better for that reason alone.

    Chance is what the most frequent classes of the held-out answers get, each answer naming the same ones.

    Raises: DataError where one of the sets is not there, has one class only or no held-out question.
    """
    if missing := [name for name in SETS if name not in sets]:
        raise DataError(
            f"values: no answers to questions of {' and '.join(missing)} given; values are never told "
            f"without both controls; ask these too"
        )
    for name in SETS:
        _check(name, sets[name])
    few = min(len(np.unique(of.questions[~of.is_test])) for of in (sets[name] for name in SETS))
    drawn = {name: _with_training_questions(sets[name], few, seed) for name in SETS}
    for name in SETS:
        _check(name, drawn[name])
    neighbors = min(NEIGHBORS, *(_smallest_class(drawn[name]) for name in SETS))
    return [row for name in SETS for row in _rows(name, drawn[name], neighbors, samples, seed)]


def _check(name: str, of: Labeled) -> None:
    classes = len(np.unique(of.labels))
    if classes < 2 or len(np.unique(of.labels[~of.is_test])) < classes or not of.is_test.any():
        raise DataError(
            f"values: {name} has {classes} classes, {np.count_nonzero(of.is_test)} held-out answers; two "
            f"classes with answers to learn from, and held-out questions, are needed; ask more"
        )


def _with_training_questions(of: Labeled, count: int, seed: int) -> Labeled:
    """As many training questions drawn, first of those that most classes answered; all held-out ones."""
    train = ~of.is_test
    asked = np.random.default_rng([seed, 2]).permutation(np.unique(of.questions[train]))
    answered_by = [len(np.unique(of.labels[train & (of.questions == each)])) for each in asked]
    kept = asked[np.argsort(answered_by, kind="stable")[::-1][:count]]
    here = of.is_test | np.isin(of.questions, kept)
    return replace(
        of,
        vectors=of.vectors[here],
        labels=of.labels[here],
        questions=of.questions[here],
        is_test=of.is_test[here],
    )


def _smallest_class(of: Labeled) -> int:
    return int(np.unique(of.labels[~of.is_test], return_counts=True)[1].min())


def _rows(name: str, of: Labeled, neighbors: int, samples: int, seed: int) -> Iterator[dict[str, Any]]:
    known, labels = np.unique(of.labels, return_inverse=True)
    train, test = ~of.is_test, of.is_test
    classes = len(known)
    different, questions = np.unique(of.questions[test], return_inverse=True)
    weights = resamples(len(different), samples, seed)[:, questions]  # draws tests
    shares = np.sort(np.bincount(labels[test], minlength=classes))[::-1] / np.count_nonzero(test)
    about = {"set": name, "classes": classes, "questions": len(different), "answers": len(questions)}
    about["learned_from"] = len(np.unique(of.questions[train]))
    given = (of.vectors[train], labels[train], of.vectors[test], classes)
    for method in METHODS:
        scores = nearest_scores(*given, neighbors) if method == "neighbors" else probe_scores(*given)
        for top in (each for each in TOP if each < classes):
            found = found_within(scores, labels[test], top)
            told = interval(weights @ found / weights.sum(axis=1), len(different))
            yield _row(about, method, f"accuracy@{top}", told, float(shares[:top].sum()))
        told = interval(weighted_f1(scores.argmax(axis=1), labels[test], weights, classes))
        yield _row(about, method, "weighted F1", told, float((shares**2).sum()))


def _row(
    about: Mapping[str, Any], method: str, measure: str, told: Interval, chance: float
) -> dict[str, Any]:
    return {**about, "method": method, "measure": measure, **told._asdict(), "chance": chance}


def nearest_scores(
    train: Float[np.ndarray, "answers embed"],
    labels: Int[np.ndarray, " answers"],
    test: Float[np.ndarray, "tests embed"],
    classes: int,
    count: int,
) -> Scores:
    """Votes of the nearest answers by cosine; of classes with as many, the nearer one is first.

    Args:
        count: of neighbors; no more than the smallest class has answers, which else could never win.
    Cost: tests × answers × embed multiplications.
    """
    of = _unit(test) @ _unit(train).T
    nearest = np.argsort(-of, axis=1, kind="stable")[:, :count]
    near, who = np.take_along_axis(of, nearest, axis=1), labels[nearest]
    one_hot = who[..., None] == np.arange(classes)
    closeness = (one_hot * (near[..., None] + 1) / 2).sum(axis=1) / count  # 0 to 1
    return one_hot.sum(axis=1) + 0.999 * closeness


def _unit(x: Float[np.ndarray, "rows embed"]) -> Float[np.ndarray, "rows embed"]:
    x = x.astype(np.float64)
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(norms > 0, norms, 1)


def probe_scores(
    train: Float[np.ndarray, "answers embed"],
    labels: Int[np.ndarray, " answers"],
    test: Float[np.ndarray, "tests embed"],
    classes: int,
) -> Scores:
    """Logits of multinomial logistic regression: summed log loss plus half the squared norm of the weights.

    The paper's probe is trained by Adam from an unseeded start; this one has a single minimum.

    Same as: sklearn.linear_model.LogisticRegression(C=1.0).
    """
    x, n = train.astype(np.float64), len(train)
    embed = x.shape[1]
    is_own = labels[:, None] == np.arange(classes)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights, bias = flat[:-classes].reshape(embed, classes), flat[-classes:]
        logits = x @ weights + bias
        log_sums = logsumexp(logits, axis=1)
        off = np.exp(logits - log_sums[:, None]) - is_own
        value = log_sums.sum() - logits[is_own].sum() + 0.5 * (weights**2).sum()
        return value / n, np.concatenate([(x.T @ off + weights).ravel(), off.sum(axis=0)]) / n

    start = np.zeros((embed + 1) * classes)
    options = {"maxiter": 1000, "gtol": 1e-6, "ftol": 1e-12}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options=options).x
    return test.astype(np.float64) @ found[:-classes].reshape(embed, classes) + found[-classes:]


def found_within(scores: Scores, labels: Int[np.ndarray, " tests"], top: int) -> Float[np.ndarray, " tests"]:
    """Of each answer, the chance that its class is among the first; of equally good classes by lot."""
    own = np.take_along_axis(scores, labels[:, None], axis=1)
    better = (scores > own + _TIE).sum(axis=1)
    equal = (np.abs(scores - own) <= _TIE).sum(axis=1)
    return np.clip((top - better) / equal, 0.0, 1.0)


def weighted_f1(
    guessed: Int[np.ndarray, " tests"],
    labels: Int[np.ndarray, " tests"],
    weights: Float[np.ndarray, "draws tests"],
    classes: int,
) -> Float[np.ndarray, " draws"]:
    """Mean F1 of the classes, weighted by their answers, of each resample.

    Same as: sklearn.metrics.f1_score(average="weighted").
    """
    is_label, is_guess = (each[:, None] == np.arange(classes) for each in (labels, guessed))
    right = weights @ (is_label & is_guess)
    asked, told = weights @ is_label, weights @ is_guess
    f1 = 2 * right / np.maximum(asked + told, 1)
    return (f1 * asked).sum(axis=1) / asked.sum(axis=1)
