"""The memory of a training step by arithmetic against the TPU compiler's, for ten steps and more.

    pip install 'jaxlingua[plan]'
    python benchmarks/plan_memory.py

No TPU is needed. A minute each, unless `python -m jaxlingua.plan` or this program compiled it before.
"""

import argparse
import sys
from dataclasses import dataclass
from typing import Any

from jaxlingua.plan.__main__ import choose_platform

GIB = 2**30
ALLOWED = 0.05


@dataclass(frozen=True)
class Case:
    """A step: preset, topology, rows of tokens, and what differs from the defaults."""

    preset: str
    topology: str
    batch_rows: int
    row_length_tokens: int
    train: dict[str, Any]
    mesh: dict[str, int]
    sizes: dict[str, int]

    def describe(self) -> tuple[str, str, str, str]:
        name = f"{self.preset}, {self.sizes['layers']} × {self.sizes['embed']}" if self.sizes else self.preset
        changes = {**{key: value for key, value in self.train.items() if key != "remat"}, **self.mesh}
        others = ", ".join(f"{key} {value}" for key, value in changes.items())
        rows = f"{self.batch_rows} × {self.row_length_tokens:,}"
        return name, self.topology, rows, ", ".join([self.train["remat"], *([others] if others else [])])


def case(preset: str, topology: str, rows: int, length: int, *, mesh=None, sizes=None, **train: Any) -> Case:
    return Case(preset, topology, rows, length, train, mesh or {}, sizes or {})


# TinyLlama's sizes: 1.1 billion parameters, heads of 64, four of keys and values.
TINYLLAMA = {"embed": 2048, "layers": 22, "heads": 32, "kv_heads": 4, "head_dim": 64, "mlp": 5632}
CASES = (
    case("llama2-7b", "v5e:8x8", 128, 2048, remat="minimal"),
    case("llama2-7b", "v5e:8x8", 128, 2048, remat="save_qkv"),
    case("llama2-7b", "v5e:8x8", 128, 2048, remat="full"),
    case("llama2-7b", "v5e:8x8", 256, 2048, remat="save_mlp", micro_batch_rows=128),
    case("llama2-7b", "v5e:2x4", 64, 2048, remat="full", micro_batch_rows=8, optimizer="adafactor"),
    case("llama2-7b", "v5e:2x4", 64, 2048, sizes=TINYLLAMA, remat="save_mlp"),
    case("llama3.2-1b", "v5e:1x1", 4, 2048, remat="full", optimizer="adafactor"),
    case("llama3.2-1b", "v5e:2x4", 16, 2048, remat="minimal", mesh={"tensor": 2, "fsdp": 4}),
    case("llama3-8b", "v6e:4x4", 32, 2048, remat="save_qkv"),
    case("llama2-13b", "v4:2x4x4", 64, 2048, remat="save_qkv"),
    case("llama2-70b", "v5p:4x4x8", 128, 4096, remat="save_attention"),
)


def main() -> None:
    """Compile, compare, print a table; the exit code tells whether all are near enough."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", type=int, help="number of one case, from 1")
    only = parser.parse_args().only
    choose_platform()
    rows = [measured(found) for place, found in enumerate(CASES, start=1) if only in (None, place)]
    print("| model | topology | rows × tokens | remat, and more | arithmetic, GiB | compiler, GiB | ratio |")
    print("|---|---|---|---|---|---|---|")
    for told, arithmetic, compiler in rows:
        figures = f"{arithmetic / GIB:.2f} | {compiler / GIB:.2f} | {arithmetic / compiler:.3f}"
        print(f"| {' | '.join(told)} | {figures} |")
    worst = max(abs(arithmetic / compiler - 1) for _, arithmetic, compiler in rows)
    print(f"\nworst: {100 * worst:.1f} %; allowed: {100 * ALLOWED:.0f} %")
    sys.exit(worst > ALLOWED)


def measured(found: Case) -> tuple[tuple[str, ...], int, int]:
    """What the case is called, its bytes by arithmetic and by the compiler."""
    # JAX reads its environment when it is imported.
    from jaxlingua.config import Config
    from jaxlingua.plan import program, store
    from jaxlingua.plan.topology import topology_of
    from jaxlingua.sharding.memory import step_memory

    train = {**found.train, "batch_rows": found.batch_rows}
    if "optimizer" in train:
        train["optimizer"] = {"kind": train["optimizer"]}
    config = Config.model_validate(
        {
            "model": {"preset": found.preset, **found.sizes},
            "data": {"sources": {"phrases": {"kind": "cldr", "languages": ["eng_Latn", "deu_Latn"]}}},
            "tokens": {"row_length_tokens": found.row_length_tokens, "kind": "huggingface", "path": "unread"},
            "sharding": {"mesh": found.mesh},
            "stages": [{"name": "coit", "mixture": {"phrases": {}}, "steps": 1000}],
            "train": train,
            "generate": {"batch_rows": found.batch_rows},
        }
    )
    topology = topology_of(found.topology)
    lowered = program.lower_step(config, topology)
    key = store.key_of(lowered.lowered.as_text(), program.identity(lowered, topology))
    compiled = store.load(store.store_folder(), key).compiled
    if compiled is None:
        told = " ".join(found.describe())
        compiled = program.told_while(say, told, lambda: program.compile_step(lowered.lowered))
        store.save(store.store_folder(), key, compiled)
    memory = step_memory(
        lowered.state, lowered.sizes, lowered.mesh, batch_rows=found.batch_rows,
        micro_batches=lowered.micro_batches, row_length_tokens=found.row_length_tokens,
        loss_chunk_tokens=config.train.loss_chunk_tokens,
    )  # fmt: skip
    return found.describe(), memory.total, compiled.peak


def say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
