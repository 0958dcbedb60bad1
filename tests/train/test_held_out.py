"""Held-out loss: one document at a time gives the same, whatever the rows, packing and mesh."""

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlingua.errors import DataError
from jaxlingua.model.llama import Llama
from jaxlingua.sharding.rules import param_shardings
from jaxlingua.tokens.batches import one_pass
from jaxlingua.tokens.store import Documents
from jaxlingua.train.held_out import make_held_out
from tests.train.world import OBJECTIVE, documents, mesh_of, parameters, tiny_model

LENGTH = 32
GROUPS = [("news", "tha_Thai"), ("news", "jav_Latn"), ("chat", "jav_Latn")]


def store(made, names):
    """Documents as the tokenizer leaves them; group `g` of a document is `names[g]`."""
    tokens, masks, groups = zip(*made, strict=True)
    return Documents(
        tokens=np.concatenate(tokens),
        target_mask=np.concatenate([mask & (np.arange(len(mask)) > 0) for mask in masks]),
        starts=np.cumsum([0, *map(len, tokens)]).astype(np.int64),
        groups=np.array(groups, np.int32),
        indices=np.arange(len(tokens)),
        target_tokens=np.array([mask[1:].sum() for mask in masks], np.int32),
        target_bytes=np.array([3 * len(mask) for mask in masks], np.int32),
        group_names=tuple(names),
        counts={},
        fingerprint="",
    )


@pytest.fixture(scope="module")
def world():
    news = [(tokens, mask, group % 2) for tokens, mask, group in documents(11, seed=1)]
    chat = [(tokens, mask, 0) for tokens, mask, _ in documents(7, seed=2)]
    model = tiny_model()
    return model, parameters(model), news, chat


def measured(world, *, rows, packing=True, **axes):
    model, params, news, chat = world
    mesh = mesh_of(**axes)
    shardings = param_shardings(model, mesh)
    passed = one_pass(
        {"news": store(news, GROUPS[:2]), "chat": store(chat, GROUPS[2:])},
        row_length_tokens=LENGTH, batch_rows=rows, packing=packing,
    )  # fmt: skip
    held_out = make_held_out(passed, model, OBJECTIVE, shardings)
    sums = held_out.measure(jax.device_put(params, shardings))
    assert held_out.sums.compile_count() == 1
    return held_out.tell(jax.device_get(sums))


def one_at_a_time(world):
    """Loss and counts per group from the model's logits of each document alone."""
    model, params, news, chat = world
    totals = {group: np.zeros(3) for group in GROUPS}
    apply = jax.jit(lambda tokens: Llama.apply(model, {"params": params}, tokens, *places(tokens)))
    for made, offset in ((news, 0), (chat, 2)):
        for tokens, mask, group in made:
            padded = np.zeros((1, 16), np.int32)
            padded[0, : len(tokens)] = tokens  # what follows a token does not change its logits
            logits = apply(padded)[0, : len(tokens) - 1, : OBJECTIVE.vocab_size]
            log_p = np.asarray(jax.nn.log_softmax(logits), np.float64)[np.arange(len(tokens) - 1), tokens[1:]]
            totals[GROUPS[offset + group]] += [-log_p[mask[1:]].sum(), mask[1:].sum(), 3 * len(mask)]
    return totals


def places(tokens):
    return jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape), jnp.ones_like(tokens)


@pytest.mark.parametrize(
    "how",
    [
        {"rows": 64},
        {"rows": 2},
        {"rows": 4, "packing": False},
        {"rows": 8, "data": 2, "fsdp": 2, "tensor": 2},
    ],
    ids=str,
)
def test_losses_and_bits_per_byte_are_those_of_each_document_alone(world, how):
    wanted, got = one_at_a_time(world), measured(world, **how)
    assert list(got) == GROUPS
    for group, (loss, target_tokens, target_bytes) in wanted.items():
        assert (got[group].target_tokens, got[group].target_bytes) == (target_tokens, target_bytes)
        np.testing.assert_allclose(got[group].loss, loss / target_tokens, rtol=1e-5)
        np.testing.assert_allclose(got[group].bits_per_byte, loss / math.log(2) / target_bytes, rtol=1e-5)


def test_nothing_held_out_is_an_error(world):
    model, _, _, chat = world
    passed = one_pass({"chat": store(chat, GROUPS[2:])}, row_length_tokens=LENGTH, batch_rows=4)
    nothing = replace(passed, plan=type(passed.plan)(np.zeros(1, np.int64), np.zeros(0, np.int64)))
    with pytest.raises(DataError) as error:
        make_held_out(nothing, model, OBJECTIVE, param_shardings(model, mesh_of()))
    assert str(error.value) == (
        "data.sources: no held-out document is left to measure; raise held_out_records or set "
        "train.held_out_documents=0"
    )
