"""config.json of well-known models gives their sizes; every field that is not understood is refused by name."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlingua.checkpoint.huggingface.config_json import config_fields, read_config, stored_dtype
from jaxlingua.checkpoint.huggingface.families import COMMON, FAMILIES, FIXED, HARMLESS, OTHERS, REFUSED
from jaxlingua.errors import CheckpointError, one_line
from jaxlingua.model.presets import PRESETS, LlamaConfig, parameter_count
from jaxlingua.model.rope import RopeScaling

# As published, without what says nothing of the model.
LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_act": "silu",
    "use_cache": True,
}
LLAMA1_7B = {
    **LLAMA,
    "architectures": ["LLaMAForCausalLM"],
    "bos_token_id": 0,
    "eos_token_id": 1,
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 11008,
    "max_sequence_length": 2048,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "pad_token_id": -1,
    "rms_norm_eps": 1e-06,
    "torch_dtype": "float16",
    "transformers_version": "4.27.0.dev0",
    "vocab_size": 32000,
}
OPEN_LLAMA_3B = {
    **LLAMA,
    "hidden_size": 3200,
    "intermediate_size": 8640,
    "max_position_embeddings": 2048,
    "num_attention_heads": 32,
    "num_hidden_layers": 26,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-06,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "vocab_size": 32000,
}
LLAMA2_7B = {
    **LLAMA,
    "_name_or_path": "meta-llama/Llama-2-7b-hf",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "max_position_embeddings": 4096,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "vocab_size": 32000,
}
LLAMA3_8B = {
    **LLAMA,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 128000,
    "eos_token_id": 128001,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 8192,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "vocab_size": 128256,
}
LLAMA31_SCALING = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}
LLAMA31_8B = {
    **LLAMA3_8B,
    "eos_token_id": [128001, 128008, 128009],
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "rope_scaling": LLAMA31_SCALING,
}
LLAMA32_1B = {
    **LLAMA31_8B,
    "head_dim": 64,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "rope_scaling": {**LLAMA31_SCALING, "factor": 32.0},
    "tie_word_embeddings": True,
}
LLAMA32_1B_NEWER = {  # as transformers 5 writes it again
    **{
        key: value
        for key, value in LLAMA32_1B.items()
        if key not in ("rope_scaling", "rope_theta", "torch_dtype")
    },
    "dtype": "bfloat16",
    "rope_parameters": {**LLAMA31_SCALING, "factor": 32.0, "rope_theta": 500000.0},
}
TINYLLAMA = {
    **LLAMA,
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "max_position_embeddings": 2048,
    "num_attention_heads": 32,
    "num_hidden_layers": 22,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "torch_dtype": "float32",
    "vocab_size": 32000,
}
MISTRAL_V01 = {
    "model_type": "mistral",
    "architectures": ["MistralForCausalLM"],
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 32768,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "sliding_window": 4096,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "vocab_size": 32000,
}
MISTRAL_V03 = {
    **MISTRAL_V01,
    "attention_dropout": 0.0,
    "rope_theta": 1000000.0,
    "sliding_window": None,
    "vocab_size": 32768,
}
QWEN25_05B = {
    "model_type": "qwen2",
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "hidden_act": "silu",
    "hidden_size": 896,
    "intermediate_size": 4864,
    "max_position_embeddings": 32768,
    "max_window_layers": 24,
    "num_attention_heads": 14,
    "num_hidden_layers": 24,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "use_mrope": False,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
QWEN25_7B = {
    **QWEN25_05B,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "max_position_embeddings": 131072,
    "max_window_layers": 28,
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "sliding_window": 131072,
    "tie_word_embeddings": False,
    "vocab_size": 152064,
}
QWEN25_YARN = {
    **QWEN25_7B,
    "max_position_embeddings": 32768,
    "rope_scaling": {"factor": 4.0, "original_max_position_embeddings": 32768, "type": "yarn"},
}
QWEN3_06B = {
    "model_type": "qwen3",
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "max_position_embeddings": 40960,
    "max_window_layers": 28,
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "use_sliding_window": False,
    "vocab_size": 151936,
}
QWEN3_8B = {
    **QWEN3_06B,
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "max_window_layers": 36,
    "num_attention_heads": 32,
    "num_hidden_layers": 36,
    "tie_word_embeddings": False,
}

_MISTRAL = LlamaConfig(32_000, 4096, 32, 32, 8, 128, 14_336, max_positions=32_768, sliding_window=4096)
_QWEN25_7B = LlamaConfig(
    152_064, 3584, 28, 28, 4, 128, 18_944, 1e6, None, 1e-6, qkv_bias=True, max_positions=131_072
)
_QWEN25_05B = LlamaConfig(
    151_936, 896, 24, 14, 2, 64, 4864, 1e6, None, 1e-6, True, qkv_bias=True, max_positions=32_768
)
_QWEN3_8B = LlamaConfig(
    151_936, 4096, 36, 32, 8, 128, 12_288, 1e6, None, 1e-6, qk_norm=True, max_positions=40_960
)
# Expected sizes, type on disk, and the number of parameters that the publishers' files add up to.
PUBLISHED = {
    "LLaMA-1 7B": (LLAMA1_7B, PRESETS["llama1-7b"], "float16", 6_738_415_616),
    "OpenLLaMA 3B": (
        OPEN_LLAMA_3B,
        LlamaConfig(32_000, 3200, 26, 32, 32, 100, 8640, norm_eps=1e-6),
        "float16",
        3_426_473_600,
    ),
    "Llama-2 7B": (LLAMA2_7B, PRESETS["llama2-7b"], "float16", 6_738_415_616),
    "Llama-3 8B": (LLAMA3_8B, PRESETS["llama3-8b"], "bfloat16", 8_030_261_248),
    "Llama-3.1 8B": (LLAMA31_8B, PRESETS["llama3.1-8b"], "bfloat16", 8_030_261_248),
    "Llama-3.2 1B": (LLAMA32_1B, PRESETS["llama3.2-1b"], "bfloat16", 1_235_814_400),
    "Llama-3.2 1B, newer": (LLAMA32_1B_NEWER, PRESETS["llama3.2-1b"], "bfloat16", 1_235_814_400),
    "TinyLlama 1.1B": (
        TINYLLAMA,
        LlamaConfig(32_000, 2048, 22, 32, 4, 64, 5632),
        "float32",
        1_100_048_384,
    ),
    "Mistral 7B v0.1": (MISTRAL_V01, _MISTRAL, "bfloat16", 7_241_732_096),
    "Mistral 7B v0.3": (
        MISTRAL_V03,
        replace(_MISTRAL, vocab_size=32_768, rope_theta=1e6, sliding_window=None),
        "bfloat16",
        7_248_023_552,
    ),
    "Qwen2.5 0.5B": (QWEN25_05B, _QWEN25_05B, "bfloat16", 494_032_768),
    "Qwen2.5 7B": (QWEN25_7B, _QWEN25_7B, "bfloat16", 7_615_616_512),
    "Qwen2.5 7B, stretched": (
        QWEN25_YARN,
        replace(_QWEN25_7B, max_positions=32_768, rope_scaling=RopeScaling("yarn", 4.0, 32_768)),
        "bfloat16",
        7_615_616_512,
    ),
    "Qwen3 0.6B": (
        QWEN3_06B,
        replace(_QWEN3_8B, embed=1024, layers=28, heads=16, mlp=3072, tie_embeddings=True),
        "bfloat16",
        596_049_920,
    ),
    "Qwen3 8B": (QWEN3_8B, _QWEN3_8B, "bfloat16", 8_190_735_360),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_have_their_sizes(name):
    fields, config, dtype, parameters = PUBLISHED[name]
    ours = read_config(fields, "here")
    assert ours == config
    assert parameter_count(ours) == parameters
    assert stored_dtype(fields, "here") == dtype


def test_layers_of_qwen_slide_from_max_window_layers_on_and_only_if_asked():
    """What slides in every layer, or in none, has one way to be said."""

    def sliding(**fields: object) -> tuple[int | None, tuple[bool, ...] | None]:
        config = read_config({**QWEN3_06B, "num_hidden_layers": 4, **fields}, "here")
        return config.sliding_window, config.sliding_layers

    window = {"use_sliding_window": True, "sliding_window": 16}
    assert sliding(**window, max_window_layers=3) == (16, (False, False, False, True))
    assert sliding(**window, max_window_layers=0) == (16, None)
    assert sliding(**window, max_window_layers=4) == (None, None)
    assert sliding(sliding_window=16, max_window_layers=0) == (None, None)
    assert sliding(use_sliding_window=True, sliding_window=None, max_window_layers=0) == (None, None)
    types = ["sliding_attention", "full_attention"] * 2
    assert sliding(**window, layer_types=types) == (16, (True, False, True, False))
    assert sliding(layer_types=["full_attention"] * 4) == (None, None)
    absent = {key: value for key, value in MISTRAL_V01.items() if key != "sliding_window"}
    assert read_config(absent, "here").sliding_window == 4096


def test_biases_are_where_the_family_has_them():
    def biases(fields: dict, **more: object) -> tuple[bool, bool, bool]:
        config = read_config({**fields, **more}, "here")
        return config.qkv_bias, config.o_bias, config.mlp_bias

    assert biases(LLAMA3_8B, attention_bias=True) == (True, True, False)
    assert biases(LLAMA3_8B, mlp_bias=True) == (False, False, True)
    assert biases(QWEN25_7B) == (True, False, False)
    assert biases(QWEN3_8B, attention_bias=True) == (True, True, False)
    assert biases(MISTRAL_V01) == (False, False, False)


def test_both_dialects_in_one_file_are_read_where_they_agree():
    config = PRESETS["llama3.2-1b"]
    assert read_config({**LLAMA32_1B, **LLAMA32_1B_NEWER}, "here") == config
    part = {**LLAMA32_1B_NEWER["rope_parameters"], "partial_rotary_factor": 1.0, "type": "llama3"}
    assert read_config({**LLAMA32_1B_NEWER, "rope_parameters": part}, "here") == config
    assert read_config({**LLAMA32_1B_NEWER, "rope_scaling": None}, "here") == config


def test_the_file_need_not_say_a_type():
    for said in ({}, {"dtype": None}, {"torch_dtype": "auto"}):
        assert stored_dtype(said, "here") == ""
    assert stored_dtype({"dtype": None, "torch_dtype": "float16"}, "here") == "float16"


def test_what_changes_nothing_of_the_function_is_let_through():
    assert read_config({**LLAMA2_7B, **dict.fromkeys(HARMLESS, "anything")}, "here") == PRESETS["llama2-7b"]
    unset = dict.fromkeys(REFUSED)
    said = {name: values[0] for name, values in {**FIXED, **FAMILIES["llama"].fixed}.items()}
    assert read_config({**LLAMA2_7B, **unset, **said}, "here") == PRESETS["llama2-7b"]


def _rope(**fields: object) -> dict:
    return {**LLAMA3_8B, "rope_scaling": fields}


ONE_LINE_EACH = [
    (
        {**LLAMA2_7B, "rms_norm_epsilon": 1e-5},
        "field 'rms_norm_epsilon' is not understood; did you mean 'rms_norm_eps'?; nothing was loaded; remove it only if it changes nothing of the function",
    ),
    (
        {**LLAMA2_7B, "logit_scale": 0.5},
        "field 'logit_scale' is not understood; known: vocab_size, hidden_size, intermediate_size, num_hidden_layers, num_attention_heads and 32 more; nothing was loaded; remove it only if it changes nothing of the function",
    ),
    (
        {**MISTRAL_V01, "layer_types": ["full_attention"] * 32},
        "field 'layer_types' is not understood; known: vocab_size, hidden_size, intermediate_size, num_hidden_layers, num_attention_heads and 31 more; nothing was loaded; remove it only if it changes nothing of the function",
    ),
    (
        {**LLAMA2_7B, "model_type": "gemma2"},
        "model_type='gemma2' is not supported (llama, mistral, qwen2, qwen3); nothing was loaded",
    ),
    (
        {**LLAMA2_7B, "model_type": "phi3"},
        "model_type='phi3' is not supported (llama, mistral, qwen2, qwen3); nothing was loaded",
    ),
    (
        {**MISTRAL_V01, "model_type": "mixtral"},
        "model_type='mixtral' is not supported (llama, mistral, qwen2, qwen3); nothing was loaded",
    ),
    ({}, "model_type=null is not supported (llama, mistral, qwen2, qwen3); nothing was loaded"),
    (
        {**LLAMA2_7B, "architectures": ["LlamaForSequenceClassification"]},
        'architectures=["LlamaForSequenceClassification"] is not supported (LlamaForCausalLM); give a language model with its head; nothing was loaded',
    ),
    (
        {**QWEN3_8B, "architectures": ["Qwen3Model"]},
        'architectures=["Qwen3Model"] is not supported (Qwen3ForCausalLM); give a language model with its head; nothing was loaded',
    ),
    (
        {**MISTRAL_V01, "architectures": "MistralForCausalLM"},
        "architectures='MistralForCausalLM' is not supported (MistralForCausalLM); give a language model with its head; nothing was loaded",
    ),
    ({**LLAMA2_7B, "hidden_act": "gelu"}, "hidden_act='gelu' is not supported (silu, swish); nothing was loaded"),
    (
        {**LLAMA2_7B, "attention_dropout": 0.1},
        "attention_dropout=0.1 is not supported (0); nothing was loaded",
    ),
    (
        {**LLAMA2_7B, "attention_dropout": False},
        "attention_dropout=false is not supported (0); nothing was loaded",
    ),
    (
        {**LLAMA2_7B, "partial_rotary_factor": 0.5},
        "partial_rotary_factor=0.5 is not supported (1, null); nothing was loaded",
    ),
    (
        {**LLAMA2_7B, "is_encoder_decoder": True},
        "is_encoder_decoder=true is not supported (false); nothing was loaded",
    ),
    ({**LLAMA2_7B, "is_causal": False}, "is_causal=false is not supported (true); nothing was loaded"),
    ({**QWEN25_7B, "use_mrope": True}, "use_mrope=true is not supported (false); nothing was loaded"),
    (
        {**LLAMA2_7B, "rope_interleaved": True},
        "rope_interleaved=true is not supported (false); nothing was loaded",
    ),
    (
        {**LLAMA2_7B, "pruned_heads": {"0": [1]}},
        'pruned_heads={"0": [1]} is not supported ({}, null); nothing was loaded',
    ),
    ({**LLAMA2_7B, "sliding_window": 4096}, "sliding_window=4096 is not supported (null); nothing was loaded"),
    ({**MISTRAL_V01, "mlp_bias": True}, "mlp_bias=true is not supported (false); nothing was loaded"),
    ({**QWEN25_7B, "attention_bias": False}, "attention_bias=false is not supported (true); nothing was loaded"),
    (
        {**LLAMA2_7B, "quantization_config": {"quant_method": "gptq"}},
        "field 'quantization_config': quantized weights are not read; give one in bfloat16, float16 or float32; nothing was loaded",
    ),
    (
        {**LLAMA2_7B, "compression_config": {}},
        "field 'compression_config': compressed weights are not read; give one in bfloat16, float16 or float32; nothing was loaded",
    ),
    (
        {**LLAMA2_7B, "auto_map": {"AutoModel": "modeling.Model"}},
        "field 'auto_map': code that comes with a checkpoint is not run; give one whose model_type says all; nothing was loaded",
    ),
    (
        {**LLAMA2_7B, "per_layer_config": {"0": {"num_key_value_heads": 4}}},
        "field 'per_layer_config': layers that differ from each other are not supported; nothing was loaded",
    ),
    (
        {key: value for key, value in LLAMA2_7B.items() if key != "hidden_size"},
        "field 'hidden_size' is missing; add it as the model's authors gave it; nothing was loaded",
    ),
    (
        {**LLAMA2_7B, "hidden_size": "4096"},
        "hidden_size='4096' is not a whole number above 0; nothing was loaded",
    ),
    (
        {**LLAMA2_7B, "hidden_size": 4096.0},
        "hidden_size=4096.0 is not a whole number above 0; nothing was loaded",
    ),
    (
        {**LLAMA2_7B, "num_hidden_layers": -1},
        "num_hidden_layers=-1 is not a whole number above 0; nothing was loaded",
    ),
    (
        {**LLAMA2_7B, "num_hidden_layers": True},
        "num_hidden_layers=true is not a whole number above 0; nothing was loaded",
    ),
    ({**LLAMA2_7B, "vocab_size": None}, "vocab_size=null is not a whole number above 0; nothing was loaded"),
    ({**QWEN3_8B, "head_dim": None}, "head_dim=null is not a whole number above 0; nothing was loaded"),
    (
        {**MISTRAL_V01, "sliding_window": 0},
        "sliding_window=0 is not a whole number above 0; nothing was loaded",
    ),
    ({**LLAMA2_7B, "rms_norm_eps": True}, "rms_norm_eps=true is not a number above 0; nothing was loaded"),
    (
        {**LLAMA2_7B, "rms_norm_eps": float("nan")},
        "rms_norm_eps=NaN is not a number above 0; nothing was loaded",
    ),
    (
        {**LLAMA2_7B, "tie_word_embeddings": 1},
        "tie_word_embeddings=1 is not true or false; nothing was loaded",
    ),
    (
        {**QWEN25_7B, "max_window_layers": -1},
        "max_window_layers=-1 is not a whole number, 0 or more; nothing was loaded",
    ),
    ({**QWEN25_7B, "layer_types": "full"}, "layer_types='full' is not a list of names; nothing was loaded"),
    (
        {**QWEN25_7B, "layer_types": ["full_attention"] * 3},
        "layer_types has 3 entries for num_hidden_layers=28; nothing was loaded",
    ),
    (
        {**QWEN25_7B, "layer_types": []},
        "layer_types has 0 entries for num_hidden_layers=28; nothing was loaded",
    ),
    (
        {**QWEN25_7B, "layer_types": ["chunked_attention"] * 28},
        "layer_types='chunked_attention' is not supported (full_attention, sliding_attention); nothing was loaded",
    ),
    (
        {**QWEN25_7B, "layer_types": ["sliding_attention"] * 28},
        "layer_types has sliding_attention, but use_sliding_window and sliding_window give no window; nothing was loaded",
    ),
    (
        {**LLAMA2_7B, "num_key_value_heads": 5},
        "num_attention_heads=32 is not a multiple of num_key_value_heads=5; nothing was loaded",
    ),
    (
        {**LLAMA2_7B, "hidden_size": 4100},
        "hidden_size=4100 is not a multiple of num_attention_heads=32, and no head_dim is given; nothing was loaded",
    ),
    ({**LLAMA2_7B, "head_dim": 127}, "head_dim=127 is odd, but positions turn pairs; nothing was loaded"),
    ({**LLAMA2_7B, "rope_theta": None}, "rope_theta=null is not a number above 1; nothing was loaded"),
    (
        {**LLAMA2_7B, "rope_theta": "10000"},
        "rope_theta='10000' is not a number above 1; nothing was loaded",
    ),
    (
        {**LLAMA2_7B, "rope_parameters": {"rope_theta": 0}},
        "rope_parameters.rope_theta=0 is not a number above 1; nothing was loaded",
    ),
    (
        {**LLAMA2_7B, "rope_scaling": "linear"},
        "rope_scaling='linear' is not an object or null; nothing was loaded",
    ),
    (
        {**LLAMA3_8B, "rope_parameters": {"rope_theta": 1e6}},
        "rope_theta=500000.0 but rope_parameters.rope_theta=1000000.0; they must agree; nothing was loaded",
    ),
    (
        {
            **LLAMA2_7B,
            "rope_parameters": {"rope_type": "linear", "factor": 2.0},
            "rope_scaling": {"rope_type": "linear", "factor": 4.0},
        },
        'rope_parameters={"rope_type": "linear", "factor": 2.0} but rope_scaling={"rope_type": "linear", "factor": 4.0}; they must agree; nothing was loaded',
    ),
    (
        {**QWEN3_8B, "rope_parameters": {"full_attention": {"rope_theta": 1e6}, "sliding_attention": {}}},
        "rope_parameters differs by layer (full_attention, sliding_attention), but one rotation for all layers is supported; nothing was loaded",
    ),
    (
        {**LLAMA2_7B, "rope_parameters": {"partial_rotary_factor": 0.25}},
        "rope_parameters.partial_rotary_factor=0.25 is not supported (1); nothing was loaded",
    ),
    ({**LLAMA2_7B, "dtype": "float64"}, "dtype='float64' is not supported (float32, bfloat16, float16); nothing was loaded"),
    (
        {**LLAMA2_7B, "dtype": "bfloat16"},
        "dtype='bfloat16' but torch_dtype='float16'; they must agree; nothing was loaded",
    ),
    # What rotary positions refuse comes with the same opening and in the same class.
    (
        _rope(rope_type="longrope", long_factor=[1.0], short_factor=[1.0]),
        "rope_scaling.rope_type='longrope' is not supported (default, linear, dynamic, llama3, yarn); nothing was loaded",
    ),
    (
        {**LLAMA2_7B, "rope_parameters": {"rope_type": "proportional"}},
        "rope_parameters.rope_type='proportional' is not supported (default, linear, dynamic, llama3, yarn); nothing was loaded",
    ),
    (
        _rope(rope_type="yarn", factor=4.0, original_max_position_embeddings=4096, finetuned=True),
        "rope_scaling: field 'finetuned' is not understood; known: rope_type, factor, original_max_position_embeddings, low_freq_factor, high_freq_factor, beta_fast, beta_slow, mscale, mscale_all_dim, attention_factor, truncate; nothing was loaded",
    ),
    (_rope(type="linear", rope_type="yarn"), "rope_scaling: rope_type='yarn' but type='linear'; nothing was loaded"),
    (_rope(factor=8.0), "rope_scaling: rope_type='default' does not use 'factor'; nothing was loaded"),
    (
        _rope(rope_type="linear", factor=8.0, attention_factor=1.0),
        "rope_scaling: rope_type='linear' does not use 'attention_factor'; nothing was loaded",
    ),
    (
        _rope(rope_type="linear", factor=True),
        "rope_scaling.factor='True' is not a number or flag; nothing was loaded",
    ),
    (_rope(rope_type="linear", factor=0), "rope_scaling.factor=0 is not a positive number; nothing was loaded"),
    (
        _rope(rope_type="linear", factor=10**400),
        f"rope_scaling.factor={10**400} is not a positive number; nothing was loaded",
    ),
    (
        _rope(rope_type="linear", factor=float("inf")),
        "rope_scaling.factor=inf is not a positive number; nothing was loaded",
    ),
    (
        _rope(rope_type="yarn", factor=4.0),
        "rope_scaling: rope_type='yarn' needs 'original_max_position_embeddings'; add it as the model's authors gave it",
    ),
    (
        _rope(rope_type="yarn", factor=None, original_max_position_embeddings=4096),
        "rope_scaling: rope_type='yarn' needs 'factor'; add it as the model's authors gave it",
    ),
    (
        _rope(rope_type="yarn", factor=4.0, original_max_position_embeddings=4096, beta_fast=0),
        "rope_scaling.beta_fast=0 is not a positive number; nothing was loaded",
    ),
    (
        _rope(rope_type="yarn", factor=4.0, original_max_position_embeddings=4096, truncate=None),
        "rope_scaling.truncate='None' is not a number or flag; nothing was loaded",
    ),
    (
        _rope(rope_type="yarn", factor=4.0, original_max_position_embeddings=4096.5),
        "rope_scaling.original_max_position_embeddings='4096.5' is not a number or flag; nothing was loaded",
    ),
    (
        _rope(**{**LLAMA31_SCALING, "low_freq_factor": 4.0}),
        "rope_scaling: low_freq_factor=4.0 is not below high_freq_factor=4.0; nothing was loaded",
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "line"), ONE_LINE_EACH, ids=lambda value: value[:60] if isinstance(value, str) else ""
)
def test_what_is_not_understood_is_refused_in_one_line(fields, line):
    with pytest.raises(CheckpointError) as refusal:
        read_config(fields, "some/model")
    assert str(refusal.value) == one_line(refusal.value) == f"some/model/config.json: {line}"


def test_a_long_value_is_cut_in_the_line():
    with pytest.raises(CheckpointError) as refusal:
        read_config({**LLAMA2_7B, "pruned_heads": {str(i): [0] for i in range(99)}}, "here")
    assert len(str(refusal.value)) < 220


@given(st.sampled_from(sorted(PUBLISHED)), st.data())
@settings(max_examples=200, deadline=None)
def test_renaming_any_field_to_something_unknown_is_refused(name, data):
    """A misspelt field is not one that is absent: its default would be another model."""
    fields = PUBLISHED[name][0]
    family = FAMILIES[fields["model_type"]]
    known = {*COMMON, *family.fields, *FIXED, *family.fixed, *REFUSED, *OTHERS, *HARMLESS}
    old = data.draw(st.sampled_from(sorted(fields)))
    slip = st.builds(
        lambda at, letter: old[:at] + letter + old[at + 1 :], st.integers(0, 20), st.sampled_from("_axz")
    )
    new = data.draw(st.one_of(st.text(max_size=20), slip).filter(lambda text: text not in known))
    renamed = {new if key == old else key: value for key, value in fields.items()}
    with pytest.raises(CheckpointError, match="is not understood|model_type=null"):
        read_config(renamed, "here")


@given(
    st.sampled_from(sorted(PUBLISHED)),
    st.data(),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
        max_leaves=4,
    ),
)
@settings(max_examples=300, deadline=None)
def test_no_value_of_any_field_ends_in_a_traceback(name, data, value):
    """Whatever JSON can hold is either read or refused by name."""
    fields = PUBLISHED[name][0]
    family = FAMILIES[fields["model_type"]]
    known = sorted({*COMMON, *family.fields, *FIXED, *family.fixed, *REFUSED, *OTHERS})
    field = data.draw(st.sampled_from(known))
    if field in ("num_hidden_layers", "head_dim", "hidden_size") and isinstance(value, int):
        value = min(value, 1000)  # a model of 10 ** 18 layers is a long list
    try:
        assert isinstance(read_config({**fields, field: value}, "here"), LlamaConfig)
    except CheckpointError as error:
        assert str(error).startswith("here/config.json: ")  # noqa: PT017


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"qk_norm": True}, "export: qk_norm=True, which a LLaMA of transformers does not have; nothing was written"),
        (
            {"sliding_window": 4096},
            "export: sliding_window=4096, which a LLaMA of transformers does not have; nothing was written",
        ),
        (
            {"qkv_bias": True},
            "export: qkv_bias=True but o_bias=False, and a LLaMA of transformers has both or none; nothing was written",
        ),
        (
            {"embed": 100},
            "export: embed=100 is not a multiple of heads=32, which transformers asks of a LLaMA; nothing was written",
        ),
        ({"dtype": "int8"}, "export: dtype='int8' is not supported (float32, bfloat16, float16); nothing was written"),
    ],
)  # fmt: skip
def test_what_a_llama_of_transformers_cannot_be_is_not_written(changes, line):
    changes = dict(changes)
    dtype = changes.pop("dtype", "bfloat16")
    config = replace(PRESETS["llama2-7b"], **changes)
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}
    with pytest.raises(CheckpointError) as refusal:
        config_fields(config, vocab_size=32_000, dtype=dtype, special_ids=ids)
    assert str(refusal.value) == line


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_that_is_written_is_read_as_the_same_model(name):
    ids = {"bos_token_id": None, "eos_token_id": 2, "pad_token_id": 0}
    config = PRESETS[name]
    fields = config_fields(config, vocab_size=config.vocab_size, dtype="float16", special_ids=ids)
    assert read_config(fields, "here") == config
    assert stored_dtype(fields, "here") == "float16"
    assert {key: fields[key] for key in ids} == ids
    fewer = config_fields(config, vocab_size=500, dtype="float16", special_ids=ids)
    assert read_config(fewer, "here") == replace(config, vocab_size=500)


@pytest.mark.parametrize(
    ("family", "kv_heads"), [("llama", 64), ("mistral", 8), ("qwen2", 32), ("qwen3", 32)]
)
def test_keys_and_values_have_the_heads_of_transformers_where_the_file_does_not_say(family, kv_heads):
    """num_key_value_heads absent: LLaMA takes all heads, the others a number of their own."""
    sizes = {"vocab_size": 100, "hidden_size": 4096, "intermediate_size": 64, "num_hidden_layers": 2}
    fields = {"model_type": family, **sizes, "num_attention_heads": 64}
    assert read_config(fields, "here").kv_heads == kv_heads
