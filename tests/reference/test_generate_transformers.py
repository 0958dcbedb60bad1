"""Greedy answers against `generate` of transformers, token by token, on models that have learned something.

Both read the folder that we export.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from jaxlingua.checkpoint.huggingface.config_json import config_fields
from jaxlingua.checkpoint.huggingface.export import write_weights
from jaxlingua.checkpoint.huggingface.model import load_params, open_model
from jaxlingua.config import ShardingConfig
from jaxlingua.generate.decoding import Decoding, Request
from jaxlingua.generate.engine import generate
from jaxlingua.model.llama import Llama
from jaxlingua.model.presets import LlamaConfig
from jaxlingua.model.rope import rope_scaling
from jaxlingua.sharding.mesh import make_mesh
from tests.generate.letters import LETTERS
from tests.generate.reversing import BOS, CONFIG, EOS, PAD, VOCAB, prompts, trained
from tests.train.world import mesh_of

QUESTIONS = prompts(40, seed=20)
NEW = 12
CLOSE_LOGITS = 1e-4  # where the two best lie closer than this, either may be chosen
IDS = {"bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 40}
# What each family has of its own: in our configuration, and in config.json beside a LLaMA's fields.
FAMILIES: dict[str, tuple[dict, dict]] = {
    "llama": ({}, {}),
    "mistral": ({"sliding_window": 9}, {"sliding_window": 9}),
    "qwen2": (
        {"qkv_bias": True, "sliding_window": 3, "sliding_layers": (False, True)},
        {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1, "attention_bias": True},
    ),
    "qwen3": ({"qk_norm": True, "tie_embeddings": True, "rope_scaling": rope_scaling(YARN)}, {}),
}


def fields_of(family: str, config: LlamaConfig) -> dict:
    """config.json, with as many rows as the tokenizer has tokens."""
    llama = replace(config, sliding_window=None, sliding_layers=None, qk_norm=False, qkv_bias=False)
    fields = config_fields(llama, vocab_size=VOCAB, dtype="float32", special_ids=IDS)
    names = {"model_type": family, "architectures": [f"{family.capitalize()}ForCausalLM"]}
    return {**fields, **names, **FAMILIES[family][1]}


@dataclass(frozen=True)
class Exported:
    """A trained model as a folder, and what transformers answers with it."""

    family: str
    folder: Path
    answers: list[tuple[list[int], list[float]]]


@torch.no_grad()
def answer_of_transformers(theirs: PreTrainedModel, prompt: np.ndarray) -> tuple[list[int], list[float]]:
    """Their new tokens without EOS, and by how much the best logit led at each."""
    out = theirs.generate(
        torch.tensor(prompt[None].astype(np.int64)), attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        max_new_tokens=NEW, do_sample=False, return_dict_in_generate=True, output_scores=True, **IDS,
    )  # fmt: skip
    tokens = out.sequences[0, len(prompt) :].tolist()
    leads = [float(best[0] - best[1]) for best in (score[0].topk(2).values for score in out.scores)]
    return (tokens[: tokens.index(EOS)] if EOS in tokens else tokens), leads


@pytest.fixture(scope="module", params=FAMILIES)
def exported(request, tmp_path_factory) -> Iterator[Exported]:
    """One thread, since the models are tiny."""
    config = replace(CONFIG, **FAMILIES[request.param][0])
    _, params = trained(config, steps=120)
    folder = tmp_path_factory.mktemp("export")
    fields = fields_of(request.param, config)
    write_weights(folder, params, config, fields, dtype="float32", shard_gib=5.0, mesh=mesh_of())
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    theirs = AutoModelForCausalLM.from_pretrained(folder).eval()
    yield Exported(
        request.param, folder, [answer_of_transformers(theirs, question) for question in QUESTIONS]
    )
    torch.set_num_threads(threads)


def test_greedy_answers_are_those_of_transformers(exported):
    public = open_model(str(exported.folder))
    model = Llama(replace(public.config, vocab_size=CONFIG.vocab_size))
    for devices in (1, 8) if exported.family == "llama" else (8,):
        mesh = make_mesh(ShardingConfig(), jax.devices()[:devices])
        params = load_params(public, model, mesh)
        options = {"decoding": Decoding(), "tokenizer": LETTERS, "eos_ids": (EOS,), "batch_rows": 16}
        requests = [Request(question, NEW) for question in QUESTIONS]
        ours = [answer.tokens for answer in generate(model, params, requests, mesh=mesh, **options)]
        ties = 0
        for answer, (wanted, leads) in zip(ours, exported.answers, strict=True):
            if answer.tolist() != wanted:
                ended = [*answer.tolist(), EOS], [*wanted, EOS]
                first = next(
                    i for i, (token, other) in enumerate(zip(*ended, strict=False)) if token != other
                )
                assert leads[first] < CLOSE_LOGITS, f"{answer} against {wanted}"
                ties += 1
        assert ties <= 1
        assert len({tuple(answer) for answer in ours}) > 30
