"""Public checkpoints of every kind, read and computed, against what transformers computed (tests/golden)."""

import functools
import json
from collections.abc import Callable
from dataclasses import replace

import jax
import numpy as np
import pytest

from jaxlingua.checkpoint.huggingface.families import FAMILIES
from jaxlingua.checkpoint.huggingface.model import load_params, open_model
from jaxlingua.model.llama import Llama, head_kernel
from jaxlingua.model.llama import logits as head_logits
from jaxlingua.model.rope import ROPE
from jaxlingua.sharding.rules import padded_vocab_size
from tests.golden import ARRAYS, FINGERPRINTS
from tests.golden.cases import CASES, Case, documents, fingerprint, weights, write_folder
from tests.train.world import mesh_of

FP32_MODEL = 1e-4
COMPILED_FAST = {"xla_backend_optimization_level": 0}  # the programs are tiny and run once
close = functools.partial(np.testing.assert_allclose, atol=FP32_MODEL, rtol=FP32_MODEL)


def row(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens, positions and segments of one row: a document alone, or several with padding all around."""
    gap = np.zeros(2 if len(case.documents) > 1 else 0, np.int32)
    tokens, positions, segments = [gap], [gap], [gap]
    for number, (of_document, places) in enumerate(documents(case), start=1):
        tokens += [of_document, gap]
        positions += [places, gap]
        segments += [np.full_like(places, number), gap]
    return tuple(np.concatenate(parts)[None] for parts in (tokens, positions, segments))


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    return dict(np.load(ARRAYS))


@pytest.mark.parametrize("name", CASES)
def test_logits_and_hidden_states_are_those_of_transformers(name, golden, tmp_path):
    case = CASES[name]
    write_folder(case, tmp_path)
    public = open_model(str(tmp_path))
    rows = case.config["vocab_size"]
    assert (public.dtype, public.config.vocab_size) == (case.dtype, rows)
    config = replace(public.config, vocab_size=padded_vocab_size(rows), attention_block_tokens=8)
    model = Llama(replace(config, attention="reference"))
    params = load_params(public, model, mesh_of())
    *read, segments = row(case)
    is_token = segments[0] > 0

    def reference(params: dict) -> jax.Array:
        return model.apply({"params": params}, *read, segments)

    def blockwise(params: dict) -> tuple[jax.Array, jax.Array]:
        blocks = Llama(replace(config, attention="blockwise"))
        states = blocks.apply({"params": params}, *read, segments, method="hidden_states")
        return states, head_logits(states[-1], head_kernel(params, config), config)

    def run(function: Callable) -> list[np.ndarray]:
        """What it gives, without the padding."""
        outputs = jax.jit(function, compiler_options=COMPILED_FAST)(params)
        return [np.asarray(output)[..., 0, is_token, :] for output in jax.tree.leaves(outputs)]

    (logits,), ((embeddings, *states), of_blocks) = run(reference), run(blockwise)
    assert logits.shape == (is_token.sum(), padded_vocab_size(rows))
    close(logits[:, :rows], golden[f"{name}/logits"])
    close(of_blocks[:, :rows], golden[f"{name}/logits"])
    close(states, golden[f"{name}/hidden_states"])
    embedding = weights(case)["model.embed_tokens.weight"].astype(np.float32)
    np.testing.assert_array_equal(embeddings, embedding[read[0][0, is_token]])


def test_weights_are_those_that_the_golden_data_were_made_with():
    """A difference here says that the data must be made again: python -m tests.golden.make"""
    stored = json.loads(FINGERPRINTS.read_text())
    assert {name: fingerprint(case) for name, case in CASES.items()} == stored["crc32 of weights"]


def test_every_family_and_every_kind_of_rotary_positions_has_a_case():
    configs = [case.config for case in CASES.values()]
    ropes = [config.get("rope_parameters") or config.get("rope_scaling") or {} for config in configs]
    kinds = {rope.get("rope_type", rope.get("type", "default")) for rope in ropes}
    assert kinds == set(ROPE)
    assert {config["model_type"] for config in configs} == set(FAMILIES)
    assert {case.dtype for case in CASES.values()} == {"float32", "bfloat16", "float16"}
