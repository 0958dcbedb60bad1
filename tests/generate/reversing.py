"""A tiny model that has learned, in a few seconds, to write letters backwards: random ones would answer by chance."""

import functools
import hashlib
import os
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from filelock import FileLock
from flax import linen as nn
from flax import serialization

from jaxlingua.model.llama import Llama
from jaxlingua.model.presets import LlamaConfig

PAD, BOS, EOS, TURN, FIRST = 0, 1, 2, 3, 4
LETTERS = 16
VOCAB = FIRST + LETTERS  # the model's vocabulary is padded beyond it
LONGEST = 7
CONFIG = LlamaConfig(
    vocab_size=32, embed=64, layers=2, heads=4, kv_heads=2, head_dim=16, mlp=128, max_positions=160,
    compute_dtype="float32",
)  # fmt: skip


def prompts(count: int, seed: int) -> list[np.ndarray]:
    """BOS, a few letters, and the sign to turn round."""
    rng = np.random.default_rng(seed)
    words = [rng.integers(FIRST, VOCAB, size=rng.integers(1, LONGEST + 1)) for _ in range(count)]
    return [np.array([BOS, *word, TURN], np.int32) for word in words]


def trained(config: LlamaConfig = CONFIG, steps: int = 400) -> tuple[Llama, dict]:
    """The model and its parameters; after 400 steps most of its answers are right."""
    # How it is computed later, and for how many positions, changes nothing of what it learns.
    how = ("max_positions", "compute_dtype", "remat", "attention", "attention_block_tokens")
    return Llama(config), _trained_params(
        replace(config, **{name: getattr(CONFIG, name) for name in how}), steps
    )


@functools.cache
def _trained_params(config: LlamaConfig, steps: int) -> dict:
    """Of the file that the first of the workers wrote that asked for them."""
    name = hashlib.sha256(repr((config, steps)).encode()).hexdigest()
    file = Path(os.environ["JAXLINGUA_TESTS_MADE"]) / name
    with FileLock(f"{file}.lock"):
        if not file.exists():
            file.write_bytes(serialization.msgpack_serialize(jax.device_get(_train(config, steps))))
    return jax.tree.map(jnp.asarray, serialization.msgpack_restore(file.read_bytes()))


def _train(config: LlamaConfig, steps: int) -> dict:
    model = Llama(config)
    length = 2 * LONGEST + 3
    positions = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), (48, length))
    optimizer = optax.adamw(optax.cosine_decay_schedule(4e-3, steps))

    def loss(params, tokens, mask):
        logits = model.apply({"params": params}, tokens, positions, (tokens != PAD).astype(jnp.int32))
        losses = optax.softmax_cross_entropy_with_integer_labels(logits[:, :-1], tokens[:, 1:])
        return (losses * mask).sum() / mask.sum()

    # It runs often enough to be compiled well, against JAX_DISABLE_MOST_OPTIMIZATIONS: half the time of it all.
    @functools.partial(
        jax.jit,
        compiler_options={"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False},
    )
    def step(params, state, tokens, mask):
        updates, state = optimizer.update(jax.grad(loss)(params, tokens, mask), state, params)
        return optax.apply_updates(params, updates), state

    init = jax.jit(model.init, compiler_options={"xla_backend_optimization_level": 0})  # it runs once
    params = nn.unbox(init(jax.random.key(0), positions, positions, jnp.ones_like(positions)))["params"]
    state = optimizer.init(params)
    for number in range(steps):
        tokens = np.zeros((48, length), np.int32)
        mask = np.zeros((48, length - 1), np.float32)
        for row, prompt in enumerate(prompts(48, seed=1000 + number)):
            document = [*prompt, *prompt[-2:0:-1], EOS]
            tokens[row, : len(document)] = document
            mask[row, len(prompt) - 1 : len(document) - 1] = 1
        params, state = step(params, state, tokens, mask)
    return params
