"""Beam search against `generate` of transformers, sequence by sequence, on a model that has learned something.

Half of its training is left out, so that beams differ from the greedy answers.
"""

import jax
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from jaxlingua.checkpoint.huggingface.config_json import config_fields
from jaxlingua.checkpoint.huggingface.export import write_weights
from jaxlingua.config import ShardingConfig
from jaxlingua.generate.beams import beam_search
from jaxlingua.generate.decoding import Decoding, Request
from jaxlingua.sharding.mesh import make_mesh
from jaxlingua.sharding.rules import param_shardings
from tests.generate.letters import LETTERS
from tests.generate.reversing import BOS, CONFIG, EOS, FIRST, PAD, VOCAB, prompts, trained
from tests.train.world import mesh_of

QUESTIONS = prompts(24, seed=21)
NEW = 12
CLOSE_SCORES = 1e-4  # where two answers score closer than this, either may be found
PENALTIES = (0.0, 1.0, 2.0, -1.0)
EOS_IDS = ((EOS,), (EOS, FIRST + 1, FIRST + 5))


Found = list[tuple[list[int], float]]


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[tuple[int, tuple[int, ...], float], Found]:
    """What they answer for each number of beams, EOS ids and penalty; in one thread, since the model is tiny."""
    _, params = trained(steps=120)
    folder = tmp_path_factory.mktemp("export")
    ids = {"bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD}
    fields = config_fields(CONFIG, vocab_size=VOCAB, dtype="float32", special_ids=ids)
    write_weights(folder, params, CONFIG, fields, dtype="float32", shard_gib=5.0, mesh=mesh_of())
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    theirs = AutoModelForCausalLM.from_pretrained(folder).eval()
    asked = [(beams, eos_ids, penalty) for beams in (2, 4) for eos_ids in EOS_IDS for penalty in PENALTIES]
    answers = {each: of_transformers(theirs, *each) for each in asked}
    torch.set_num_threads(threads)
    return answers


@torch.no_grad()
def of_transformers(model: PreTrainedModel, beams: int, eos_ids: tuple[int, ...], penalty: float) -> Found:
    """Their best answer to each question, with one EOS for all, and by how much it led."""
    longest = max(map(len, QUESTIONS))
    tokens = torch.full((len(QUESTIONS), longest), PAD)
    for row, question in enumerate(QUESTIONS):
        tokens[row, longest - len(question) :] = torch.tensor(question.astype(np.int64))
    out = model.generate(
        tokens, attention_mask=(tokens != PAD).long(), max_new_tokens=NEW, do_sample=False, num_beams=beams,
        length_penalty=penalty, early_stopping=False, num_return_sequences=2, eos_token_id=list(eos_ids),
        pad_token_id=PAD, return_dict_in_generate=True, output_scores=True,
    )  # fmt: skip
    rows, scores = out.sequences[:, longest:].tolist(), out.sequences_scores.tolist()
    found = []
    for row, score, second in zip(rows[::2], scores[::2], scores[1::2], strict=True):
        ends = [place for place, token in enumerate(row) if token in eos_ids]
        found.append(([*row[: ends[0]], EOS] if ends else row, score - second))
    return found


def ours(beams: int, eos_ids: tuple[int, ...], penalty: float, devices: int) -> list[list[int]]:
    """Our answers, with one EOS for all."""
    model, params = trained(steps=120)
    mesh = make_mesh(ShardingConfig(), jax.devices()[:devices])
    params = jax.device_put(params, param_shardings(model, mesh))
    answers = beam_search(
        model, params, [Request(question, NEW) for question in QUESTIONS], tokenizer=LETTERS, mesh=mesh,
        decoding=Decoding(beams=beams, length_penalty=penalty), eos_ids=eos_ids, batch_rows=64,
    )  # fmt: skip
    return [[*answer.tokens.tolist(), *[EOS] * (answer.ended_by == "eos")] for answer in answers]


@pytest.mark.parametrize(
    ("beams", "eos_ids", "devices"),
    [(2, EOS_IDS[1], 1), (4, EOS_IDS[0], 1), (4, EOS_IDS[0], 8), (4, EOS_IDS[1], 8)],
)
def test_answers_are_those_of_transformers(found, beams, eos_ids, devices):
    ties = 0
    for penalty in PENALTIES:
        answers = ours(beams, eos_ids, penalty, devices)
        for answer, (wanted, lead) in zip(answers, found[beams, eos_ids, penalty], strict=True):
            if answer != wanted:
                assert lead < CLOSE_SCORES, f"{answer} against {wanted} with a length penalty of {penalty}"
                ties += 1
    assert ties <= 1


def test_beams_eos_ids_and_penalties_show_in_the_answers(found):
    """Otherwise the test above could not tell them apart."""
    assert len({str([answer for answer, _ in answers]) for answers in found.values()}) == len(found)
