"""One of several processes: trains a few steps on the shared mesh and tells what it asked for and lost.

Run as: python -m tests.processes.train_rows PORT PROCESSES PROCESS
"""

import json
import os
import sys

from tests.compiling import xla_flags

if __name__ == "__main__":
    port, processes, process = (int(argument) for argument in sys.argv[1:])
    os.environ["XLA_FLAGS"] = xla_flags(8 // processes)
    os.environ["JAX_PLATFORMS"] = "cpu"

import jax

from jaxlingua.config import OptimizerConfig
from jaxlingua.sharding.feed import feed
from jaxlingua.train.optimizer import make_optimizer
from jaxlingua.train.state import initial_state, shardings_of
from jaxlingua.train.step import make_train_step
from tests.train.world import OBJECTIVE, mesh_of, random_batch, tiny_model


def train_rows(steps: int = 3) -> dict:
    """Losses on a mesh of fsdp=4 tensor=2 with two micro-batches, and the rows that were built here."""
    asked = []

    def build(step, start, stop):
        asked.append([start, stop])
        return jax.tree.map(lambda x: x[start:stop], random_batch(rows=16, seed=step))

    mesh, model = mesh_of(fsdp=4, tensor=2), tiny_model()
    optimizer, schedule = make_optimizer(OptimizerConfig(peak_lr=3e-3, warmup_steps=0), steps)
    state = initial_state(model, optimizer, mesh, seed=0)
    step_fn = make_train_step(model, optimizer, schedule, OBJECTIVE, shardings_of(state), micro_batches=2)
    losses = []
    for _, batch in feed(build, range(steps), 16, mesh):
        state, metrics = step_fn(state, batch)
        losses.append(float(metrics.loss))
    return {"losses": losses, "asked": asked}


if __name__ == "__main__":
    jax.distributed.initialize(f"127.0.0.1:{port}", processes, process)
    print("TOLD " + json.dumps(train_rows()), flush=True)
    jax.distributed.shutdown()
