"""Steps with and without a means against forgetting, on one CPU, in one run.

    python benchmarks/continual_cpu.py [--rounds 12] [--threads 1] [--tiny]

The steps that `python -m jaxlingua.train` takes, compiled for one model and one batch, taken in turns in one
process. Memory is what XLA says that the program of a step needs, arguments included, and the arrays that the
state remembers. No other trainer has these means, so the peer is the step without any.

Linux only: cores are given out with sched_setaffinity.
"""

import argparse
import os
import time

MIB = 2**20
# By name: a stage's own fields.
METHODS = {
    "naive": {},
    "L2-SP": {"anchor": {"l2_sp": 0.01}},
    "EWC": {"anchor": {"ewc": 1.0}},
    "KL": {"anchor": {"kl": 1.0}},
    "averaged at its end": {"average": 0.5},
    "half of the layers frozen": {"frozen": ["layers[0:4]/*"]},
    "embedding and MLPs frozen": {"frozen": ["embed/*", "layers/mlp/*"]},
}


def main() -> None:
    """Measure and print tables for RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=12, help="steps of each method that are measured")
    parser.add_argument("--threads", type=int, default=1, help="cores")
    parser.add_argument("--tiny", action="store_true", help="a model of no interest, to see that it runs")
    given = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: given.threads])  # before JAX counts them
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=1"

    from dataclasses import replace

    import jax
    import jax.numpy as jnp
    import numpy as np
    from train_cpu import cpu_model, interval

    from jaxlingua.config import OptimizerConfig, ShardingConfig, StageConfig
    from jaxlingua.model.llama import Llama
    from jaxlingua.model.presets import PRESETS, parameter_count
    from jaxlingua.sharding.feed import place_rows
    from jaxlingua.sharding.memory import bytes_per_device
    from jaxlingua.sharding.mesh import make_mesh
    from jaxlingua.tokens.rows import Batch
    from jaxlingua.train.anchors import remembered_by
    from jaxlingua.train.learned import Learned
    from jaxlingua.train.method import make_objective
    from jaxlingua.train.optimizer import make_optimizer
    from jaxlingua.train.state import initial_state, shardings_of
    from jaxlingua.train.step import make_train_step

    large = {"vocab_size": 4096, "embed": 512, "layers": 8, "heads": 8, "kv_heads": 8, "head_dim": 64}
    large |= {"mlp": 1408, "max_positions": 2048}
    sizes = PRESETS["tiny-test"] if given.tiny else replace(PRESETS["tiny-test"], **large)
    sizes = replace(sizes, remat="minimal", attention="blockwise", attention_block_tokens=128)
    rows, length = (4, 64) if given.tiny else (4, 256)
    mesh, model = make_mesh(ShardingConfig()), Llama(sizes)
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, sizes.vocab_size, (rows, length + 1)).astype(np.int32)
    ones = np.ones((rows, length), np.int32)
    positions = np.broadcast_to(np.arange(length, dtype=np.int32), (rows, length))
    whole = Batch(tokens[:, :-1], tokens[:, 1:], ones.astype(bool), positions, ones, np.zeros_like(ones))
    batch = place_rows(lambda step, start, stop: Batch(*(x[start:stop] for x in whole)), 0, rows, mesh)
    optimizer, schedule = make_optimizer(OptimizerConfig(schedule="constant", warmup_steps=0), 1_000_000)

    steps, states, program, remembered = {}, {}, {}, {}
    for name, fields in METHODS.items():
        if given.tiny and "layers[" in str(fields):
            continue
        stage = StageConfig.model_validate({"name": "b", "mixture": {"x": {}}, "steps": 1} | fields)
        learned = Learned(tuple(stage.frozen))
        state = initial_state(model, optimizer, mesh, seed=0, learned=learned)
        copied = jax.tree.map(jnp.copy, learned.parts(state.params)[0])
        state = state.replace(anchor={key: jax.tree.map(jnp.copy, copied) for key in remembered_by(stage)})
        step = make_train_step(
            model, optimizer, schedule, make_objective(stage, 1, sizes.vocab_size, 8192), shardings_of(state),
            learned=learned, anchor=stage.anchored,
        )  # fmt: skip
        used = step.lower(state, batch).compile().memory_analysis()
        program[name] = used.argument_size_in_bytes + used.temp_size_in_bytes + used.output_size_in_bytes
        program[name] -= used.alias_size_in_bytes
        remembered[name] = bytes_per_device(state.anchor)
        steps[name], states[name] = step, state

    def take(name: str) -> tuple[float, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        states[name], metrics = steps[name](states[name], batch)
        metrics.loss.block_until_ready()
        return time.perf_counter() - wall, time.process_time() - cpu

    for name in steps:  # compile, and settle
        take(name), take(name)
    order, measured = list(steps), {name: [] for name in steps}
    for number in range(given.rounds):
        for name in order if number % 2 == 0 else order[::-1]:
            measured[name].append(take(name))
    print("| stage | step | over naive (95 %) | the same in CPU time | program, MiB | remembered, MiB |")
    print("|---|---|---|---|---|---|")
    naive = np.array(measured["naive"])
    for name in order:
        of = np.array(measured[name])
        told = ["1" if name == "naive" else interval(of[:, kind] / naive[:, kind]) for kind in (0, 1)]
        print(
            f"| {name} | {np.median(of[:, 0]):.3f} s | {told[0]} | {told[1]} | {program[name] / MIB:,.0f} | "
            f"{remembered[name] / MIB:,.1f} |"
        )
    load = f"load at the end {os.getloadavg()[0]:.1f}"
    print(f"\n- Machine: {cpu_model()}, {given.threads} cores, {load}; jax {jax.__version__}")
    print(
        f"- Model: {parameter_count(sizes):,} parameters; {rows} whole rows of {length} tokens, float32, "
        f"AdamW, remat minimal, attention in blocks of 128; {given.rounds} steps each, in turns, ratios "
        f"within a turn"
    )


if __name__ == "__main__":
    main()
