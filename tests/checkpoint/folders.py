"""Made-up public checkpoints on disk, written by the safetensors library and by nothing of ours."""

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

DTYPES = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 128,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
}
QWEN3 = LLAMA | {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "tie_word_embeddings": True}
QWEN2 = LLAMA | {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}
BIASED = LLAMA | {"attention_bias": True, "mlp_bias": True}


def shapes(fields: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor, as the families' published files have them."""
    d, f, v, h = (fields[n] for n in ("hidden_size", "intermediate_size", "vocab_size", "head_dim"))
    heads, kv_heads = fields["num_attention_heads"] * h, fields["num_key_value_heads"] * h
    kind = fields["model_type"]
    tensors: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (v, d), "model.norm.weight": (d,)}
    if not fields["tie_word_embeddings"]:
        tensors["lm_head.weight"] = (v, d)
    for layer in range(fields["num_hidden_layers"]):
        home = f"model.layers.{layer}."
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{home}{name}.weight"] = (d,)
        projections = {
            "self_attn.q_proj": (heads, d),
            "self_attn.k_proj": (kv_heads, d),
            "self_attn.v_proj": (kv_heads, d),
            "self_attn.o_proj": (d, heads),
            "mlp.gate_proj": (f, d),
            "mlp.up_proj": (f, d),
            "mlp.down_proj": (d, f),
        }
        for name, shape in projections.items():
            tensors[f"{home}{name}.weight"] = shape
            in_attention = fields.get("attention_bias") or (kind == "qwen2" and "o_proj" not in name)
            if in_attention if "self_attn" in name else fields.get("mlp_bias"):
                tensors[f"{home}{name}.bias"] = shape[:1]
        if kind == "qwen3":
            tensors |= {f"{home}self_attn.{name}_norm.weight": (h,) for name in "qk"}
    return tensors


def draw(fields: dict[str, Any], dtype: str = "float32", seed: int = 0) -> dict[str, np.ndarray]:
    """A random value for every tensor."""
    rng = np.random.default_rng(seed)
    return {
        name: rng.standard_normal(shape, np.float32).astype(DTYPES[dtype])
        for name, shape in shapes(fields).items()
    }


def write_folder(
    folder: Path, fields: dict[str, Any], tensors: dict[str, np.ndarray] | None = None, shards: int = 1
) -> Path:
    """config.json and weights; over several shards the tensors are dealt like cards, so that layers are split."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(fields), "utf-8")
    tensors = draw(fields) if tensors is None else tensors
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        return folder
    files = [f"model-{number + 1:05}-of-{shards:05}.safetensors" for number in range(shards)]
    weight_map = {name: files[place % shards] for place, name in enumerate(tensors)}
    for file in files:
        part = {name: array for name, array in tensors.items() if weight_map[name] == file}
        save_file(part, folder / file, {"format": "pt"})
    index = {"metadata": {"total_size": sum(a.nbytes for a in tensors.values())}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")
    return folder
