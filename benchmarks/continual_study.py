"""What each means against forgetting does: three languages learned from nothing, one after the other.

    python benchmarks/continual_study.py FOLDER_OF_DATA [RUNS_FOLDER] [--cores 2 3]

A model learns to translate English captions into German, then others into French (Multi30k), then everyday
sentences into Turkish (Tatoeba). German is learned once for each seed; every arm begins as a copy of that run
and adds the other two stages, so that arms of one seed differ in nothing but what is compared. The joint arm
has all three at once, in as many steps and with as many documents of each. All are ordinary runs of
`python -m jaxlingua.train`, of one thread each; one that is finished in RUNS_FOLDER is not run again. Weights
of anchors are chosen on the first seed after French, by the loss on captions that nothing else is told of.

The outcome is the loss on test sentences in nats per target token, after each stage and for all three
languages. Its floor is the same with every English sentence put before another one's translation.
"""

import argparse
import json
import math
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

import yaml
from scipy.optimize import brentq
from scipy.stats import nct, t
from train_cpu import cpu_model

# One thread per run, and an allocator that keeps its pages (RESULTS.md, "A training step on a CPU").
SURROUNDINGS = {
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "OMP_NUM_THREADS": "1",
    "GLIBC_TUNABLES": "glibc.malloc.arena_max=1:glibc.malloc.mmap_max=0:"
    "glibc.malloc.trim_threshold=17179869184",
}
DIRECTIONS = {"german": "eng_Latn-deu_Latn", "french": "eng_Latn-fra_Latn", "turkish": "eng_Latn-tur_Latn"}
STAGES = tuple(DIRECTIONS)
OWN = {
    "german": {"source": "captions", "limit": 14000},
    "french": {"source": "captions", "start": 14000, "limit": 14000},
    "turkish": {"source": "everyday"},
}
TESTS = {"german": "captions_test", "french": "captions_test", "turkish": "everyday_test"}
GRID = {"l2_sp": (0.0001, 0.001, 0.01, 0.1), "ewc": (10.0, 100.0, 1000.0), "kl": (0.3, 1.0, 3.0)}
NAIVE, AVERAGING, JOINT, BASE, PIECES = "naive", "averaging", "joint", "base", "pieces"
ARMS: dict[str, dict[str, Any]] = {
    NAIVE: {},
    **{f"replay {share} %": {"replay": share / 100} for share in (1, 5, 10, 25)},
    AVERAGING: {"average": "auto"},
}
BOTH = "replay 10 % with ewc 10"
ARMS[BOTH] = {"replay": 0.1, "anchor": {"ewc": 10.0}}
ASKED = "replay 10 %"  # does it remove half of what is forgotten?
ALPHA, POWER = 0.05, 0.8


class Sizes(NamedTuple):
    """The model, the lengths, and how much is measured."""

    preset: str = "tiny-0.6m"
    layers: int = 2
    vocab: int = 1536
    row_length: int = 128
    batch_rows: int = 8
    steps: Mapping[str, int] = {"german": 600, "french": 300, "turkish": 300}
    warmup_steps: int = 30
    tests: Mapping[str, int] = {"german": 500, "french": 500, "turkish": 1000}
    items: int = 64
    seeds: tuple[int, ...] = (0, 1, 2)


TINY = Sizes(
    "tiny-test", 2, 320, 128, 2, dict.fromkeys(STAGES, 8), 2, dict.fromkeys(STAGES, 8), items=2, seeds=(0, 1)
)


# ── runs ────────────────────────────────────────────────────────────────────────────────────────────────────


class Study:
    """The runs of one folder: configured, trained, measured."""

    def __init__(self, data: Path, runs: Path, sizes: Sizes, cores: Sequence[int]):
        self.data, self.runs, self.sizes = data.resolve(), runs.resolve(), sizes
        self.runs.mkdir(parents=True, exist_ok=True)
        self.cores: queue.Queue[int] = queue.Queue()
        for core in cores:
            self.cores.put(core)
        self.pool = ThreadPoolExecutor(len(cores))
        self.writing = threading.Lock()

    def configuration(
        self, stages: list[dict[str, Any]], *, seed: int = 0, sources: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """What all runs share, with these stages."""
        sizes = self.sizes
        captions = {
            "kind": "parallel",
            "languages": ["eng_Latn", "deu_Latn", "fra_Latn"],
            "columns": {"eng_Latn": "en", "deu_Latn": "de", "fra_Latn": "fr"},
        }
        everyday = {
            "kind": "parallel",
            "languages": ["eng_Latn", "tur_Latn"],
            "columns": {"eng_Latn": "src", "tur_Latn": "tgt"},
        }
        tests = {"held_out_records": 0}
        return {
            "run": {"seed": seed, "platform": "cpu"},
            "model": {"preset": sizes.preset, "layers": sizes.layers, "compute_dtype": "float32"},
            "data": {
                "folder": str(self.data),
                "template": "short",
                "leaks": "drop",
                "sources": {
                    "captions": captions | {"path": "multi30k/train.jsonl"},
                    "captions_choice": captions | {"path": "multi30k/val.jsonl"} | tests,
                    "captions_test": captions | {"path": "multi30k/test_2016_flickr.jsonl"} | tests,
                    "captions_mismatched": captions | {"path": str(self.runs / "captions.jsonl")} | tests,
                    "everyday": everyday | {"path": "tatoeba/large/tur.jsonl"},
                    "everyday_test": everyday | {"path": "tatoeba/v1/tur.jsonl"} | tests,
                    "everyday_mismatched": everyday | {"path": str(self.runs / "everyday.jsonl")} | tests,
                },
            },
            "tokens": {
                "path": str(self.runs / PIECES / "tokenizer"),
                "row_length_tokens": sizes.row_length,
                "cache_folder": str(self.runs / "tokens"),
            },
            "stages": stages,
            "train": {
                "batch_rows": sizes.batch_rows,
                "remat": "none",
                "optimizer": {
                    "peak_lr": 3.0e-3,
                    "schedule": "wsd",
                    "decay_ratio": 0.3,
                    "warmup_steps": sizes.warmup_steps,
                    "beta2": 0.99,
                    "weight_decay": 0.1,
                },
            },
            "checkpoint": {"save_every_steps": 100_000},
            "generate": {"max_new_tokens": 48},
            "eval": {
                "tasks": [f"{TESTS[stage]}.{direction}" for stage, direction in DIRECTIONS.items()],
                "items": sizes.items,
                "base_model": False,
                "bootstrap_samples": 200,
            },
            "tracking": {"log_every_steps": 25, "tensorboard": False},
        }

    def train(self, name: str, config: dict[str, Any], *, branch_from: str = "") -> None:
        """One run of the product on the next free core; its CPU seconds go to cpu_seconds.jsonl."""
        folder = self.runs / name
        if (folder / "report.json").is_file():
            return
        config["run"]["folder"] = str(folder)
        if branch_from:
            config["run"]["branch_from"] = str(self.runs / branch_from)
        path = self.runs / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config, sort_keys=False), "utf-8")
        core = self.cores.get()
        try:
            begin = time.perf_counter()
            with (self.runs / f"{name}.log").open("a", encoding="utf-8") as log:
                process = subprocess.Popen(
                    [sys.executable, "-m", "jaxlingua.train", str(path)], stdout=log, stderr=log
                )
                os.sched_setaffinity(process.pid, {core})  # what it starts is on the same core
                _, status, used = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            self.cores.put(core)
        self.note(name, used.ru_utime + used.ru_stime, time.perf_counter() - begin)
        if process.returncode:
            raise SystemExit(f"{name}: ended with {process.returncode}; see {self.runs / name}.log")

    def note(self, name: str, cpu: float, wall: float) -> None:
        """CPU seconds of a run, or of a part of one that was interrupted."""
        with self.writing, (self.runs / "cpu_seconds.jsonl").open("a") as file:
            print(json.dumps({"run": name, "cpu": round(cpu, 1), "wall": round(wall, 1)}), file=file)
        print(f"{name}: {cpu:.0f} CPU seconds, {wall:.0f} s", file=sys.stderr, flush=True)

    def cpu_minutes(self) -> dict[str, float]:
        """By run."""
        minutes: dict[str, float] = {}
        for line in (self.runs / "cpu_seconds.jsonl").open():
            one = json.loads(line)
            minutes[one["run"]] = minutes.get(one["run"], 0.0) + one["cpu"] / 60
        return minutes

    def all_of(self, jobs: Sequence[Callable[[], None]]) -> None:
        """Several runs, as many at a time as there are cores. Raises: what the first of them raised."""
        for done in [self.pool.submit(job) for job in jobs]:
            done.result()

    def stage(self, name: str, **how: Any) -> dict[str, Any]:
        """One stage of an arm."""
        entry = OWN[name] | {"direction": DIRECTIONS[name]}
        return {"name": name, "mixture": {name: entry}, "steps": self.sizes.steps[name], **how}

    def pieces(self) -> None:
        """One step on all three languages: the tokenizer of all runs."""
        mixture = {name: OWN[name] | {"direction": DIRECTIONS[name]} for name in STAGES}
        config = self.configuration([{"name": PIECES, "mixture": mixture, "steps": 1}])
        config["tokens"] |= {"path": "", "vocab_size": self.sizes.vocab}
        config["train"]["optimizer"] |= {"schedule": "constant", "warmup_steps": 0}
        config["eval"]["tasks"] = []
        self.train(PIECES, config)

    def base(self, seed: int) -> None:
        """German alone."""
        self.train(f"{BASE}-{seed}", self.configuration([self.stage("german")], seed=seed))

    def arm(self, arm: str, seed: int, how: Mapping[str, Any], *, up_to: int = 3, begin: str = BASE) -> None:
        """The later stages, each learned in this way, after the run that they begin as a copy of."""
        stages = [self.stage(name, **(how if place else {})) for place, name in enumerate(STAGES[:up_to])]
        config = self.configuration(stages, seed=seed)
        self.train(run_name(arm, seed), config, branch_from=run_name(begin, seed))

    def joint(self) -> None:
        """All languages at once: as many steps, and as many documents of each as the naive run saw."""
        told = json.loads((self.runs / run_name(NAIVE, 0) / "data.json").read_text("utf-8"))
        mixture = {}
        for told_stage in told["stages"]:
            name = told_stage["name"]
            seen = sum(row["documents seen"] for row in told_stage["mixture"])
            mixture[name] = OWN[name] | {"direction": DIRECTIONS[name], "weight": seen}
        steps = sum(self.sizes.steps.values())
        stages = [{"name": JOINT, "mixture": mixture, "steps": steps}]
        self.train(run_name(JOINT, 0), self.configuration(stages))

    # ── losses ──────────────────────────────────────────────────────────────────────────────────────────────

    def end(self, stage: str) -> int:
        """The step at which a stage of an arm ends."""
        return sum(self.sizes.steps[name] for name in STAGES[: STAGES.index(stage) + 1])

    def losses(self, run: str, step: int, kind: str = "test") -> dict[str, float]:
        """Nats per target token by language; measured once and kept in losses.json."""
        kept = self.runs / "losses.json"
        known = json.loads(kept.read_text()) if kept.is_file() else {}
        key = f"{run} {step} {kind}"
        if key not in known:
            begin, cpu = time.perf_counter(), time.process_time()
            known[key] = self.measure(run, step, kind)
            kept.write_text(json.dumps(known, indent=1))
            self.note("measuring", time.process_time() - cpu, time.perf_counter() - begin)
        return {name: told["loss"] for name, told in known[key].items()}

    def measure(self, run: str, step: int, kind: str) -> dict[str, dict[str, float]]:
        """Held-out loss of one checkpoint as `jaxlingua.train.held_out` measures it."""
        import jax

        from jaxlingua.command_line import load_config
        from jaxlingua.progress import told
        from jaxlingua.sharding.mesh import make_mesh
        from jaxlingua.tokens import stages as flow
        from jaxlingua.tokens.batches import one_pass
        from jaxlingua.tokens.documents import tokenize
        from jaxlingua.train.held_out import make_held_out
        from jaxlingua.train.objective import Objective
        from jaxlingua.train.open_model import open_step

        config = load_config(str(self.runs / run))
        mesh = make_mesh(config.sharding)
        opened = open_step(config, self.runs / run, step, mesh, lambda what: told(lambda line: None, what))
        mixture = {
            name: {
                "source": TESTS[name].replace("test", kind),
                "direction": DIRECTIONS[name],
                "limit": self.sizes.tests[name],
            }
            for name in (STAGES[:2] if kind == "choice" else STAGES)
        }
        path = self.runs / f"{kind}.yaml"
        asked = self.configuration([{"name": kind, "mixture": mixture, "epochs": 1}])
        asked["eval"]["tasks"] = []
        path.write_text(yaml.safe_dump(asked), "utf-8")
        asked = load_config(str(path))
        [examples], _ = flow.make_examples(asked, flow.open_sources(asked), {})
        length = self.sizes.row_length
        documents = {
            name: tokenize(each, opened.tokenizer, row_length_tokens=length)
            for name, each in examples.by_entry.items()
        }
        held_out = make_held_out(
            one_pass(documents, row_length_tokens=length, batch_rows=4 * self.sizes.batch_rows),
            opened.model,
            Objective(opened.tokenizer.vocab_size, len(documents), config.train.loss_chunk_tokens),
            jax.tree.map(lambda leaf: leaf.sharding, opened.params),
        )
        found = held_out.tell(jax.device_get(held_out.measure(opened.params)))
        return {
            entry: {"loss": one.loss, "bits_per_byte": one.bits_per_byte, "tokens": one.target_tokens}
            for (entry, _), one in found.items()
        }

    def write_mismatched(self) -> None:
        """The tests with each English sentence before the translation of the one that follows it."""
        for name, path, column in (
            ("captions", "multi30k/test_2016_flickr.jsonl", "en"),
            ("everyday", "tatoeba/v1/tur.jsonl", "src"),
        ):
            rows = [json.loads(line) for line in (self.data / path).open(encoding="utf-8")]
            english = [row[column] for row in rows]
            moved = zip(rows, [*english[1:], english[0]], strict=True)
            with (self.runs / f"{name}.jsonl").open("w", encoding="utf-8") as file:
                for row, other in moved:
                    print(json.dumps(row | {column: other}, ensure_ascii=False), file=file)

    def matrix(self, arm: str, seed: int) -> dict[str, dict[str, float]]:
        """Losses by language after each stage; of the joint arm at its end alone."""
        if arm == JOINT:
            return {STAGES[-1]: self.losses(run_name(JOINT, seed), self.end(STAGES[-1]))}
        run = run_name(arm, seed)
        german = self.losses(run_name(BASE, seed), self.end("german"))
        return {"german": german} | {name: self.losses(run, self.end(name)) for name in STAGES[1:]}

    def chosen_weight(self, kind: str) -> float:
        """Of the grid, the weight with the lowest mean loss on German and French after French."""
        step = self.end("french")
        return min(
            GRID[kind],
            key=lambda weight: mean(self.losses(run_name(tried(kind, weight), 0), step, "choice").values()),
        )


def run_name(arm: str, seed: int) -> str:
    """The folder of a run."""
    return f"{arm.replace(' %', '').replace(' ', '-')}-{seed}"


def tried(kind: str, weight: float) -> str:
    """The run of the grid that goes as far as French."""
    return f"{kind} {weight:g}"


# ── figures ─────────────────────────────────────────────────────────────────────────────────────────────────


def forgetting(matrix: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Nats per target token that each earlier language lost since it was learned."""
    return {name: matrix[STAGES[-1]][name] - matrix[name][name] for name in STAGES[:-1]}


def smallest_effect(deviation: float, seeds: int, freedom: int) -> float:
    """The difference of two means of `seeds` runs that a two-sided t-test finds with probability POWER.

    `freedom` is that of the deviation, which may come from other arms than these two.
    """
    critical = t.ppf(1 - ALPHA / 2, freedom)

    def missing(shift: float) -> float:
        found = 1 - nct.cdf(critical, freedom, shift) + nct.cdf(-critical, freedom, shift)
        return found - POWER

    return brentq(missing, 1, 8) * deviation * math.sqrt(2 / seeds)


def pooled_deviation(groups: Sequence[Sequence[float]]) -> float:
    """Within groups of as many runs each."""
    return math.sqrt(mean(stdev(group) ** 2 for group in groups))


def said(values: Sequence[float], digits: int = 3) -> str:
    """A mean, with its standard deviation over seeds where there are several."""
    spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{spread}"


def memory_gib(folder: Path) -> float:
    """The most that the process of a run held."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
    return max(line["host_memory_gib"] for line in lines if "host_memory_gib" in line)


def scored(folder: Path, evaluation: str, metric: str) -> list[float]:
    """Of the translations that were generated in `evals/EVALUATION`, by language."""
    told = json.loads((folder / "evals" / evaluation / "scores.json").read_text("utf-8"))["scores"]
    found = {one["task"]: one["value"] for one in told if one["metric"] == metric}
    return [found[f"{TESTS[name]}.{DIRECTIONS[name]}"] for name in STAGES]


def tell(study: Study, arms: Mapping[str, Sequence[int]], chosen: Mapping[str, float]) -> None:
    """All tables, as Markdown."""
    matrices = {(arm, seed): study.matrix(arm, seed) for arm, seeds in arms.items() for seed in seeds}
    tell_floors(study)
    print("\n| loss, seed 0: after | German | French | Turkish |\n|---|---|---|---|")
    for arm in (NAIVE, ASKED):
        for stage, row in matrices[arm, 0].items():
            print(f"| {arm}: {stage.capitalize()} | {' | '.join(f'{row[name]:.3f}' for name in STAGES)} |")
    minutes = study.cpu_minutes()
    last, end = STAGES[-1], study.end(STAGES[-1])
    print(
        "\n| arm | seeds | mean loss of all three at the end | German: learned → end | French: learned → end "
        "| Turkish | from naive to joint | forgetting | removed of the naive run's | chrF++ de, fr, tr "
        "| % in another language | GiB |\n"
        "|---|---|---|---|---|---|---|---|---|---|---|---|"
    )
    lost = {key: mean(forgetting(matrix).values()) for key, matrix in matrices.items() if key[0] != JOINT}
    finals = {key: mean(matrix[last].values()) for key, matrix in matrices.items()}
    for arm, seeds in arms.items():
        own = [matrices[arm, seed] for seed in seeds]
        folder = study.runs / run_name(arm, 0)
        cells = [arm + (f" {chosen[arm]:g}" if arm in chosen else ""), str(len(seeds))]
        cells.append(said([finals[arm, seed] for seed in seeds]))
        for name in STAGES[:-1]:
            before = "" if arm == JOINT else f"{mean(one[name][name] for one in own):.3f} → "
            cells.append(f"{before}{mean(one[last][name] for one in own):.3f}")
        cells.append(said([one[last][last] for one in own]))
        closed = (finals[NAIVE, 0] - finals[arm, 0]) / (finals[NAIVE, 0] - finals[JOINT, 0])
        cells.append(f"{closed:.0%}")
        if arm == JOINT:
            cells += ["", ""]
        else:
            cells.append(said([lost[arm, seed] for seed in seeds]))
            removed = [100 * (1 - lost[arm, seed] / lost[NAIVE, seed]) for seed in seeds]
            cells.append("0" if arm == NAIVE else f"{said(removed, 1)} %")
        stage = JOINT if arm == JOINT else last
        for metric, digits in (("chrf++", 1), ("off_target", 0)):
            values = scored(folder, f"{stage}-{end}", metric)
            cells.append(", ".join(f"{value:.{digits}f}" for value in values))
        cells.append(f"{memory_gib(folder):.2f}")
        print(f"| {' | '.join(cells)} |")
    several = [arm for arm, seeds in arms.items() if len(seeds) == len(study.sizes.seeds)]
    print()
    for what, values in (("mean loss at the end", finals), ("forgetting", lost)):
        deviation = pooled_deviation([[values[arm, seed] for seed in arms[arm]] for arm in several])
        seeds = len(study.sizes.seeds)
        by_several, by_one = (
            smallest_effect(deviation, runs, len(several) * (seeds - 1)) for runs in (seeds, 1)
        )
        print(
            f"- {what}: standard deviation over seeds {deviation:.3f} nats (pooled, {len(several)} arms); "
            f"smallest difference that a two-sided t-test would find (α {ALPHA}, power {POWER}): "
            f"{by_several:.2f} nats between arms of {seeds} seeds, {by_one:.2f} between arms of one"
        )
    for kind in GRID:
        found = {
            f"{weight:g}": mean(
                study.losses(run_name(tried(kind, weight), 0), study.end("french"), "choice").values()
            )
            for weight in GRID[kind]
        }
        told = ", ".join(f"{weight}: {loss:.3f}" for weight, loss in found.items())
        print(f"- {kind} tried, mean choice loss of German and French after French: {told}")
    for line in (study.runs / run_name(AVERAGING, 0)).with_suffix(".log").read_text("utf-8").splitlines():
        if "in the average" in line:
            print(f"- {AVERAGING}: {line}")
    removed = [1 - lost[ASKED, seed] / lost[NAIVE, seed] for seed in arms[ASKED]]
    answer = "yes" if min(removed) >= 0.5 else "not in every seed" if mean(removed) >= 0.5 else "no"
    print(
        f"- Does {ASKED} remove at least half of the naive run's forgetting? {answer}: "
        f"{', '.join(f'{share:.0%}' for share in removed)}"
    )
    print(f"- {cpu_model()}; {sum(minutes.values()):.1f} CPU minutes in all, measuring and the grid included")


def tell_floors(study: Study) -> None:
    """Each language when it was just learned, with its own source and with another one's."""
    print(
        "| naive, seed 0, just learned | loss | with another source | tokens | bits per byte | chrF++ "
        "| English copied |\n|---|---|---|---|---|---|---|"
    )
    copied = scored(study.runs / run_name(NAIVE, 0), "floors-0", "chrf++")
    for place, name in enumerate(STAGES):
        run = run_name(BASE if name == "german" else NAIVE, 0)
        study.losses(run, study.end(name))
        study.losses(run, study.end(name), "mismatched")
        kept = json.loads((study.runs / "losses.json").read_text())
        found = scored(study.runs / run, f"{name}-{study.end(name)}", "chrf++")
        own, other = (kept[f"{run} {study.end(name)} {kind}"][name] for kind in ("test", "mismatched"))
        print(
            f"| {name.capitalize()} | {own['loss']:.3f} | {other['loss']:.3f} | {own['tokens']:,} | "
            f"{own['bits_per_byte']:.3f} | {found[place]:.1f} | {copied[place]:.1f} |"
        )


def main() -> None:
    """Train, choose, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("runs", type=Path, nargs="?", default=Path("runs/continual_study"))
    parser.add_argument("--cores", type=int, nargs="+", default=sorted(os.sched_getaffinity(0)))
    parser.add_argument("--tiny", action="store_true", help="a few steps, which show nothing")
    given = parser.parse_args()
    os.environ |= SURROUNDINGS
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(given.runs.resolve() / "compiled")
    study = Study(given.data, given.runs, TINY if given.tiny else Sizes(), given.cores)
    seeds = study.sizes.seeds
    study.write_mismatched()
    study.pieces()
    study.all_of([lambda seed=seed: study.base(seed) for seed in seeds])
    grid = [(kind, weight) for kind, weights in GRID.items() for weight in weights]
    study.all_of(
        [lambda arm=arm: study.arm(arm, 0, ARMS[arm]) for arm in ARMS]
        + [
            lambda kind=kind, weight=weight: study.arm(
                tried(kind, weight), 0, {"anchor": {kind: weight}}, up_to=2
            )
            for kind, weight in grid
        ]
    )
    os.sched_setaffinity(0, {given.cores[0]})
    chosen = {kind: study.chosen_weight(kind) for kind in GRID}
    anchored = {kind: {"anchor": {kind: weight}} for kind, weight in chosen.items()}
    hows = ARMS | anchored
    study.all_of(
        [
            lambda kind=kind: study.arm(kind, 0, anchored[kind], begin=tried(kind, chosen[kind]))
            for kind in GRID
        ]
        + [study.joint]
        + [lambda seed=seed: study.arm(NAIVE, seed, {}) for seed in seeds[1:]]
    )
    finals = {arm: mean(study.matrix(arm, 0)[STAGES[-1]].values()) for arm in hows}
    best = sorted((arm for arm in hows if arm not in (NAIVE, BOTH)), key=finals.get)[:2]
    several = [NAIVE, *dict.fromkeys([*best, ASKED])]
    study.all_of(
        [lambda arm=arm, seed=seed: study.arm(arm, seed, hows[arm]) for seed in seeds[1:] for arm in several]
    )
    arms = {arm: seeds if arm in several else seeds[:1] for arm in hows} | {JOINT: seeds[:1]}
    tell(study, arms, chosen)


if __name__ == "__main__":
    main()
