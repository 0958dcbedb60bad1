"""The memory of a training step by arithmetic against the TPU compiler's, for ten steps and more.

    pip install 'jaxlingua[plan]'
    python benchmarks/plan_memory.py
    python benchmarks/plan_memory.py --narrow      # narrow models on one chip
    python benchmarks/plan_memory.py --adapters    # LoRA, DoRA and QLoRA

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

    def config(self) -> Any:
        from jaxlingua.config import Config

        train = {**self.train, "batch_rows": self.batch_rows}
        if "optimizer" in train:
            train["optimizer"] = {"kind": train["optimizer"]}
        is_tiny = self.preset.startswith("tiny")
        tokens = {"vocab_size": 4096} if is_tiny else {"kind": "huggingface", "path": "unread"}
        return Config.model_validate(
            {
                "model": {"preset": self.preset, **self.sizes},
                "data": {"sources": {"phrases": {"kind": "cldr", "languages": ["eng_Latn", "deu_Latn"]}}},
                "tokens": {"row_length_tokens": self.row_length_tokens, **tokens},
                "sharding": {"mesh": self.mesh},
                "stages": [{"name": "coit", "mixture": {"phrases": {}}, "steps": 1000}],
                "train": train,
                "generate": {"batch_rows": self.batch_rows},
            }
        )


@dataclass(frozen=True)
class Recipe:
    """The step of a recipe in configs/, with overrides as on the command line."""

    name: str
    topology: str
    overrides: str

    def describe(self) -> tuple[str, str, str, str]:
        config = self.config()
        train, lora = config.train, config.model.lora
        kind = "DoRA" if lora.dora is True else "LoRA"
        base = config.model.compute_dtype if lora.base == "auto" else lora.base
        rows = train.batch_rows if train.micro_batch_rows == "auto" else train.micro_batch_rows
        targets = "" if lora.targets == "auto" else " of all nine"
        name = config.model.path.rpartition("/")[2]
        told = f"{rows} × {config.tokens.row_length_tokens:,}"
        return f"{name}, {kind}{targets}, {base}", self.topology, told, train.remat

    def config(self) -> Any:
        from jaxlingua.command_line import load_config

        return load_config(self.name, self.overrides.split())


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


def narrow(width: int, head_dim: int, remat: str, rows: int, length: int = 1024, dtype: str = "bfloat16"):
    """Six layers with a vocabulary of 4,096, on one chip."""
    heads, mlp = max(1, width // head_dim), (width * 11 // 4 + 63) // 64 * 64
    sizes = {"embed": width, "layers": 6, "heads": heads, "kv_heads": heads, "head_dim": head_dim, "mlp": mlp}
    sizes |= {"max_positions": 2048, "compute_dtype": dtype}
    return case("tiny-0.6m", "v5e:1x1", rows, length, sizes=sizes, remat=remat)


_NARROW = {  # by width and head_dim: remat and rows
    (256, 64): (("none", 42), ("dots", 260), ("minimal", 245), ("full", 858)),
    (512, 64): (("none", 20), ("dots", 122), ("minimal", 122)),
    (512, 128): (("none", 40), ("dots", 40)),
    (1024, 64): (("none", 9), ("none", 22), ("dots", 57), ("minimal", 54)),
    (2048, 64): (("none", 3), ("dots", 18), ("minimal", 17)),
}
NARROW = (
    *(narrow(*size, remat, rows) for size, cases in _NARROW.items() for remat, rows in cases),
    narrow(256, 64, "none", 394, 256),
    narrow(256, 64, "none", 137, 256, "float32"),
    narrow(512, 64, "minimal", 36, 1024, "float32"),
)


LORA, QLORA = "coit-lora_llama3.2-1b_zho_v5e-1.yaml", "coit-qlora_llama2-7b_zho_v5e-1.yaml"
_8B = "model.path=meta-llama/Meta-Llama-3-8B"
_ALL = "model.lora.targets=[q,k,v,o,gate,up,down,embed,head]"
ADAPTERS = (
    Recipe(LORA, "v5e:1x1", ""),
    Recipe(LORA, "v5e:1x1", f"model.lora.dora=true {_ALL}"),
    Recipe(LORA, "v6e:1x1", ""),
    Recipe(QLORA, "v5e:1x1", ""),
    Recipe(QLORA, "v5e:1x1", "model.lora.base=int8"),
    Recipe(QLORA, "v5e:1x1", "model.lora.base=bfloat16 train.remat=full"),
    Recipe(QLORA, "v5e:1x1", _8B),
    Recipe(QLORA, "v6e:1x1", _8B),
    Recipe(QLORA, "v5e:2x4", "train.micro_batch_rows=16"),
    Recipe(QLORA, "v5e:2x4", "model.lora.base=bfloat16 train.micro_batch_rows=16"),
)


def main() -> None:
    """Compile, compare, print a table; the exit code tells whether all are near enough."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", type=int, help="number of one case, from 1")
    parser.add_argument("--narrow", action="store_true", help="narrow models on one chip instead")
    parser.add_argument("--adapters", action="store_true", help="adapters beside a frozen base instead")
    given = parser.parse_args()
    choose_platform()
    cases = enumerate(ADAPTERS if given.adapters else NARROW if given.narrow else CASES, start=1)
    rows = [measured(found) for place, found in cases if given.only in (None, place)]
    print("| model | topology | rows × tokens | remat, and more | arithmetic, GiB | compiler, GiB | ratio |")
    print("|---|---|---|---|---|---|---|")
    for told, arithmetic, compiler in rows:
        figures = f"{arithmetic / GIB:.2f} | {compiler / GIB:.2f} | {arithmetic / compiler:.3f}"
        print(f"| {' | '.join(told)} | {figures} |")
    worst = max(abs(arithmetic / compiler - 1) for _, arithmetic, compiler in rows)
    print(f"\nworst: {100 * worst:.1f} %; allowed: {100 * ALLOWED:.0f} %")
    sys.exit(worst > ALLOWED)


def measured(found: Case | Recipe) -> tuple[tuple[str, ...], int, int]:
    """What the case is called, its bytes by arithmetic and by the compiler."""
    # JAX reads its environment when it is imported.
    from jaxlingua.plan import program, store
    from jaxlingua.plan.topology import topology_of
    from jaxlingua.sharding.memory import step_memory

    config = found.config()
    topology = topology_of(found.topology)
    lowered = program.lower_step(config, topology)
    key = store.key_of(lowered.lowered.as_text(), program.identity(lowered, topology))
    compiled = store.load(store.store_folder(), key).compiled
    if compiled is None:
        told = " ".join(found.describe())
        compiled = program.told_while(say, told, lambda: program.compile_step(lowered.lowered))
        store.save(store.store_folder(), key, compiled)
    memory = step_memory(
        lowered.state, lowered.sizes, lowered.mesh, batch_rows=config.train.batch_rows,
        micro_batches=lowered.micro_batches, row_length_tokens=config.tokens.row_length_tokens,
        loss_chunk_tokens=config.train.loss_chunk_tokens,
    )  # fmt: skip
    return found.describe(), memory.total, compiled.peak


def say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
