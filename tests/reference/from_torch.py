"""Weights of transformers' LLaMA as our parameter tree: what the comparison needs, and no importer."""

import jax.numpy as jnp
import numpy as np
import torch
from transformers import LlamaConfig as TorchConfig
from transformers import LlamaForCausalLM

from jaxlingua.model.presets import LlamaConfig


def torch_llama(config: LlamaConfig, rope: dict, seed: int = 0) -> LlamaForCausalLM:
    """A randomly drawn model of transformers with the sizes of `config`, in float32.

    Weights are drawn wide (0.2 instead of 0.02), so that attention is far from uniform and mistakes show.
    """
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        TorchConfig(
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
        )
    )
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.uniform_(0.5, 1.5)  # ones would hide a norm that forgets its scale
    return model.eval()


def from_torch(model: LlamaForCausalLM, config: LlamaConfig, gradients: bool = False) -> dict:
    """Parameters of `model`, or their gradients, in our tree."""

    def array(name: str) -> np.ndarray:
        weight = model.get_parameter(name)
        return (weight.grad if gradients else weight).detach().numpy()

    def stacked(name: str, turn) -> jnp.ndarray:
        return jnp.stack([turn(array(f"model.layers.{i}.{name}.weight")) for i in range(config.layers)])

    d, h = config.embed, config.head_dim
    heads_out = lambda n: lambda w: w.reshape(n, h, d).transpose(2, 0, 1)  # noqa: E731
    attention = {
        "q": stacked("self_attn.q_proj", heads_out(config.heads)),
        "k": stacked("self_attn.k_proj", heads_out(config.kv_heads)),
        "v": stacked("self_attn.v_proj", heads_out(config.kv_heads)),
        "o": stacked("self_attn.o_proj", lambda w: w.T.reshape(config.heads, h, d)),
    }
    params = {
        "embed": {"embedding": jnp.asarray(array("model.embed_tokens.weight"))},
        "layers": {
            "attention_norm": {"scale": stacked("input_layernorm", np.asarray)},
            "attention": attention,
            "mlp_norm": {"scale": stacked("post_attention_layernorm", np.asarray)},
            "mlp": {name: stacked(f"mlp.{name}_proj", np.transpose) for name in ("gate", "up", "down")},
        },
        "final_norm": {"scale": jnp.asarray(array("model.norm.weight"))},
    }
    if not config.tie_embeddings:
        params["head"] = {"kernel": jnp.asarray(array("lm_head.weight").T)}
    return params
