"""Weights of transformers' LLaMA, Mistral and Qwen as our parameter tree: what the comparison needs, and no importer."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import torch
import transformers

from jaxlingua.model.presets import LlamaConfig


def torch_llama(config: LlamaConfig, rope: dict, seed: int = 0) -> transformers.PreTrainedModel:
    """A randomly drawn model of transformers, of the family that `config` describes, in float32.

    Weights are drawn wide (0.2 instead of 0.02), so that attention is far from uniform and mistakes show.
    """
    torch.manual_seed(seed)
    family, fields = _family(config)
    torch_config = getattr(transformers, f"{family}Config")(
        vocab_size=config.vocab_size,
        hidden_size=config.embed,
        intermediate_size=config.mlp,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.kv_heads,
        head_dim=config.head_dim,
        rms_norm_eps=config.norm_eps,
        max_position_embeddings=config.max_positions,
        rope_parameters={"rope_theta": config.rope_theta, "rope_type": "default", **rope},
        tie_word_embeddings=config.tie_embeddings,
        initializer_range=0.2,
        attn_implementation="eager",
        **fields,
    )
    model = getattr(transformers, f"{family}ForCausalLM")(torch_config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.uniform_(0.5, 1.5)  # ones would hide a norm that forgets its scale
            elif name.endswith("bias"):
                weight.normal_(0, 0.5)  # zeros would hide one that is forgotten
    return model.eval()


def _family(config: LlamaConfig) -> tuple[str, dict[str, Any]]:
    """The family that has what `config` has, and how its configuration says so."""
    slides = config.sliding_layers or (config.sliding_window is not None,) * config.layers
    qwen_window = {
        "use_sliding_window": any(slides),
        "sliding_window": config.sliding_window,
        "max_window_layers": config.layers - sum(slides),  # the layers from here on slide
    }
    if config.qk_norm:
        return "Qwen3", {"attention_bias": config.qkv_bias, **qwen_window}
    if config.qkv_bias and not config.o_bias:
        return "Qwen2", qwen_window
    if config.sliding_window is not None:
        return "Mistral", {"sliding_window": config.sliding_window}
    return "Llama", {"attention_bias": config.qkv_bias, "mlp_bias": config.mlp_bias}


def from_torch(model: transformers.PreTrainedModel, config: LlamaConfig, gradients: bool = False) -> dict:
    """Parameters of `model`, or their gradients, in our tree. Each of them has a place in it."""
    weights = {
        name: (weight.grad if gradients else weight).detach().numpy()
        for name, weight in model.named_parameters()
    }

    def stacked(name: str, turn=np.asarray) -> jnp.ndarray:
        return jnp.stack([turn(weights.pop(f"model.layers.{i}.{name}")) for i in range(config.layers)])

    def split_heads(weight: np.ndarray) -> np.ndarray:
        return weight.reshape(-1, config.head_dim, *weight.shape[1:])

    attention: dict[str, Any] = {
        name: stacked(f"self_attn.{name}_proj.weight", lambda w: split_heads(w).transpose(2, 0, 1))
        for name in "qkv"
    }
    attention["o"] = stacked("self_attn.o_proj.weight", lambda w: split_heads(w.T))
    mlp = {name: stacked(f"mlp.{name}_proj.weight", np.transpose) for name in ("gate", "up", "down")}
    if config.qkv_bias:
        attention |= {f"{name}_bias": stacked(f"self_attn.{name}_proj.bias", split_heads) for name in "qkv"}
    if config.o_bias:
        attention["o_bias"] = stacked("self_attn.o_proj.bias")
    if config.qk_norm:
        attention |= {f"{name}_norm": {"scale": stacked(f"self_attn.{name}_norm.weight")} for name in "qk"}
    if config.mlp_bias:
        mlp |= {f"{name}_bias": stacked(f"mlp.{name}_proj.bias") for name in ("gate", "up", "down")}
    params = {
        "embed": {"embedding": jnp.asarray(weights.pop("model.embed_tokens.weight"))},
        "layers": {
            "attention_norm": {"scale": stacked("input_layernorm.weight")},
            "attention": attention,
            "mlp_norm": {"scale": stacked("post_attention_layernorm.weight")},
            "mlp": mlp,
        },
        "final_norm": {"scale": jnp.asarray(weights.pop("model.norm.weight"))},
    }
    if not config.tie_embeddings:
        params["head"] = {"kernel": jnp.asarray(weights.pop("lm_head.weight").T)}
    assert not weights, f"no place for {', '.join(weights)}"
    return params
