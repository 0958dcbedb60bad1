"""Accuracy and F1 of classes: of a label per item, right or wrong."""

from collections.abc import Sequence

import numpy as np

from jaxlingua.eval.metrics.measured import Measured, check_counts


def class_metrics(
    predictions: Sequence[str], targets: Sequence[Sequence[str]], labels: Sequence[str]
) -> list[Measured]:
    """Accuracy, macro F1 and weighted F1.

    Macro F1 is the mean over all `labels`, also over those that no item has: these count 0, as in
    scikit-learn, so that two models are compared over the same classes. Weighted F1 weighs each label by how
    many items have it. A prediction that is no label is wrong, and belongs to no class.

    Raises: DataError where predictions and targets differ in number.
    Same as: sklearn.metrics.accuracy_score, and f1_score with `labels`, average "macro" or "weighted", and
    zero_division=0.
    """
    check_counts(predictions, targets)
    gold = _one_hot([them[0] for them in targets], labels)
    predicted = _one_hot(predictions, labels)
    # items, 3 numbers per label: how often it is right, how often it is predicted, how often it is gold
    statistics = np.concatenate([gold * predicted, predicted, gold], axis=1)
    of_one = np.stack([100.0 * (gold * predicted).sum(axis=1), np.ones(len(gold))], axis=1)
    rules = f"labels:{len(labels)}|absent:0"
    return [
        Measured("accuracy", of_one, lambda sums: float(sums[0] / sums[1]), "metric:accuracy", is_share=True),
        Measured("macro_f1", statistics, macro_f1, f"metric:macro_f1|{rules}", score_of_one=False),
        Measured("weighted_f1", statistics, weighted_f1, f"metric:weighted_f1|{rules}", score_of_one=False),
    ]


def macro_f1(counts: np.ndarray) -> float:
    """Mean F1 over labels in percent, from the counts that `class_metrics` adds up."""
    return float(100.0 * np.mean(_f1_of_labels(counts)))


def weighted_f1(counts: np.ndarray) -> float:
    """Mean F1 over labels in percent, each weighed by its items."""
    gold = np.split(counts, 3)[2]
    return float(100.0 * np.sum(_f1_of_labels(counts) * gold) / max(gold.sum(), 1))


def _f1_of_labels(counts: np.ndarray) -> np.ndarray:
    right, predicted, gold = np.split(counts, 3)
    return 2 * right / np.maximum(predicted + gold, 1)


def _one_hot(names: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    return np.array([[float(name == label) for label in labels] for name in names])
