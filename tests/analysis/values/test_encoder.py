"""The InfoNCE encoder, against sums written out, and on planted classes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlingua.analysis.values.encoder import TEMPERATURE, Scale, info_nce, learn, negatives, view_means
from jaxlingua.analysis.values.views import NONE, Views
from tests.analysis.values.planted import planted


def unit(rng: np.random.Generator, rows: int = 6, size: int = 5) -> np.ndarray:
    x = rng.normal(size=(rows, size))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def by_hand(a: np.ndarray, b: np.ndarray, classes: np.ndarray, masks: bool) -> float:
    losses = []
    for n in range(len(a)):
        kept = [m for m in range(len(a)) if m == n or not (masks and classes[m] == classes[n])]
        exponentials = [np.exp(a[n] @ b[m] / TEMPERATURE) for m in kept]
        losses.append(-np.log(np.exp(a[n] @ b[n] / TEMPERATURE) / sum(exponentials)))
    return float(np.mean(losses))


CLASSES = np.array([0, 1, 0, 2, 1, 0])


def loss(a: np.ndarray, b: np.ndarray, classes: np.ndarray, masks: bool) -> jax.Array:
    return info_nce(jnp.asarray(a), jnp.asarray(b), negatives(jnp.asarray(classes), masks_same_class=masks))


@pytest.mark.parametrize("masks", [False, True])
def test_the_loss_is_what_the_sums_say_and_order_of_rows_does_not_matter(masks):
    rng = np.random.default_rng(0)
    a, b = unit(rng), unit(rng)
    expected = by_hand(a, b, CLASSES, masks)
    assert float(loss(a, b, CLASSES, masks)) == pytest.approx(expected, rel=1e-5)
    order = rng.permutation(6)
    assert float(loss(a[order], b[order], CLASSES[order], masks)) == pytest.approx(expected, rel=1e-5)
    assert float(loss(b, a, CLASSES, masks)) != pytest.approx(expected, rel=1e-3)  # one-directional


def test_masked_negatives_change_neither_loss_nor_gradient():
    """Row 2 is of the class of rows 0 and 5, and a negative of rows 1, 3 and 4."""
    rng = np.random.default_rng(1)
    a, b = unit(rng) / 5, unit(rng) / 5  # short, so that no negative is too far off to be felt
    moved = b.copy()
    moved[2] = unit(rng)[0] / 5

    def changed(masks: bool) -> np.ndarray:
        before, after = (jax.grad(lambda one: loss(one, other, CLASSES, masks))(a) for other in (b, moved))  # noqa: B023
        return np.abs(before - after).max(axis=1) > 0

    np.testing.assert_array_equal(changed(True), [False, True, True, True, True, False])
    assert changed(False).all()
    # All of one class: nothing is to be told apart.
    alike = np.zeros(6, int)
    assert float(loss(a, b, alike, True)) == 0
    np.testing.assert_array_equal(jax.grad(lambda other: loss(a, other, alike, True))(b), 0)
    assert float(loss(a, b, alike, False)) > 0


def test_gradients_are_finite_where_views_are_opposite():
    a = np.eye(4)
    gradient = jax.grad(lambda other: loss(a, other, np.arange(4), False))(-a)
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() > 0


def test_a_view_is_the_mean_of_its_pairs():
    vectors = np.arange(12.0).reshape(4, 3)
    members = np.array([[[2, NONE, NONE]], [[0, 3, 1]]])
    found = view_means(jnp.asarray(vectors), jnp.asarray(members))
    np.testing.assert_allclose(found, [[vectors[2]], [vectors[[0, 1, 3]].mean(axis=0)]])


def test_a_scale_makes_dimensions_alike_and_leaves_a_constant_one_at_zero():
    vectors = np.random.default_rng(0).normal(size=(50, 3)) * [1, 1e4, 0] + [5, -1e4, 3]
    scaled = Scale.of(vectors)(vectors)
    np.testing.assert_allclose(scaled.std(axis=0), [1, 1, 0], atol=1e-5)
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-5)


@pytest.mark.parametrize("masks", [False, True])
def test_what_is_learned_brings_a_class_together_on_questions_that_were_held_out(masks):
    """Before, questions are what vectors are mostly about; after, classes."""
    of = planted(1.0, questions=60)
    train = ~of.is_test
    scaled = Scale.of(of.vectors[train])(of.vectors)
    encoder = learn(scaled[train], Views(of.labels[train], 5, 32, 0), steps=100, masks_same_class=masks)
    learned = encoder(scaled)
    np.testing.assert_allclose(np.linalg.norm(learned, axis=1), 1, atol=1e-5)

    def gap(vectors: np.ndarray) -> float:
        x = vectors[of.is_test] / np.linalg.norm(vectors[of.is_test], axis=1, keepdims=True)
        same = of.labels[of.is_test][:, None] == of.labels[of.is_test]
        return float((x @ x.T)[same].mean() - (x @ x.T)[~same].mean())

    # What all have in common is taken away of both, as it is where they are measured.
    assert gap(learned - learned[train].mean(axis=0)) > 2 * gap(scaled) > 0
    again = learn(scaled[train], Views(of.labels[train], 5, 32, 0), steps=100, masks_same_class=masks)
    np.testing.assert_array_equal(again(scaled), learned)
