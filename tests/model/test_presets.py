"""Published sizes, the arithmetic of parameters, and what "auto" becomes."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from jaxlingua.config import ModelConfig
from jaxlingua.errors import ConfigError
from jaxlingua.model.llama import Llama
from jaxlingua.model.presets import (
    _PUBLISHED,
    PRESETS,
    LlamaConfig,
    llama_config,
    parameter_count,
    published_sizes,
)
from tests.tiny import tiny_llama_config

# As the authors give them, or as the files of the released checkpoints add up.
PUBLISHED = {
    "llama1-7b": 6_738_415_616,
    "llama1-13b": 13_015_864_320,
    "llama1-33b": 32_528_943_616,
    "llama1-65b": 65_285_660_672,
    "llama2-7b": 6_738_415_616,
    "llama2-13b": 13_015_864_320,
    "llama2-70b": 68_976_648_192,
    "llama3-8b": 8_030_261_248,
    "llama3-70b": 70_553_706_496,
    "llama3.1-8b": 8_030_261_248,
    "llama3.1-70b": 70_553_706_496,
    "llama3.1-405b": 405_853_388_800,
    "llama3.2-1b": 1_235_814_400,
    "llama3.2-3b": 3_212_749_824,
}


def in_tree(config: LlamaConfig) -> int:
    """Numbers in the tree of parameters; none of them is made."""
    row = jax.ShapeDtypeStruct((1, 8), jnp.int32)
    params = nn.unbox(jax.eval_shape(Llama(config).init, jax.random.key(0), row, row, row)["params"])
    return sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_has_the_published_number_of_parameters(preset: str):
    """In the tree and in the arithmetic."""
    config = PRESETS[preset]
    assert parameter_count(config) == in_tree(config) == PUBLISHED.get(preset, in_tree(config))


def test_biases_and_norms_of_heads_are_counted_in_every_combination():
    names = ("qkv_bias", "o_bias", "mlp_bias", "qk_norm", "tie_embeddings")
    counts = {}
    for values in itertools.product([False, True], repeat=len(names)):
        config = tiny_llama_config(head_dim=10, **dict(zip(names, values, strict=True)))
        counts[values] = parameter_count(config)
        assert counts[values] == in_tree(config), config
    assert len(set(counts.values())) == 32
    assert parameter_count(tiny_llama_config(sliding_window=3)) == parameter_count(tiny_llama_config())


def test_tiny_presets_keep_within_their_names():
    assert 640_000 <= parameter_count(PRESETS["tiny-0.6m"]) <= 680_000
    assert PRESETS["tiny-0.6m"].vocab_size == 768
    assert parameter_count(PRESETS["tiny-3m"]) < 3_000_000
    assert PRESETS["tiny-3m"].vocab_size == 4096


def test_auto_is_the_preset_and_the_vocabulary_is_the_tokenizers():
    config = llama_config(ModelConfig(preset="llama3.2-1b"), 1000, remat="full")
    preset = PRESETS["llama3.2-1b"]
    assert config.vocab_size == 1000
    assert config.remat == "full"
    assert config.rope_scaling == preset.rope_scaling
    assert (config.embed, config.kv_heads, config.head_dim) == (2048, 8, 64)
    assert config.tie_embeddings
    assert config.compute_dtype == "bfloat16"


def test_given_fields_replace_the_presets():
    given = ModelConfig(
        preset="tiny-0.6m", embed=256, layers=6, heads=8, kv_heads=2, mlp=700, rope_theta=5e5, norm_eps=1e-6,
        tie_embeddings=False, max_positions=99, compute_dtype="float32", attention="blockwise", attention_block_tokens=7,
    )  # fmt: skip
    config = llama_config(given, 300)
    for name in given.model_fields_set - {"preset"}:
        assert getattr(config, name) == getattr(given, name), name
    assert config.head_dim == 32, "head_dim follows embed and heads"
    assert llama_config(ModelConfig(preset="tiny-0.6m", heads=8), 300).kv_heads == 8, (
        "one key per head stays so"
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"preset": "lama2-7b"}, "model.preset: unknown preset 'lama2-7b'; did you mean 'llama2-7b'?"),
        (
            {"preset": "tiny-test", "kv_heads": 3},
            "model.heads=4 is not a multiple of model.kv_heads=3; choose model.kv_heads among 1, 2, 4",
        ),
        (
            {"preset": "tiny-test", "head_dim": 7},
            "model.head_dim=7 is odd, but positions turn pairs; choose an even number",
        ),
        (
            {"preset": "tiny-test", "embed": 66},
            "model.embed=66 is not a multiple of model.heads=4; change one or set model.head_dim",
        ),
    ],
)
def test_sizes_that_do_not_go_together_are_refused_in_one_line(fields, message):
    with pytest.raises(ConfigError) as refusal:
        llama_config(ModelConfig(**fields), 512)
    assert str(refusal.value) == message


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sliding_window": 0}, "model.sliding_window=0 is not positive; choose 1 or more, or None"),
        (
            {"sliding_layers": (True, False)},
            "model.sliding_layers is given but model.sliding_window is not; give both",
        ),
        (
            {"sliding_window": 4, "sliding_layers": (True, False, True)},
            "model.sliding_layers has 3 entries for model.layers=2; give one for each layer",
        ),
    ],
)
def test_windows_that_no_model_can_have_are_refused_in_one_line(fields, message):
    with pytest.raises(ConfigError) as refusal:
        tiny_llama_config(**fields)
    assert str(refusal.value) == message


def test_an_unknown_remat_policy_is_refused_with_the_nearest_name():
    with pytest.raises(
        ConfigError, match=r"^train.remat: unknown policy 'save_qvk'; did you mean 'save_qkv'\?$"
    ):
        llama_config(ModelConfig(preset="tiny-test"), 512, remat="save_qvk")


def test_a_published_name_has_the_sizes_of_its_preset_and_no_other_name_has_any():
    assert published_sizes("meta-llama/Llama-2-7b-hf") == PRESETS["llama2-7b"]
    assert published_sizes("meta-llama/Llama-3.2-1B-Instruct") == PRESETS["llama3.2-1b"]
    assert published_sizes("someone/Llama-2-7b-hf") is None
    assert set(_PUBLISHED.values()) == {name for name in PRESETS if not name.startswith("tiny")}
