"""One of several processes: asks a model on the shared mesh in every way and tells what it answered.

Run as: python -m tests.processes.generate_rows PORT PROCESSES PROCESS
"""

import json
import os
import sys

from tests.compiling import xla_flags

if __name__ == "__main__":
    port, processes, process = (int(argument) for argument in sys.argv[1:])
    os.environ["XLA_FLAGS"] = xla_flags(4 // processes)
    os.environ["JAX_PLATFORMS"] = "cpu"

from dataclasses import replace
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from jaxlingua.config import ShardingConfig
from jaxlingua.generate.decoding import Decoding, Request
from jaxlingua.generate.engine import generate
from jaxlingua.generate.likelihood import Continuation, likelihoods
from jaxlingua.generate.programs import on_mesh
from jaxlingua.model.llama import Llama
from jaxlingua.sharding.mesh import make_mesh
from jaxlingua.sharding.rules import abstract_params, param_shardings
from tests.generate.letters import LETTERS
from tests.generate.reversing import CONFIG, EOS, FIRST, VOCAB, prompts

ROWS = 4


def random_params(model: Llama, mesh: jax.sharding.Mesh) -> Any:
    """The same weights in every process, of which each places its own part."""
    rng = np.random.default_rng(1)

    def drawn(shape: Any, sharding: Any) -> jax.Array:
        values = (
            rng.normal(scale=0.4, size=shape.shape) if len(shape.shape) > 2 else rng.normal(size=shape.shape)
        )
        return on_mesh(values.astype(np.float32), sharding)

    return jax.tree.map(drawn, nn.unbox(abstract_params(model, mesh)), param_shardings(model, mesh))


def ask() -> dict[str, Any]:
    """Answers by greedy choice (with stop strings and choices among them), drawn, by beams; likelihoods."""
    config = ShardingConfig.model_validate({"mesh": {"data": 1, "fsdp": 2, "tensor": 2}})
    model, mesh = Llama(replace(CONFIG, layers=1)), make_mesh(config, jax.devices()[:4])
    params = random_params(model, mesh)
    words = [np.array([FIRST, FIRST + 1]), np.array([FIRST, FIRST + 2, FIRST + 3]), np.array([FIRST + 4])]
    asked = [
        Request(
            prompt, 1 + index % 9, key=index, stop=("b", "cd") if index % 3 == 0 else (),
            choices=tuple(words) if index % 5 == 4 else (),
        )
        for index, prompt in enumerate(prompts(12, seed=1))
    ]  # fmt: skip
    free = [replace(one, choices=()) for one in asked[:6]]
    told: dict[str, Any] = {}
    for name, requests, decoding in (
        ("greedy", asked, Decoding()),
        ("drawn", free, Decoding(temperature=1.0, top_p=0.9)),
        ("beams", free, Decoding(beams=2)),
    ):
        answers = generate(
            model, params, requests, decoding=decoding, tokenizer=LETTERS, eos_ids=(EOS,), batch_rows=ROWS,
            mesh=mesh,
        )  # fmt: skip
        told[name] = [[one.tokens.tolist(), one.text, one.ended_by, one.choice] for one in answers]
    items = [Continuation(one.prompt, one.prompt) for one in asked]
    found = likelihoods(model, params, items, vocab_size=VOCAB, batch_rows=ROWS, mesh=mesh)
    return told | {"logprobs": [one.logprob for one in found]}


if __name__ == "__main__":
    jax.distributed.initialize(f"127.0.0.1:{port}", processes, process)
    print("TOLD " + json.dumps(ask()), flush=True)
    jax.distributed.shutdown()
