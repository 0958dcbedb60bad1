"""Greedy answers against `generate` of transformers, token by token, on a model that has learned something."""

import jax
import numpy as np
import pytest
import torch
from transformers import LlamaConfig as TransformersConfig
from transformers import LlamaForCausalLM

from jaxlingua.config import ShardingConfig
from jaxlingua.generate.engine import generate
from jaxlingua.model.presets import LlamaConfig
from jaxlingua.sharding.mesh import make_mesh
from jaxlingua.sharding.rules import param_shardings
from tests.generate.reversing import BOS, CONFIG, EOS, PAD, VOCAB, prompts, trained

NEW = 12
CLOSE_LOGITS = 1e-4  # where the two best lie closer than this, either may be chosen


def to_transformers(params: dict, config: LlamaConfig) -> LlamaForCausalLM:
    """The same model in transformers, which keeps each matrix transposed, with all heads in one axis."""
    weights = {}
    for layer in range(config.layers):
        home = f"model.layers.{layer}."
        tree = jax.tree.map(lambda leaf, at=layer: np.asarray(leaf[at]), params["layers"])
        for name in "qkv":
            matrix = tree["attention"][name].reshape(config.embed, -1)
            weights[f"{home}self_attn.{name}_proj.weight"] = matrix.T
        weights[f"{home}self_attn.o_proj.weight"] = tree["attention"]["o"].reshape(-1, config.embed).T
        for name in ("gate", "up", "down"):
            weights[f"{home}mlp.{name}_proj.weight"] = tree["mlp"][name].T
        weights[f"{home}input_layernorm.weight"] = tree["attention_norm"]["scale"]
        weights[f"{home}post_attention_layernorm.weight"] = tree["mlp_norm"]["scale"]
    weights["model.embed_tokens.weight"] = np.asarray(params["embed"]["embedding"])
    weights["model.norm.weight"] = np.asarray(params["final_norm"]["scale"])
    weights["lm_head.weight"] = np.asarray(params["head"]["kernel"]).T
    theirs = LlamaForCausalLM(
        TransformersConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.embed,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.kv_heads,
            head_dim=config.head_dim,
            intermediate_size=config.mlp,
            rms_norm_eps=config.norm_eps,
            max_position_embeddings=config.max_positions,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
            tie_word_embeddings=False,
            bos_token_id=BOS,
            eos_token_id=EOS,
            pad_token_id=PAD,
        )
    )
    theirs.load_state_dict({name: torch.tensor(weight.copy()) for name, weight in weights.items()})
    return theirs.eval()


@torch.no_grad()
def answer_of_transformers(theirs: LlamaForCausalLM, prompt: np.ndarray) -> tuple[list[int], list[float]]:
    """Their new tokens without EOS, and by how much the best logit led at each."""
    banned = list(range(VOCAB, CONFIG.vocab_size))
    out = theirs.generate(
        torch.tensor(prompt[None].astype(np.int64)), attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        max_new_tokens=NEW, do_sample=False, suppress_tokens=banned, return_dict_in_generate=True, output_scores=True,
    )  # fmt: skip
    tokens = out.sequences[0, len(prompt) :].tolist()
    leads = [float(best[0] - best[1]) for best in (score[0].topk(2).values for score in out.scores)]
    return (tokens[: tokens.index(EOS)] if EOS in tokens else tokens), leads


@pytest.fixture(scope="module")
def expected() -> list[tuple[list[int], list[float]]]:
    """What transformers answers to every question; one thread, since the model is tiny."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model, params = trained()
    theirs = to_transformers(params, model.config)
    answers = [answer_of_transformers(theirs, question) for question in prompts(60, seed=20)]
    torch.set_num_threads(threads)
    return answers


@pytest.mark.parametrize("devices", [1, 8])
def test_greedy_answers_are_those_of_transformers(devices, expected):
    model, params = trained()
    mesh = make_mesh(ShardingConfig(), jax.devices()[:devices])
    sharded = jax.device_put(params, param_shardings(model, mesh))
    options = {"max_new_tokens": NEW, "eos_id": EOS, "pad_id": PAD, "vocab_size": VOCAB, "batch_rows": 16}
    ours = generate(model, sharded, prompts(60, seed=20), mesh=mesh, **options)
    ties = 0
    for answer, (wanted, leads) in zip(ours, expected, strict=True):
        if answer.tolist() != wanted:
            ended = [*answer.tolist(), EOS], [*wanted, EOS]
            first = next(i for i, (token, other) in enumerate(zip(*ended, strict=False)) if token != other)
            assert leads[first] < CLOSE_LOGITS, f"{answer} against {wanted}"
            ties += 1
    assert ties <= 1
    assert len({tuple(answer) for answer in ours}) > 40
