"""LLaMA-2 7B's step on 64 TPU v5e chips, planned without one, beside the steps of other trainers.

    python benchmarks/tpu_plan.py [--estimator ../shared/tools/tpu_cost.py] [--folder FOLDER]

The headline's configuration and variants of it are compiled by `python -m jaxlingua.plan`, which dumps the
scheduled program. Seconds, MFU (6N) and exposed collectives are what tpu_cost.py, a script that is not ours,
says of that text; memory is the compiler's. The rows of others stand in PEERS. They were made with the same
script and compiler and are not compiled here. All times are estimates.

Exit code 1 when the headline misses one of BOUNDS. A compilation takes 1 to 4 minutes; plan keeps its result.
"""

import argparse
import hashlib
import json
import math
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
CONFIG = "configs/coit_llama2-7b_zho_v5e-64.yaml"
CHIP, SHAPE = "v5e", "8x8"
PEAK_TFLOPS = 197.0  # of a chip, dense bf16
EMBED, VOCABULARY = 4096, 32_000
LOGITS_PRODUCT = "dv->scv"  # of hidden states and head, as jaxlingua/train/objective.py writes it

# What is compiled: its name in the table, and what is changed of CONFIG.
VARIANTS: dict[str, tuple[str, ...]] = {
    "headline: remat minimal": (),
    "remat save_mlp": ("train.remat=save_mlp",),
    "remat save_qkv": ("train.remat=save_qkv",),
    "remat save_attention": ("train.remat=save_attention",),
    "remat full": ("train.remat=full",),
    "minimal, no barriers": ("train.barriers=false",),
    "minimal, no compiler options": ("train.compiler_options={}",),
    "minimal, neither": ("train.barriers=false", "train.compiler_options={}"),
    "minimal, logits of all a chip's tokens at once": ("train.loss_chunk_tokens=4096",),
}


class Row(NamedTuple):
    """One step: GiB per chip at its fullest, exposed collectives, and seconds in both readings."""

    peak_gib: float
    exposed_seconds: float
    cal_seconds: float
    xla_seconds: float


# LLaMA-2 7B, v5e:8x8, 128 rows of 2,048, AdamW with state in float32 (tunix: in bfloat16, but for the first
# moment); jax 0.10.2, libtpu 0.0.51. From a table that was made with the same tpu_cost.py.
PEERS = {
    "AI-Hypercomputer/maxtext, tuned by hand": Row(13.94, 0.131, 1.475, 1.610),
    "AI-Hypercomputer/maxtext, remat of its v5e 7B recipe": Row(6.70, 0.324, 1.731, 1.859),
    "AI-Hypercomputer/maxtext, default": Row(3.93, 0.316, 1.827, 1.971),
    "stanford-crfm/levanter, default": Row(3.77, 0.316, 1.820, 1.975),
    "google/tunix, remat DECODER": Row(3.39, 0.302, 2.160, 2.312),
    "young-geng/EasyLM, scan_attention + scan_mlp": Row(7.13, 0.655, 2.936, 4.110),
}
BEST_PEER = next(iter(PEERS))


class Bounds(NamedTuple):
    """What the headline has to keep."""

    peak_gib: float = 15.75
    exposed_seconds: float = 0.19
    cal_mfu: float = 0.60
    xla_mfu: float = 0.52


BOUNDS = Bounds()


# ── one program ────────────────────────────────────────────────────────────────────────────────────────────


def plan(overrides: tuple[str, ...], dump: Path) -> dict[str, Any]:
    """What plan tells of the configuration with `overrides`; the program's text goes to `dump`."""
    command = ["jaxlingua.plan", CONFIG, "--topology", f"{CHIP}:{SHAPE}", "--json", "--dump", str(dump)]
    done = subprocess.run(
        [sys.executable, "-m", *command, *overrides], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    if not done.stdout:
        sys.exit(f"error: python -m {' '.join([*command, *overrides])} ended with {done.returncode}")
    return json.loads(done.stdout)


def estimate(estimator: Path, dump: Path, told: dict[str, Any]) -> Row:
    """What tpu_cost.py says of a dumped program."""
    done = subprocess.run(
        [
            *(sys.executable, str(estimator), str(dump), "--json", "--chip", CHIP, "--topology", SHAPE),
            *("--params", str(told["parameters"]), "--tokens", str(step_tokens(told))),
        ],
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    summary = json.loads(done.stdout)
    return Row(told["peak_hbm_gib"], summary["exposed_s"], summary["total_s"], summary["total_xla_s"])


def step_tokens(told: dict[str, Any]) -> int:
    return told["batch_rows"] * told["row_length_tokens"]


def mfu(seconds: float, told: dict[str, Any]) -> float:
    """6N per token, over the peak of all chips."""
    chips = told["topology"]["chips"]
    return 6 * told["parameters"] * step_tokens(told) / (chips * PEAK_TFLOPS * 1e12 * seconds)


# ── what the text of a program shows ───────────────────────────────────────────────────────────────────────

_ARRAY = re.compile(r"\b(pred|bf16|[fsu]\d+)\[([\d,]*)\]")


def largest_logits(text: str) -> int:
    """Elements of the largest array with an axis as long as the vocabulary, the head and its gradient aside.

    Logits of as many tokens as the model is wide would have the head's shape: what comes of the product
    that makes them counts in any case.
    """
    made = re.findall(rf"^\s*(?:ROOT )?%?\S+ = (.*?) [\w\-]+\(.*{LOGITS_PRODUCT}", text, re.MULTILINE)
    head = {EMBED, VOCABULARY}
    others = [one for one in _axes(text) if {*one} - {1} != head]
    return max((math.prod(one) for one in [*_axes(" ".join(made)), *others] if VOCABULARY in one), default=0)


def _axes(text: str) -> set[tuple[int, ...]]:
    """Shapes of all arrays that are named."""
    return {tuple(int(n) for n in dims.split(",")) for _, dims in _ARRAY.findall(text) if dims}


def gathered_types(text: str) -> dict[str, int]:
    """How many arrays of each type are gathered over chips, those that one operation gathers together too."""
    gathers = re.findall(r"^\s*(?:ROOT )?%?\S+ = (.*?) all-gather(?:-start)?\(", text, re.MULTILINE)
    return dict(Counter(kind for results in gathers for kind, _ in _ARRAY.findall(results)))


# ── checks and tables ──────────────────────────────────────────────────────────────────────────────────────


def checks(row: Row, told: dict[str, Any], text: str, bounds: Bounds = BOUNDS) -> Iterator[tuple[str, bool]]:
    """Each claim with its figures, and whether it holds."""
    own, largest = step_tokens(told) // told["topology"]["chips"] * VOCABULARY, largest_logits(text)
    gathers = gathered_types(text)
    cal, xla = mfu(row.cal_seconds, told), mfu(row.xla_seconds, told)
    yield (
        f"peak {row.peak_gib:.2f} GiB per chip, under {bounds.peak_gib}",
        told["fits"] and row.peak_gib < bounds.peak_gib,
    )
    yield (
        f"no buffer of batch x tokens x vocabulary, not even of a chip's own rows ({own:,} elements): the "
        f"largest array with a vocabulary axis has {largest:,}, the head and its gradient aside",
        0 < largest < own,
    )
    yield (
        f"weights are gathered in bfloat16: {', '.join(f'{n} arrays of {k}' for k, n in gathers.items())}",
        gathers.keys() == {"bf16"},
    )
    yield (
        f"exposed collectives {row.exposed_seconds:.3f} s, at most {bounds.exposed_seconds}",
        row.exposed_seconds <= bounds.exposed_seconds,
    )
    yield f"MFU (cal) {cal:.3f}, at least {bounds.cal_mfu:.2f}", cal >= bounds.cal_mfu
    yield f"MFU (xla) {xla:.3f}, at least {bounds.xla_mfu:.2f}", xla >= bounds.xla_mfu


def table(rows: dict[str, Row], told: dict[str, Any]) -> list[str]:
    """A line for each of ours, then one for each peer."""
    lines = [
        "| program | GiB per chip | exposed collectives | step, cal | step, xla | MFU, cal | MFU, xla |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in (rows | PEERS).items():
        readings = (row.cal_seconds, row.xla_seconds)
        seconds = " | ".join(f"{one:.3f} s" for one in readings)
        shares = " | ".join(f"{mfu(one, told):.3f}" for one in readings)
        lines.append(f"| {name} | {row.peak_gib:.2f} | {row.exposed_seconds:.3f} s | {seconds} | {shares} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--estimator", type=Path, default=ROOT.parent / "shared" / "tools" / "tpu_cost.py",
        help="the script that the peers' rows were made with",
    )  # fmt: skip
    parser.add_argument("--folder", type=Path, help="where dumped programs are kept; nowhere if absent")
    options = parser.parse_args()
    if not options.estimator.is_file():
        sys.exit(f"error: --estimator: there is no file '{options.estimator}'; give the path of tpu_cost.py")
    rows, programs = {}, {}
    with tempfile.TemporaryDirectory() as home:
        folder = options.folder or Path(home)
        folder.mkdir(parents=True, exist_ok=True)
        for place, (name, overrides) in enumerate(VARIANTS.items()):
            dump = folder / f"{place}.hlo"
            told = plan(overrides, dump)
            rows[name] = estimate(options.estimator, dump, told)
            programs[name] = told, dump.read_text("utf-8")
    headline = next(iter(VARIANTS))
    told, text = programs[headline]
    print("\n".join(table(rows, told)), "\n")
    results = list(checks(rows[headline], told, text))
    for claim, holds in results:
        print(f"- {'holds' if holds else 'MISSED'}: {claim}")
    best = PEERS[BEST_PEER]
    ahead = [theirs / ours - 1 for theirs, ours in zip(best[2:], rows[headline][2:], strict=True)]
    print(f"- ahead of {BEST_PEER}: {ahead[0]:+.1%} (cal), {ahead[1]:+.1%} (xla)")
    own = {reading: told["step_seconds"][reading] for reading in ("cal", "xla")}
    print(f"- plan's own estimate of the headline: {own['cal']:.3f} s (cal), {own['xla']:.3f} s (xla)")
    versions = ", ".join(f"{name} {version}" for name, version in told["versions"].items())
    digest = hashlib.sha256(options.estimator.read_bytes()).hexdigest()[:12]
    print(f"- {versions}; tpu_cost.py with sha256 {digest}…")
    sys.exit(0 if all(holds for _, holds in results) else 1)


if __name__ == "__main__":
    main()
