"""What sets Mistral and Qwen apart from LLaMA, all of it at once, and parameters in which none of it is idle."""

import jax
import jax.numpy as jnp

# Of a model with two layers: the first sees a window, the second its whole document.
EVERY_FEATURE = {
    "qkv_bias": True,
    "o_bias": True,
    "mlp_bias": True,
    "qk_norm": True,
    "sliding_window": 5,
    "sliding_layers": (True, False),
}


def in_use(params: dict, seed: int = 0) -> dict:
    """`params` with biases that are not zero and scales that are not one, which hide mistakes."""

    def drawn(path, leaf: jax.Array) -> jax.Array:
        name = jax.tree_util.keystr(path, simple=True)
        noise = jax.random.normal(jax.random.fold_in(jax.random.key(seed), len(name)), leaf.shape)
        if name.endswith("bias"):
            return 0.5 * noise
        return leaf * (1 + 0.2 * jnp.tanh(noise)) if name.endswith("scale") else leaf

    return jax.tree_util.tree_map_with_path(drawn, params)
