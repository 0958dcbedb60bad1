"""Laws of data size fitted on small runs, checked on larger ones; a split by them against an equal one.

    python benchmarks/scaling_study.py DATA FOLDER [--jobs 2] [--quick]

DATA holds multi30k/ (English, German, French captions) and tatoeba/large/tur.jsonl (English and Turkish
sentences of another kind, the distant language). A base of 0.7M parameters reads sentences of all four
languages by themselves, never side by side. From it `python -m jaxlingua.analysis sweep` trains runs of one
length over numbers of pairs and seeds, a sweep for each language; the length is such that a run on the most
pairs reads each about twice. `scaling` fits laws to the smaller sizes, and what they say of the largest is
compared with the runs that were left out, with the last size again and with a line. `allocate` splits a
budget by the laws of the loss, where a pair with Turkish costs three times as much, and three languages are
trained together with this split and with equal numbers of pairs, each with as many rows as a run of the sweep
has for one. `alignment` compares the base with the first of these. The similarity of languages is left out
of the laws: captions and Tatoeba's sentences are not of one kind. What is finished in FOLDER is not done
again. Prints Markdown.
"""

import argparse
import csv
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

LANGUAGES = ("deu_Latn", "fra_Latn", "tur_Latn")
METRICS = ("loss", "chrf++")  # of held-out pairs, and of answers; the split goes by the first
TASK = "translation"  # what the tests of all languages are called in the joined table
SMALL, LARGE, SEEDS = (50, 105, 220, 450, 930), 1900, (0, 1)
STEPS = 250  # of a run of the sweep
BUDGET, COST = 3000, "tur_Latn=3"
CAPTIONS = 8000  # that are read at all, of 29,000
# One thread per run, and an allocator that keeps its pages (RESULTS.md, "A training step on a CPU").
SURROUNDINGS = {
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false --xla_force_host_platform_device_count=1",
    "OMP_NUM_THREADS": "1",
    "GLIBC_TUNABLES": "glibc.malloc.arena_max=1:glibc.malloc.mmap_max=0:"
    "glibc.malloc.trim_threshold=17179869184",
}


def main() -> None:
    """Base, sweeps, laws, split, alignment."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="all of it with hardly any training")
    given = parser.parse_args()
    study = Study(given.data.resolve(), given.folder.resolve(), given.quick)
    study.folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    study.train_base()
    with ThreadPoolExecutor(given.jobs) as jobs:
        list(jobs.map(study.sweep, LANGUAGES))
    for metric in METRICS:
        study.fit(metric)
    splits = study.splits()
    with ThreadPoolExecutor(given.jobs) as jobs:
        runs = [(name, seed) for name in splits for seed in study.seeds]
        list(jobs.map(lambda one: study.train_together(*one, splits[one[0]]), runs))
    study.compare(splits)
    study.align()
    seconds = sum(map(int, (study.folder / "cpu_seconds").read_text("utf-8").split()))
    print(f"\n{seconds / 60:.0f} CPU min in all; this call took {(time.monotonic() - began) / 60:.0f} min")


@dataclass(frozen=True)
class Study:
    """What is trained and told, all below one folder."""

    data: Path
    folder: Path
    is_quick: bool

    @property
    def seeds(self) -> Sequence[int]:
        return SEEDS[:1] if self.is_quick else SEEDS

    def train_base(self) -> None:
        """Text of all languages, each sentence by itself."""
        with (self.data / "multi30k/train.jsonl").open(encoding="utf-8") as lines:
            captions = "".join(itertools.islice(lines, CAPTIONS))
        (self.folder / "captions.jsonl").write_text(captions, "utf-8")
        if not (self.folder / "base/report.json").is_file():
            self.run("jaxlingua.train", self.write("base", self.settings("base")))

    def sweep(self, language: str) -> None:
        """Runs of one language over sizes and seeds."""
        config = self.settings("unused") | {"eval": self.evaluation([language])}
        config["run"]["branch_from"] = str(self.folder / "base")
        config["stages"].append(self.stage({"pairs": pairs_of(language)}, 1))
        self.run(
            "jaxlingua.analysis", "sweep", self.write(f"sweep-{language}", config), "--languages", language,
            "--pairs", joined((*SMALL, LARGE)), "--seeds", joined(self.seeds),
            "--output", self.folder / f"sweep-{language}",
        )  # fmt: skip

    def fit(self, metric: str) -> None:
        """Laws of the smaller sizes, and the largest size beside what they say of it."""
        from jaxlingua.analysis.scaling.intervals import new_score_interval
        from jaxlingua.analysis.scaling.laws import read_laws

        rows = [row for language in LANGUAGES for row in self.scores(language, metric)]
        table, laws = self.folder / f"small-{metric}.csv", self.folder / f"laws-{metric}.json"
        with table.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(row for row in rows if 0 < int(row["pairs"]) < LARGE)
        print(f"\n### {metric}\n")
        told = self.run(
            "jaxlingua.analysis", "scaling", table, "--metric", metric, "--task", TASK, "--at", LARGE,
            "--output", laws, "--plot", laws.with_suffix(".png"),
        )  # fmt: skip
        print(told)
        fitted = read_laws(laws)
        sizes = " | ".join(f"{size:,}" for size in SMALL)
        print(f"| language | copied source | {sizes} | {LARGE:,} | law, 90 % for a new score ", end="")
        print("| last size | line in log n |")
        print("|---|" + "---|" * (len(SMALL) + 5))
        for language in LANGUAGES:
            own = [(int(row["pairs"]), float(row["value"])) for row in rows if row["language"] == language]
            mean = {size: np.mean([value for each, value in own if each == size]) for size in (*SMALL, LARGE)}
            known = np.array([(np.log(size), value) for size, value in own if 0 < size < LARGE])
            slope, level = np.polyfit(*known.T, 1)
            law = fitted.of[language]
            low, high = map(float, new_score_interval(law, LARGE))
            cells = [f"{value:.2f}" for value in mean.values()]
            cells += [f"{float(law.at(LARGE)):.2f} [{low:.2f}, {high:.2f}]", f"{mean[SMALL[-1]]:.2f}"]
            cells += [f"{level + slope * np.log(LARGE):.2f}"]
            print(
                f"| {language} | {self.floor(language) if metric != 'loss' else ''} | "
                + " | ".join(cells)
                + " |"
            )

    def scores(self, language: str, metric: str) -> list[dict[str, str]]:
        """A language's scores, under one name of the task and without similarity."""
        table = self.folder / f"sweep-{language}" / "table.csv"
        with table.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["metric"] == metric and int(row["pairs"])]
        rows = [row for row in rows if metric != "loss" or row["task"] == "pairs/*"]  # not of English text
        return [{**row, "task": TASK, "similarity": ""} for row in rows]

    def floor(self, language: str) -> str:
        """What the English sentence itself scores as its translation."""
        (run,) = (self.folder / f"sweep-{language}" / "runs").glob(f"{language}-{LARGE}-0")
        found = json.loads((run / "report.json").read_text("utf-8"))["scores"]
        wanted = ("floors", "copy_source", METRICS[1], *tasks_of([language]))
        names = ("stage", "model", "metric", "task")
        return next(f"{s['value']:.2f}" for s in found if tuple(s[name] for name in names) == wanted)

    def splits(self) -> dict[str, dict[str, int]]:
        """By name, the pairs of each language; what the laws expect of it is printed."""
        told = self.run(
            "jaxlingua.analysis", "allocate", self.folder / f"laws-{METRICS[0]}.json", "--budget", BUDGET,
            "--cost", COST, "--available", joined(f"{code}=7000" for code in LANGUAGES), "--format", "json",
        )  # fmt: skip
        facts = json.loads(told)
        uniform = next(one for one in facts["baselines"] if one["name"] == "uniform")
        print(f"\n### Split of {BUDGET:,}, a pair of Turkish costs 3\n\n{facts['summary']}\n")
        low, high = sorted((uniform["low"], uniform["high"]))
        print(f"Expected against the equal split: {uniform['better_by']:.4f} [{low:.4f}, {high:.4f}]\n")
        return {
            "law": {row["language"]: row["pairs"] for row in facts["languages"]},
            "equal": uniform["pairs"],
        }

    def train_together(self, name: str, seed: int, parts: Mapping[str, int]) -> None:
        """All languages, each with as many rows as it has in the sweep, of so many pairs."""
        home = f"{name}-{seed}"
        config = self.settings(home) | {"eval": self.evaluation(LANGUAGES)}
        config["run"] |= {"branch_from": str(self.folder / "base"), "seed": seed}
        entries = {
            code: pairs_of(code) | {"replay": {"records": parts[code], "seed": seed}} for code in parts
        }
        config["stages"].append(self.stage(entries, len(LANGUAGES)))
        if not (self.folder / home / "report.json").is_file():
            self.run("jaxlingua.train", self.write(home, config))

    def compare(self, splits: Mapping[str, Mapping[str, int]]) -> None:
        """What each split ended with."""
        print("| split | pairs | seed | metric | " + " | ".join(LANGUAGES) + " | mean |")
        print("|---|---|---|---|" + "---|" * (len(LANGUAGES) + 1))
        for name, parts in splits.items():
            for seed in self.seeds:
                for metric, values in outcome(self.folder / f"{name}-{seed}").items():
                    cells = " | ".join(f"{value:.2f}" for value in (*values, np.mean(values)))
                    pairs = ", ".join(str(parts[code]) for code in LANGUAGES)
                    print(f"| {name} | {pairs} | {seed} | {metric} | {cells} |")

    def align(self) -> None:
        """Representations of the base, and of the run with equal parts that began from it."""
        for tasks in (tasks_of(LANGUAGES[:2]), tasks_of(LANGUAGES[2:])):
            told = self.run(
                "jaxlingua.analysis", "alignment", self.folder / "equal-0", f"eval.tasks=[{joined(tasks)}]",
                "eval.steps=all", "eval.base_model=false",
                "--output", self.folder / f"alignment-{tasks[0].partition('.')[0]}",
            )  # fmt: skip
            print(f"\n### Alignment in {joined(tasks)}, before and after translation\n\n{told}")

    def settings(self, folder: str) -> dict[str, Any]:
        """The base, and what all runs have of it."""
        codes = ("eng_Latn", *LANGUAGES[:2])
        captions = {"kind": "parallel", "path": str(self.folder / "captions.jsonl"), "languages": list(codes)}
        captions["columns"] = {"eng_Latn": "en", "deu_Latn": "de", "fra_Latn": "fr"}
        tatoeba = {
            "kind": "parallel",
            "path": "tatoeba/large/tur.jsonl",
            "languages": ["eng_Latn", "tur_Latn"],
            "columns": {"eng_Latn": "src", "tur_Latn": "tgt"},
        }
        test = {**captions, "path": "multi30k/test_2016_flickr.jsonl"}
        return {
            "run": {"folder": str(self.folder / folder)},
            "model": {"preset": "tiny-0.6m", "compute_dtype": "float32"},
            "data": {
                "folder": str(self.data),
                "template": "short",
                "leaks": "drop",
                "sources": {"captions": captions, "test": test, "tatoeba": tatoeba},
            },
            "tokens": {"vocab_size": 1024, "row_length_tokens": 128},
            "stages": [
                {
                    "name": "text",
                    "mixture": {f"{code[:3]}_text": text_of(code) for code in ("eng_Latn", *LANGUAGES)},
                    "steps": 60 if self.is_quick else 1000,
                }
            ],
            "train": {
                "batch_rows": 8,
                "remat": "none",
                "held_out_documents": 64,
                "held_out_every_steps": 100000,
                "optimizer": {
                    "peak_lr": 2.0e-3,
                    "schedule": "wsd",
                    "decay_ratio": 0.3,
                    "warmup_steps": 20,
                    "beta2": 0.99,
                    "weight_decay": 0.1,
                },
            },
            "generate": {"max_new_tokens": 64, "batch_rows": 100},
            "eval": self.evaluation(LANGUAGES),
            "checkpoint": {"save_every_steps": 100000, "keep_last": 1},
            "tracking": {"log_every_steps": 100, "tensorboard": False},
        }

    def evaluation(self, languages: Iterable[str]) -> dict[str, Any]:
        """150 sentences of each language."""
        return {
            "tasks": tasks_of(languages),
            "base_model": False,
            "items": 20 if self.is_quick else 150,
            "bootstrap_samples": 100,
            "leak_words": 0,
        }

    def stage(self, entries: Mapping[str, Mapping[str, Any]], languages: int) -> dict[str, Any]:
        """Translation of so many languages, and English text so that it is not lost."""
        mixture = {"eng_text": {**text_of("eng_Latn"), "weight": languages}}
        mixture |= {name: {**entry, "weight": 4} for name, entry in entries.items()}
        return {"name": "coit", "mixture": mixture, "steps": languages * (20 if self.is_quick else STEPS)}

    def write(self, name: str, config: Mapping[str, Any]) -> Path:
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config, sort_keys=False), "utf-8")
        return path

    def run(self, module: str, *arguments: Any) -> str:
        """What a command prints; its CPU seconds, with what it began, go into FOLDER/cpu_seconds."""
        with tempfile.TemporaryFile("w+", encoding="utf-8") as told:
            command = [sys.executable, "-m", module, *map(str, arguments)]
            child = subprocess.Popen(command, env={**os.environ, **SURROUNDINGS}, stdout=told)
            _, status, spent = os.wait4(child.pid, 0)
            with (self.folder / "cpu_seconds").open("a", encoding="utf-8") as file:
                file.write(f"{spent.ru_utime + spent.ru_stime:.0f}\n")
            if status:
                sys.exit(f"{module} {joined(arguments)}: ended with {os.waitstatus_to_exitcode(status)}")
            told.seek(0)
            return told.read()


def source_of(language: str) -> str:
    return "tatoeba" if language == "tur_Latn" else "captions"


def text_of(language: str) -> dict[str, Any]:
    return {"source": source_of(language), "task": "text", "language": language}


def pairs_of(language: str) -> dict[str, Any]:
    return {"source": source_of(language), "direction": f"eng_Latn-{language}"}


def tasks_of(languages: Iterable[str]) -> list[str]:
    return [f"{'tatoeba' if code == 'tur_Latn' else 'test'}.eng_Latn-{code}" for code in languages]


def outcome(home: Path) -> dict[str, list[float]]:
    """Of a run on all languages, by metric what each language got at its end."""
    found = json.loads((home / "report.json").read_text("utf-8"))["scores"]
    lines = [json.loads(line) for line in (home / "metrics.jsonl").open(encoding="utf-8")]
    held_out = next(line for line in reversed(lines) if "held_out_loss/tur_Latn/tur_Latn" in line)
    of_answers = {
        score["task"].rpartition("-")[2]: score["value"]
        for score in found
        if score["stage"] == "coit" and score["metric"] == METRICS[1]
    }
    return {
        METRICS[0]: [held_out[f"held_out_loss/{code}/{code}"] for code in LANGUAGES],
        METRICS[1]: [of_answers[code] for code in LANGUAGES],
    }


def joined(values: Iterable[Any]) -> str:
    return ",".join(map(str, values))


if __name__ == "__main__":
    main()
