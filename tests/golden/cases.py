"""The models of the golden data: config.json as published files have it, and weights drawn from a frozen stream.

Weights are not stored. `numpy.random.RandomState` keeps its stream for ever, and a weight is a whole number
times a power of two, so that every machine draws the same. They are drawn wide, biases too, and norms are far
from one, so that mistakes show. Nothing here knows the code under test, torch or transformers.
"""

import json
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
SIZES = {
    "vocab_size": 90,
    "hidden_size": 48,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 256,
    "hidden_act": "silu",
}
LLAMA = {**SIZES, "model_type": "llama", "architectures": ["LlamaForCausalLM"]}
MISTRAL = {**SIZES, "model_type": "mistral", "architectures": ["MistralForCausalLM"]}
QWEN2 = {**SIZES, "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "rms_norm_eps": 1e-6}
QWEN3 = {**SIZES, "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "head_dim": 16}

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LINEAR = {"type": "linear", "factor": 4.0}  # the spelling of the first files
WHOLE, LATE, GAPS = "from 0", "from 300", "with gaps"


@dataclass(frozen=True)
class Case:
    """A model, and the documents that it reads; each of them alone in transformers."""

    config: dict[str, Any]
    dtype: str
    documents: tuple[int, ...] = (18,)  # lengths
    positions: str = WHOLE
    files: int = 1
    old_tensors: dict[str, tuple[int, ...]] = field(default_factory=dict)  # written, and of no effect


def _transformers4(family: dict[str, Any], dtype: str, fields: dict[str, Any], **options: Any) -> Case:
    return Case({**family, "torch_dtype": dtype, **fields}, dtype, **options)


def _transformers5(
    family: dict[str, Any], dtype: str, rope: dict[str, Any], fields: dict[str, Any], **options: Any
) -> Case:
    rope = {"rope_type": "default", "rope_theta": 10_000.0, **rope}
    return Case({**family, "dtype": dtype, "rope_parameters": rope, **fields}, dtype, **options)


CASES = {
    "llama": _transformers4(LLAMA, "float32", {"rope_theta": 10_000.0, "rope_scaling": None}),
    "llama, large theta": _transformers5(LLAMA, "bfloat16", {"rope_theta": 500_000.0}, {}, files=3),
    "llama, packed": _transformers4(LLAMA, "float32", {}, documents=(11, 1, 6)),
    "llama, late positions": _transformers4(LLAMA, "float32", {"rope_theta": 500_000.0}, positions=LATE),
    "llama, positions with gaps": _transformers4(LLAMA, "float16", {}, positions=GAPS),
    "linear": _transformers4(LLAMA, "float32", {"rope_scaling": LINEAR}),
    "linear, transformers 5": _transformers5(LLAMA, "float32", {"rope_type": "linear", "factor": 2.5}, {}),
    "dynamic, as long as it may be": _transformers4(
        LLAMA, "bfloat16", {"rope_scaling": {"type": "dynamic", "factor": 4.0}, "max_position_embeddings": 18}
    ),
    "llama3": _transformers4(LLAMA, "bfloat16", {"rope_theta": 500_000.0, "rope_scaling": LLAMA3}),
    "llama3, transformers 5, packed and late": _transformers5(
        LLAMA, "float32", {**LLAMA3, "rope_theta": 500_000.0}, {}, documents=(9, 9), positions=LATE, files=2
    ),
    "yarn": _transformers4(LLAMA, "float32", {"rope_scaling": YARN}, positions=GAPS),
    "yarn with its own factor, transformers 5": _transformers5(
        LLAMA, "float32", {**YARN, "attention_factor": 1.3, "truncate": False, "beta_fast": 8.0}, {}
    ),
    "yarn with two scales": _transformers4(
        LLAMA, "float32", {"rope_scaling": {**YARN, "mscale": 1.0, "mscale_all_dim": 0.5}}
    ),
    "llama with biases": _transformers4(
        LLAMA, "float32", {"attention_bias": True, "mlp_bias": True, "rope_theta": 10_000.0}, files=4
    ),
    "open llama": _transformers4(
        {name: value for name, value in LLAMA.items() if name != "num_key_value_heads"},
        "float16",
        {"num_hidden_layers": 3, "tie_word_embeddings": False},
        old_tensors={f"model.layers.{i}.self_attn.rotary_emb.inv_freq": (6,) for i in range(3)},
    ),
    "all heads share one key": _transformers4(LLAMA, "float32", {"num_key_value_heads": 1}),
    "tied head": _transformers4(LLAMA, "bfloat16", {"tie_word_embeddings": True, "vocab_size": 131}, files=2),
    "head_dim 64": _transformers4(LLAMA, "float32", {"head_dim": 64, "num_attention_heads": 2}),
    "head_dim 128": _transformers5(LLAMA, "bfloat16", {}, {"head_dim": 128, "num_attention_heads": 2}),
    "heads wider than the model": _transformers4(
        LLAMA, "float32", {"head_dim": 14, "num_attention_heads": 6}
    ),
    "mistral": _transformers4(MISTRAL, "bfloat16", {"sliding_window": 5, "rope_theta": 1e6}, files=2),
    "mistral, packed": _transformers5(
        MISTRAL, "float32", {}, {"sliding_window": 4, "head_dim": 20}, documents=(10, 8)
    ),
    "mistral without a window": _transformers4(MISTRAL, "float32", {"sliding_window": None, "head_dim": 8}),
    "qwen2": _transformers4(
        QWEN2,
        "bfloat16",
        {"use_sliding_window": False, "sliding_window": 5, "max_window_layers": 1, "rope_theta": 1e6},
    ),
    "qwen2, upper layers slide": _transformers4(
        QWEN2,
        "float32",
        {
            "num_hidden_layers": 3,
            "use_sliding_window": True,
            "sliding_window": 5,
            "max_window_layers": 1,
            "tie_word_embeddings": True,
        },
        documents=(7, 11),
    ),
    "qwen2, yarn, transformers 5": _transformers5(QWEN2, "float32", {**YARN, "rope_theta": 1e6}, {}, files=2),
    "qwen3": _transformers4(
        QWEN3,
        "bfloat16",
        {"rope_theta": 1e6, "tie_word_embeddings": True, "sliding_window": None, "attention_bias": False},
    ),
    "qwen3, biases, lower layer slides, packed": _transformers5(
        QWEN3,
        "float32",
        {"rope_theta": 1e6},
        {
            "attention_bias": True,
            "use_sliding_window": True,
            "sliding_window": 4,
            "layer_types": ["sliding_attention", "full_attention"],
        },
        documents=(3, 9, 6),
    ),
}


# ── weights ───────────────────────────────────────────────────────────────────────────────────────────────


def weights(case: Case) -> dict[str, np.ndarray]:
    """Every tensor of the checkpoint by its name in a file, in the type of the file."""
    random = np.random.RandomState(_seed(case))
    drawn = {}
    for name, shape in {**_shapes(case.config), **case.old_tensors}.items():
        low, high = (2**15, 3 * 2**15) if "norm" in name else (-23_000, 23_001)
        drawn[name] = (random.randint(low, high, shape, np.int32) / 2.0**16).astype(DTYPES[case.dtype])
    return drawn


def fingerprint(case: Case) -> int:
    """CRC-32 of all weights."""
    crc = 0
    for name, weight in weights(case).items():
        crc = zlib.crc32(weight.tobytes(), zlib.crc32(name.encode(), crc))
    return crc


def _shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    family, embed, mlp = config["model_type"], config["hidden_size"], config["intermediate_size"]
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or embed // heads
    queries, keys = heads * head_dim, config.get("num_key_value_heads", heads) * head_dim
    layer: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (embed,),
        "post_attention_layernorm.weight": (embed,),
        "self_attn.q_proj.weight": (queries, embed),
        "self_attn.k_proj.weight": (keys, embed),
        "self_attn.v_proj.weight": (keys, embed),
        "self_attn.o_proj.weight": (embed, queries),
        "mlp.gate_proj.weight": (mlp, embed),
        "mlp.up_proj.weight": (mlp, embed),
        "mlp.down_proj.weight": (embed, mlp),
    }
    has_bias = []
    if family == "qwen2" or config.get("attention_bias"):
        has_bias += ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]
    if config.get("attention_bias"):
        has_bias += ["self_attn.o_proj"]
    if config.get("mlp_bias"):
        has_bias += ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
    layer |= {f"{name}.bias": layer[f"{name}.weight"][:1] for name in has_bias}
    if family == "qwen3":
        layer |= {"self_attn.q_norm.weight": (head_dim,), "self_attn.k_norm.weight": (head_dim,)}
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config["vocab_size"], embed)}
    for number in range(config["num_hidden_layers"]):
        shapes |= {f"model.layers.{number}.{name}": shape for name, shape in layer.items()}
    shapes["model.norm.weight"] = (embed,)
    if not config.get("tie_word_embeddings"):
        shapes["lm_head.weight"] = (config["vocab_size"], embed)
    return shapes


# ── what is read ──────────────────────────────────────────────────────────────────────────────────────────


def documents(case: Case) -> list[tuple[np.ndarray, np.ndarray]]:
    """Tokens and positions of every document."""
    random = np.random.RandomState(_seed(case) ^ 1)
    made = []
    for length in case.documents:
        tokens = random.randint(0, case.config["vocab_size"], length, np.int32)
        steps = (
            random.randint(1, 4, length, np.int32) if case.positions == GAPS else np.ones(length, np.int32)
        )
        first = {WHOLE: 0, LATE: 300, GAPS: 2}[case.positions]
        made.append((tokens, first + np.cumsum(steps, dtype=np.int32) - steps[0]))
    return made


def _seed(case: Case) -> int:
    return zlib.crc32(json.dumps(case.config, sort_keys=True).encode())


# ── the folder ────────────────────────────────────────────────────────────────────────────────────────────


def write_folder(case: Case, folder: Path) -> None:
    """The case as a Hugging Face folder: one file, or several with their index."""
    (folder / "config.json").write_text(json.dumps(case.config, indent=2))
    tensors = weights(case)
    if case.files == 1:
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        return
    weight_map = {}
    for number in range(case.files):  # each takes every third, say: tensors of a layer lie in different files
        file = f"model-{number + 1:05}-of-{case.files:05}.safetensors"
        names = list(tensors)[number :: case.files]
        save_file({name: tensors[name] for name in names}, folder / file, {"format": "pt"})
        weight_map |= dict.fromkeys(names, file)
    size = sum(weight.nbytes for weight in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
