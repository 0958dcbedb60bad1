"""Families that share LLaMA's block: what config.json may say for each, and what it means where it is silent.

Defaults are those of transformers' own configuration classes.
"""

import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Kind(NamedTuple):
    words: str
    holds: Callable[[Any], bool]


class Field(NamedTuple):
    """A field that is read. `default` is what transformers takes where the file does not have it."""

    kind: Kind
    default: Any = "required"
    or_null: bool = False


class Family(NamedTuple):
    """What one `model_type` means: fields on top of those of all, and fields that have one value only."""

    architectures: tuple[str, ...]
    fields: dict[str, Field]
    fixed: dict[str, tuple]
    has: dict[str, bool]  # of LlamaConfig, whatever the file says


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value <= sys.float_info.max


SIZE = Kind("a whole number above 0", lambda value: type(value) is int and value > 0)
COUNT = Kind("a whole number, 0 or more", lambda value: type(value) is int and value >= 0)
NUMBER = Kind("a number above 0", _is_number)
THETA = Kind("a number above 1", lambda value: _is_number(value) and value > 1)
FLAG = Kind("true or false", lambda value: type(value) is bool)
NAMES = Kind(
    "a list of names", lambda value: type(value) is list and all(isinstance(name, str) for name in value)
)
OBJECT = Kind("an object or null", lambda value: value is None or isinstance(value, Mapping))

COMMON = {
    **dict.fromkeys(
        ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
        Field(SIZE),
    ),
    "head_dim": Field(SIZE, None, or_null=True),
    "rms_norm_eps": Field(NUMBER, 1e-6),
    "tie_word_embeddings": Field(FLAG, False),
}
_QWEN = {
    "num_key_value_heads": Field(SIZE, 32, or_null=True),
    "max_position_embeddings": Field(SIZE, 32_768),
    "use_sliding_window": Field(FLAG, False),
    "sliding_window": Field(SIZE, 4096, or_null=True),
    "max_window_layers": Field(COUNT, 28),
    "layer_types": Field(NAMES, None, or_null=True),
}
FAMILIES = {
    "llama": Family(
        architectures=("LlamaForCausalLM", "LLaMAForCausalLM"),  # the first LLaMA conversions spell it so
        fields={
            "num_key_value_heads": Field(SIZE, None, or_null=True),
            "max_position_embeddings": Field(SIZE, 2048),
            "attention_bias": Field(FLAG, False),
            "mlp_bias": Field(FLAG, False),
        },
        fixed={"sliding_window": (None,), "is_llama_config": (True,)},
        has={},
    ),
    "mistral": Family(
        architectures=("MistralForCausalLM",),
        fields={
            "num_key_value_heads": Field(SIZE, 8, or_null=True),
            "max_position_embeddings": Field(SIZE, 131_072),
            "sliding_window": Field(SIZE, 4096, or_null=True),
        },
        fixed={"attention_bias": (False,), "mlp_bias": (False,)},
        has={},
    ),
    "qwen2": Family(
        architectures=("Qwen2ForCausalLM",),
        fields=_QWEN,
        fixed={"attention_bias": (True,), "mlp_bias": (False,)},  # of queries, keys and values, in every file
        has={"qkv_bias": True},
    ),
    "qwen3": Family(
        architectures=("Qwen3ForCausalLM",),
        fields={**_QWEN, "head_dim": Field(SIZE, 128), "attention_bias": Field(FLAG, False)},
        fixed={"mlp_bias": (False,)},
        has={"qk_norm": True},
    ),
}
FIXED = {
    "hidden_act": ("silu", "swish"),  # two names of x * sigmoid(x)
    "attention_dropout": (0,),
    "partial_rotary_factor": (1, None),
    **dict.fromkeys(("is_encoder_decoder", "add_cross_attention", "tie_encoder_decoder"), (False,)),
    **dict.fromkeys(("use_mrope", "rope_interleaved"), (False,)),
    "is_causal": (True,),
    "pruned_heads": ({}, None),
    "chunk_size_feed_forward": (0,),
    "cross_attention_hidden_size": (None,),
}
REFUSED = {
    "quantization_config": "quantized weights are not read; give one in bfloat16, float16 or float32",
    "compression_config": "compressed weights are not read; give one in bfloat16, float16 or float32",
    "auto_map": "code that comes with a checkpoint is not run; give one whose model_type says all",
    "per_layer_config": "layers that differ from each other are not supported",
}
# Read on their own, in either dialect.
OTHERS = (
    *("model_type", "architectures", "dtype", "torch_dtype"),
    *("rope_theta", "rope_scaling", "rope_parameters"),
)
DTYPES = ("float32", "bfloat16", "float16")

# They change nothing of the function from tokens to logits: bookkeeping, labels of classifiers, token ids
# (the tokenizer's business), how transformers computes and what it returns, settings of generation.
HARMLESS = {
    "_name_or_path", "name_or_path", "_commit_hash", "transformers_version", "transformers.js_config",
    "tokenizer_class", "finetuning_task", "task_specific_params", "problem_type", "id2label", "label2id",
    "num_labels", "prefix", "unsloth_version", "unsloth_fixed", "unsloth_processed", "max_sequence_length",
    "model_max_length", "initializer_range", "is_decoder", "bos_token_id", "eos_token_id", "pad_token_id",
    "sep_token_id", "unk_token_id", "decoder_start_token_id", "pretraining_tp", "gradient_checkpointing",
    "torchscript", "use_bfloat16", "tf_legacy_loss", "use_cache", "return_dict", "output_attentions",
    "output_hidden_states", "output_scores", "return_dict_in_generate", "attn_implementation",
    "_attn_implementation", "_attn_implementation_autoset", "_attn_implementation_internal",
    "_flash_attn_2_enabled", "bad_words_ids", "begin_suppress_tokens", "diversity_penalty", "do_sample",
    "early_stopping", "encoder_no_repeat_ngram_size", "exponential_decay_length_penalty",
    "forced_bos_token_id", "forced_eos_token_id", "length_penalty", "max_length", "min_length",
    "max_new_tokens", "no_repeat_ngram_size", "num_beam_groups", "num_beams", "num_return_sequences",
    "remove_invalid_values", "repetition_penalty", "suppress_tokens", "temperature", "top_k", "top_p",
    "typical_p",
}  # fmt: skip
