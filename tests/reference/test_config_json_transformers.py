"""config.json against transformers' own classes, live: what they write we read, and what we write they read."""

import json
import logging
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from jaxlingua.checkpoint.huggingface.config_json import config_fields, read_config, stored_dtype
from jaxlingua.checkpoint.huggingface.families import FAMILIES
from jaxlingua.model.presets import PRESETS, LlamaConfig
from jaxlingua.model.rope import RopeScaling, attention_factor, rope_frequencies

SIZES = {
    "vocab_size": 64,
    "hidden_size": 192,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 32,
}
HEADS = {"num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 8}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 512,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}
WINDOW = {"use_sliding_window": True, "sliding_window": 16}

# Fields beside the sizes, by family; the first of each is all that must be there.
CASES = {
    "llama": [
        {},
        HEADS,
        {"num_attention_heads": 6, "num_key_value_heads": None},
        {**HEADS, "attention_bias": True, "tie_word_embeddings": True, "rms_norm_eps": 1e-5},
        {**HEADS, "mlp_bias": True, "max_position_embeddings": 333, "hidden_act": "swish"},
        {**HEADS, "rope_parameters": {"rope_type": "default", "rope_theta": 500_000}},
        {**HEADS, "rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2}},
        {**HEADS, "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
        {**HEADS, "max_position_embeddings": 4096, "rope_parameters": {"rope_theta": 5e5, **LLAMA3}},
    ],
    "mistral": [
        {},
        {**HEADS, "sliding_window": None},
        {**HEADS, "sliding_window": 16, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
    ],
    "qwen2": [
        {},
        {"num_attention_heads": 6, "num_key_value_heads": 2, "max_window_layers": 2},
        {**HEADS, **WINDOW, "max_window_layers": 2, "tie_word_embeddings": True},
        {**HEADS, **WINDOW, "max_window_layers": 0},
        {**HEADS, **WINDOW, "num_hidden_layers": 29},
        {**HEADS, **WINDOW, "max_window_layers": 4},
        {**HEADS, "use_sliding_window": True, "sliding_window": None, "max_window_layers": 0},
        {**HEADS, **WINDOW, "layer_types": ["full_attention", "sliding_attention"] * 2},
        {
            **HEADS,
            "max_position_embeddings": 4096,
            "rope_parameters": {"rope_theta": 1e6, **YARN, "beta_fast": 16},
        },
    ],
    "qwen3": [
        {},
        HEADS,
        {**HEADS, "attention_bias": True, "tie_word_embeddings": True},
        {**HEADS, **WINDOW, "max_window_layers": 3},
        {**HEADS, **WINDOW, "num_hidden_layers": 29},
        {**HEADS, "rope_parameters": {"rope_theta": 1e6, **YARN, "attention_factor": 1.5, "truncate": False}},
    ],
}
EVERY = [(family, case) for family, cases in CASES.items() for case in cases]


def older(fields: dict) -> dict:
    """The same in the words of transformers 4."""
    fields = dict(fields)
    rope = dict(fields.pop("rope_parameters", {}))
    theta = {"rope_theta": rope.pop("rope_theta")} if "rope_theta" in rope else {}
    scaled = {"rope_scaling": rope} if rope.get("rope_type", "default") != "default" else {}
    dtype = {"torch_dtype": fields.pop("dtype")} if "dtype" in fields else {}
    return {**fields, **theta, **scaled, **dtype}


def check_against_transformers(ours: LlamaConfig, folder: Path) -> None:
    """Every field of `ours` is the attribute that AutoConfig has, or what the model made from it is built of."""
    config = AutoConfig.from_pretrained(folder)
    embed, heads = config.hidden_size, config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or embed // heads
    assert (ours.vocab_size, ours.embed, ours.mlp) == (config.vocab_size, embed, config.intermediate_size)
    assert (ours.layers, ours.heads, ours.head_dim) == (config.num_hidden_layers, heads, head_dim)
    assert ours.kv_heads == config.num_key_value_heads
    assert ours.max_positions == config.max_position_embeddings
    assert ours.norm_eps == config.rms_norm_eps
    assert ours.tie_embeddings == config.tie_word_embeddings
    assert ours.rope_theta == config.rope_parameters["rope_theta"]
    assert (ours.rope_scaling.rope_type if ours.rope_scaling else "default") == config.rope_parameters[
        "rope_type"
    ]
    model = AutoModelForCausalLM.from_config(config)
    rotary = model.model.rotary_emb
    frequencies = rope_frequencies(ours.rope_scaling, ours.head_dim, ours.rope_theta)
    np.testing.assert_allclose(frequencies, rotary.inv_freq.numpy(), rtol=2e-6)
    assert attention_factor(ours.rope_scaling) == pytest.approx(rotary.attention_scaling, rel=1e-12)
    in_all = config.sliding_window if config.model_type == "mistral" else None
    slides = ours.sliding_layers or (ours.sliding_window is not None,) * ours.layers
    for i, layer in enumerate(model.model.layers):
        attention, mlp = layer.self_attn, layer.mlp
        assert {projection.bias is not None for projection in (attention.q_proj, attention.k_proj, attention.v_proj)} == {ours.qkv_bias}  # fmt: skip
        assert (attention.o_proj.bias is not None) == ours.o_bias
        assert {projection.bias is not None for projection in (mlp.gate_proj, mlp.up_proj, mlp.down_proj)} == {ours.mlp_bias}  # fmt: skip
        assert hasattr(attention, "q_norm") == hasattr(attention, "k_norm") == ours.qk_norm
        assert getattr(attention, "sliding_window", in_all) == (ours.sliding_window if slides[i] else None)
        assert torch.equal(mlp.act_fn(torch.ones(1)), torch.ones(1) * torch.sigmoid(torch.ones(1)))


def test_every_family_is_compared():
    assert set(CASES) == set(FAMILIES)


@pytest.mark.parametrize(("family", "case"), EVERY, ids=lambda value: str(value)[:80])
def test_what_transformers_writes_is_read_as_transformers_reads_it(family, case, tmp_path):
    AutoConfig.for_model(family, **{**SIZES, **case}, dtype="bfloat16").save_pretrained(tmp_path)
    fields = json.loads((tmp_path / "config.json").read_text())
    ours = read_config(fields, "here")
    check_against_transformers(ours, tmp_path)
    assert read_config(older(fields), "here") == ours
    assert stored_dtype(fields, "here") == stored_dtype(older(fields), "here") == "bfloat16"


@pytest.mark.parametrize("words", [older, dict])
@pytest.mark.parametrize(("family", "case"), EVERY, ids=lambda value: str(value)[:80])
def test_absent_fields_are_what_transformers_takes_them_for(family, case, words, tmp_path):
    """The file has the sizes and what the case names, in either dialect, and nothing else."""
    fields = words({"model_type": family, **SIZES, **case})
    (tmp_path / "config.json").write_text(json.dumps(fields))
    check_against_transformers(read_config(fields, "here"), tmp_path)


@pytest.mark.parametrize("name", PRESETS)
def test_what_we_write_is_read_by_transformers_without_a_warning(name, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    config = PRESETS[name]
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}
    fields = config_fields(config, vocab_size=config.vocab_size, dtype="bfloat16", special_ids=ids)
    assert read_config(fields, "here") == config
    (tmp_path / "config.json").write_text(json.dumps(fields))
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING, "transformers"):
        warnings.simplefilter("error")
        theirs = AutoConfig.from_pretrained(tmp_path)
    assert not caplog.records
    assert theirs.architectures == ["LlamaForCausalLM"]
    assert theirs.dtype == torch.bfloat16
    assert {key: getattr(theirs, key) for key in ids} == ids
    kept = fields.keys() - {"rope_theta", "rope_scaling", "torch_dtype"}
    assert {key: getattr(theirs, key) for key in kept} == {key: fields[key] for key in kept}
    scaling = fields["rope_scaling"] or {"rope_type": "default"}
    assert theirs.rope_parameters == {"rope_theta": config.rope_theta, **scaling}


@pytest.mark.parametrize(
    "scaling",
    [
        RopeScaling("linear", 1.0),
        RopeScaling("dynamic", 2.0),
        RopeScaling("llama3", 8.0, 1024, low_freq_factor=1.0, high_freq_factor=4.0),
        RopeScaling("yarn", 4.0, 1024),
        RopeScaling("yarn", 4.0, 1024, beta_fast=16.0, mscale=1.0, mscale_all_dim=0.7, truncate=False),
        RopeScaling("yarn", 4.0, 1024, beta_slow=2.0, attention_factor=1.25),
    ],
    ids=str,
)
def test_what_we_write_of_stretched_and_biased_models_is_the_same_model(
    scaling, tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    config = replace(
        PRESETS["tiny-test"],
        rope_scaling=scaling,
        max_positions=4096,
        rope_theta=5e5,
        qkv_bias=True,
        o_bias=True,
        mlp_bias=True,
        tie_embeddings=False,
    )
    ids = {"bos_token_id": None, "eos_token_id": 2, "pad_token_id": 0}
    fields = config_fields(config, vocab_size=500, dtype="float32", special_ids=ids)
    (tmp_path / "config.json").write_text(json.dumps(fields))
    ours = read_config(fields, "here")
    assert ours == replace(config, vocab_size=500)
    with caplog.at_level(logging.WARNING, "transformers"):
        check_against_transformers(ours, tmp_path)
    assert not caplog.records
