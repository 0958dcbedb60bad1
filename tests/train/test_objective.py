"""The loss is torch's, whatever the chunk, and never holds all logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlingua.sharding.rules import sharding_context
from jaxlingua.train.objective import Objective, summed_cross_entropy, summed_loss
from tests.train.world import (
    FP32_GRADIENT,
    GROUPS,
    OBJECTIVE,
    VOCAB,
    batch_of,
    documents,
    flat,
    mesh_of,
    parameters,
    random_batch,
    tiny_model,
)

torch = pytest.importorskip("torch")
RNG = np.random.default_rng(0)
B, T, D, V = 8, 32, 16, 512


@pytest.fixture(scope="module")
def inputs():
    batch = random_batch(B, T)
    hidden = RNG.normal(size=(B, T, D)).astype(np.float32)
    kernel = RNG.normal(size=(D, V)).astype(np.float32)
    return hidden, kernel, batch


def value_and_grads(objective, hidden, kernel, batch):
    def loss(hidden, kernel):
        return summed_cross_entropy(
            objective, hidden, kernel, batch.targets, batch.target_mask, batch.groups
        )[:2]

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(hidden, kernel)


def torch_value_and_grads(hidden, kernel, batch):
    hidden = torch.tensor(hidden, requires_grad=True)
    kernel = torch.tensor(kernel, requires_grad=True)
    logits = (hidden @ kernel)[..., :VOCAB].reshape(-1, VOCAB)
    nll = torch.nn.functional.cross_entropy(
        logits, torch.tensor(batch.targets.reshape(-1)).long(), reduction="none"
    )
    nll = nll * torch.tensor(batch.target_mask.reshape(-1))
    nll.sum().backward()
    return nll.detach().numpy(), hidden.grad.numpy(), kernel.grad.numpy()


@pytest.mark.parametrize("chunk", [7, 64, 100, 10_000])
def test_loss_and_gradients_are_those_of_torch_for_every_chunk(inputs, chunk):
    (loss, group_loss), (d_hidden, d_kernel) = value_and_grads(Objective(VOCAB, GROUPS, chunk), *inputs)
    nll, torch_d_hidden, torch_d_kernel = torch_value_and_grads(*inputs)
    groups = inputs[2].groups.reshape(-1)
    np.testing.assert_allclose(loss, nll.sum(), rtol=1e-6)
    np.testing.assert_allclose(group_loss, [nll[groups == g].sum() for g in range(GROUPS)], rtol=1e-5)
    np.testing.assert_allclose(d_hidden, torch_d_hidden, atol=1e-5)
    np.testing.assert_allclose(d_kernel, torch_d_kernel, atol=1e-4)


@pytest.mark.parametrize("axes", [{"fsdp": 8}, {"data": 2, "fsdp": 2, "tensor": 2}, {"tensor": 8}])
def test_a_mesh_gives_the_same_loss_and_gradients(inputs, axes):
    """Partial sums per device and a vocabulary split over devices must add up."""
    (loss, group_loss), grads = value_and_grads(OBJECTIVE, *inputs)
    with sharding_context(mesh_of(**axes)):
        (mesh_loss, mesh_group_loss), mesh_grads = value_and_grads(OBJECTIVE, *inputs)
    np.testing.assert_allclose(mesh_loss, loss, rtol=1e-6)
    np.testing.assert_allclose(mesh_group_loss, group_loss, rtol=1e-5)
    for got, wanted in zip(mesh_grads, grads, strict=True):
        np.testing.assert_allclose(got, wanted, atol=FP32_GRADIENT * np.linalg.norm(wanted))


def test_padding_of_the_vocabulary_changes_nothing(inputs):
    hidden, kernel, batch = inputs
    other = kernel.copy()
    other[:, VOCAB:] += 100  # would be the likeliest tokens by far
    (loss, _), (_, d_kernel) = value_and_grads(OBJECTIVE, hidden, kernel, batch)
    (other_loss, _), (_, other_d_kernel) = value_and_grads(OBJECTIVE, hidden, other, batch)
    assert loss == other_loss
    np.testing.assert_array_equal(d_kernel, other_d_kernel)
    assert not np.any(np.asarray(d_kernel)[:, VOCAB:])


def test_masked_positions_have_no_gradient_even_where_they_are_not_finite(inputs):
    hidden, kernel, batch = inputs
    broken = np.where(batch.target_mask[..., None], hidden, np.nan).astype(np.float32)
    (loss, _), _ = value_and_grads(OBJECTIVE, hidden, kernel, batch)
    (broken_loss, _), (broken_d_hidden, _) = value_and_grads(OBJECTIVE, broken, kernel, batch)
    assert loss == broken_loss
    np.testing.assert_array_equal(np.asarray(broken_d_hidden)[~batch.target_mask], 0)


def test_a_loss_that_is_not_finite_stays_in_its_own_group(inputs):
    hidden, kernel, batch = inputs
    broken = np.where((batch.groups == 1)[..., None], np.nan, hidden).astype(np.float32)
    (loss, group_loss), _ = value_and_grads(OBJECTIVE, broken, kernel, batch)
    assert np.isnan(loss)
    assert np.isnan(group_loss).tolist() == [False, True, False]


def test_logits_of_a_batch_are_never_held():
    """Peak memory of loss and gradient grows with the chunk, not with the positions."""
    batch = random_batch(64, 64)
    hidden, kernel = jnp.zeros((64, 64, D)), jnp.zeros((D, 4096))
    all_logits = 64 * 64 * 4096 * 4

    def temporaries(chunk: int) -> int:
        objective = Objective(4096, GROUPS, chunk)
        grad = jax.jit(
            jax.grad(
                lambda h, k: summed_cross_entropy(
                    objective, h, k, batch.targets, batch.target_mask, batch.groups
                )[0],
                argnums=(0, 1),
            )
        )
        return grad.lower(hidden, kernel).compile().memory_analysis().temp_size_in_bytes

    assert temporaries(64 * 64) > all_logits
    assert temporaries(128) < all_logits / 10


def test_packed_and_unpacked_examples_give_the_same_gradients():
    """What one packed document sees, and teaches, is what it would alone."""
    made = documents(12, seed=5)
    packed = batch_of([made[3 * r : 3 * r + 3] for r in range(4)], length=48)
    unpacked = batch_of([[document] for document in made], length=16)
    model = tiny_model()
    params = parameters(model)

    def loss_and_grads(batch):
        (loss, _), grads = jax.jit(
            jax.value_and_grad(lambda params: summed_loss(model, params, batch, OBJECTIVE), has_aux=True)
        )(params)
        return loss, flat(grads)

    (packed_loss, packed_grad), (loss, grad) = loss_and_grads(packed), loss_and_grads(unpacked)
    np.testing.assert_allclose(packed_loss, loss, rtol=1e-6)
    assert np.linalg.norm(packed_grad - grad) < FP32_GRADIENT * np.linalg.norm(grad)


def test_the_loss_is_that_of_the_model_s_own_logits():
    batch, model = random_batch(), tiny_model(tie_embeddings=False)
    params = parameters(model)
    logits = model.apply({"params": params}, batch.tokens, batch.positions, batch.segments)[..., :VOCAB]
    log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), batch.targets[..., None], axis=2)[..., 0]
    loss, sums = summed_loss(model, params, batch, OBJECTIVE)
    np.testing.assert_allclose(loss, -log_p[batch.target_mask].sum(), rtol=1e-6)
    assert sums.target_tokens == batch.target_mask.sum()
    counts = [np.sum(batch.target_mask & (batch.groups == g)) for g in range(GROUPS)]
    np.testing.assert_array_equal(sums.group_target_tokens, counts)
