"""Laws of data size fitted on small runs, checked on larger ones; a split by them against an equal one.

    python benchmarks/scaling_study.py DATA FOLDER [--quick]

DATA holds multi30k/ (English, German, French captions) and tatoeba/large/tur.jsonl (English and Turkish
sentences of another kind, the distant language). A base of 0.6M parameters reads the sentences of all four
languages by themselves, never side by side. From it `python -m jaxlingua.analysis sweep` trains runs of one
length over languages, numbers of pairs and seeds; `scaling` fits laws to the small sizes, and what they say
of the largest is compared with the runs that were left out; `allocate` splits a budget by these laws, and
three languages are trained together with this split and with equal parts; `alignment` compares the base with
such a run. What is finished in FOLDER is not done again. Prints Markdown.
"""

import csv
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

LANGUAGES = ("deu_Latn", "fra_Latn", "tur_Latn")
METRICS = ("loss", "chrf++")  # of held-out pairs, and of answers; the first is what the split goes by
TASK = "translation"  # what the tests of all languages are called in the joined table
SMALL, LARGE, SEEDS = (50, 120, 290, 700, 1700), 4000, (0, 1)
BUDGET = 3600
PAIRS = {
    "captions": {"source": "captions", "direction": ["eng_Latn-deu_Latn", "eng_Latn-fra_Latn"]},
    "tatoeba": {"source": "tatoeba", "direction": ["eng_Latn-tur_Latn"]},
}
TEXT = {
    **{f"{code[:3]}_text": {"source": "captions", "task": "text", "language": code}
       for code in ("eng_Latn", "deu_Latn", "fra_Latn")},
    "tur_text": {"source": "tatoeba", "task": "text", "language": "tur_Latn"},
}  # fmt: skip


def main() -> None:
    """Base, sweep, laws, split, alignment."""
    data, folder, is_quick = Path(sys.argv[1]), Path(sys.argv[2]), "--quick" in sys.argv
    folder.mkdir(parents=True, exist_ok=True)
    small, large = ((50, 100, 200, 400, 800), 1600) if is_quick else (SMALL, LARGE)
    began = time.monotonic()
    base = folder / "base"
    write(folder / "base.yaml", settings(data, base, is_quick))
    if not (base / "report.json").is_file():
        run(folder, "jaxlingua.train", folder / "base.yaml")
    swept = settings(data, folder / "unused", is_quick)
    swept["run"]["branch_from"] = str(base)
    swept["stages"].append(coit(PAIRS, is_quick))
    write(folder / "sweep.yaml", swept)
    sizes, seeds = [*small, large], SEEDS[:1] if is_quick else SEEDS
    run(
        folder, "jaxlingua.analysis", "sweep", folder / "sweep.yaml", "--languages", ",".join(LANGUAGES),
        "--pairs", joined(sizes), "--seeds", joined(seeds), "--output", folder / "sweep",
    )  # fmt: skip
    for metric in METRICS:
        rows = scores(folder / "sweep" / "table.csv", metric)
        write_rows(folder / f"small-{metric}.csv", [row for row in rows if int(row["pairs"]) in small])
        laws = folder / f"laws-{metric}.json"
        print(f"\n## {metric}\n")
        told = run(
            folder, "jaxlingua.analysis", "scaling", folder / f"small-{metric}.csv", "--metric", metric,
            "--task", TASK, "--at", large, "--output", laws, "--plot", laws.with_suffix(".png"),
        )  # fmt: skip
        print(told)
        check(laws, rows, large)
    split(folder, data, base, 1200 if is_quick else BUDGET, seeds, is_quick)
    aligned(folder)
    seconds = sum(map(int, (folder / "cpu_seconds").read_text("utf-8").split()))
    print(f"\n{seconds / 60:.0f} CPU min in all; this call took {(time.monotonic() - began) / 60:.0f} min")


def settings(data: Path, run_folder: Path, is_quick: bool) -> dict[str, Any]:
    """The base: text of all languages, each sentence by itself."""
    captions = {
        "kind": "parallel",
        "path": "multi30k/train.jsonl",
        "languages": ["eng_Latn", "deu_Latn", "fra_Latn"],
        "columns": {"eng_Latn": "en", "deu_Latn": "de", "fra_Latn": "fr"},
    }
    tatoeba = {
        "kind": "parallel",
        "path": "tatoeba/large/tur.jsonl",
        "languages": ["eng_Latn", "tur_Latn"],
        "columns": {"eng_Latn": "src", "tur_Latn": "tgt"},
    }
    return {
        "run": {"folder": str(run_folder)},
        "model": {"preset": "tiny-0.6m", "compute_dtype": "float32"},
        "data": {
            "folder": str(data),
            "template": "short",
            "leaks": "drop",
            "sources": {
                "captions": captions,
                "test": {**captions, "path": "multi30k/test_2016_flickr.jsonl"},
                "tatoeba": tatoeba,
            },
        },
        "tokens": {"vocab_size": 1024, "row_length_tokens": 128},
        "stages": [{"name": "text", "mixture": TEXT, "steps": 60 if is_quick else 1000}],
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
        "eval": {
            "tasks": [*(f"test.eng_Latn-{code}" for code in LANGUAGES[:2]), "tatoeba.eng_Latn-tur_Latn"],
            "base_model": False,
            "items": 20 if is_quick else 150,
            "bootstrap_samples": 100,
            "leak_words": 0,
        },
        "checkpoint": {"save_every_steps": 100000, "keep_last": 1},
        "tracking": {"log_every_steps": 100, "tensorboard": False},
    }


def coit(pairs: dict[str, Any], is_quick: bool) -> dict[str, Any]:
    """The stage that is swept: translation, and English so that it is not lost."""
    english = {"eng_text": {**TEXT["eng_text"], "weight": 1}}
    weighed = {name: {**entry, "weight": 4} for name, entry in pairs.items()}
    return {"name": "coit", "mixture": english | weighed, "steps": 40 if is_quick else 200}


def scores(table: Path, metric: str) -> list[dict[str, str]]:
    """The sweep's scores of translation, under one name of the task."""
    of_pairs = {f"{name}/*" for name in PAIRS}  # held-out pairs, not held-out text
    with table.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == metric and int(row["pairs"])]
    return [{**row, "task": TASK} for row in rows if metric != "loss" or row["task"] in of_pairs]


def check(laws: Path, rows: Sequence[dict[str, str]], large: int) -> None:
    """What the laws said of the largest size, what simple rules would have said, and what was measured."""
    from jaxlingua.analysis.scaling.intervals import new_score_interval
    from jaxlingua.analysis.scaling.laws import read_laws

    fitted = read_laws(laws)
    print(
        "| language | measured: mean (seeds) | law, 90 % for a new score | last size again | line in log n |"
    )
    print("|---|---|---|---|---|")
    for language in LANGUAGES:
        own = [(int(row["pairs"]), float(row["value"])) for row in rows if row["language"] == language]
        measured = [value for size, value in own if size == large]
        known = [(size, value) for size, value in own if size < large]
        law = fitted.of[language]
        low, high = map(float, new_score_interval(law, large))
        last = np.mean([value for size, value in known if size == max(size for size, _ in known)])
        slope, level = np.polyfit(*np.array([(np.log(size), value) for size, value in known]).T, 1)
        line, each = level + slope * np.log(large), joined(f"{value:.2f}" for value in measured)
        told = f"{float(law.at(large)):.2f} [{low:.2f}, {high:.2f}]"
        print(f"| {language} | {np.mean(measured):.2f} ({each}) | {told} | {last:.2f} | {line:.2f} |")


def split(folder: Path, data: Path, base: Path, budget: int, seeds: Sequence[int], is_quick: bool) -> None:
    """Three languages together: pairs as `allocate` parts them, and equal parts."""
    told = run(
        folder, "jaxlingua.analysis", "allocate", folder / f"laws-{METRICS[0]}.json", "--budget", budget,
        "--available", "deu_Latn=25000,fra_Latn=25000,tur_Latn=10000", "--format", "json",
    )  # fmt: skip
    (folder / "split.json").write_text(told, "utf-8")
    chosen = {row["language"]: row["pairs"] for row in json.loads(told)["languages"]}
    print(f"\nsplit of {budget} by the laws of {METRICS[0]}: {chosen}\n")
    print("| split | seed | metric | " + " | ".join(LANGUAGES) + " | mean |")
    print("|---|---|---|" + "---|" * (len(LANGUAGES) + 1))
    for name, parts in (("law", chosen), ("equal", dict.fromkeys(LANGUAGES, budget // len(LANGUAGES)))):
        for seed in seeds:
            pairs = {
                code: {
                    "source": "tatoeba" if code == "tur_Latn" else "captions",
                    "direction": f"eng_Latn-{code}",
                    "replay": {"records": parts[code], "seed": seed},
                }
                for code in LANGUAGES
                if parts[code]
            }
            home = folder / f"{name}-{seed}"
            content = settings(data, home, is_quick)
            content["run"] |= {"branch_from": str(base), "seed": seed}
            stage = coit({}, is_quick)
            # As many examples of each language as it has pairs: what it has more of it shows more of.
            stage["mixture"] |= {
                code: {**entry, "weight": 4 * parts[code] / budget} for code, entry in pairs.items()
            }
            content["stages"].append(stage)
            write(folder / f"{name}-{seed}.yaml", content)
            if not (home / "report.json").is_file():
                run(folder, "jaxlingua.train", folder / f"{name}-{seed}.yaml")
            for metric, values in outcome(home).items():
                cells = " | ".join(f"{value:.2f}" for value in (*values, np.mean(values)))
                print(f"| {name} | {seed} | {metric} | {cells} |")


def outcome(home: Path) -> dict[str, list[float]]:
    """Of a run on all languages, by metric what each language got at its end."""
    found = json.loads((home / "report.json").read_text("utf-8"))["scores"]
    lines = [json.loads(line) for line in (home / "metrics.jsonl").open(encoding="utf-8")]
    held_out = next(
        line for line in reversed(lines) if f"held_out_loss/{LANGUAGES[0]}/{LANGUAGES[0]}" in line
    )
    of_answers = {
        score["task"].rpartition("-")[2]: score["value"]
        for score in found
        if score["stage"] == "coit" and score["metric"] == METRICS[1]
    }
    return {
        METRICS[0]: [held_out[f"held_out_loss/{code}/{code}"] for code in LANGUAGES],
        METRICS[1]: [of_answers[code] for code in LANGUAGES],
    }


def aligned(folder: Path) -> None:
    """Representations of the base, and of the run with equal parts that began from it."""
    for name, tasks in (
        ("captions", "test.eng_Latn-deu_Latn,test.eng_Latn-fra_Latn"),
        ("tatoeba", "tatoeba.eng_Latn-tur_Latn"),
    ):
        told = run(
            folder, "jaxlingua.analysis", "alignment", folder / "equal-0", f"eval.tasks=[{tasks}]",
            "eval.steps=all", "eval.base_model=false", "--output", folder / f"alignment-{name}",
        )  # fmt: skip
        print(f"\n{name}, step of text alone and step after translation:\n\n{told}")


def run(folder: Path, module: str, *arguments: Any) -> str:
    """Its output; what it tells goes on to stderr, the seconds of its CPUs into FOLDER/cpu_seconds."""
    environment = {"XLA_FLAGS": "--xla_force_host_platform_device_count=1", **os.environ}
    command = [sys.executable, "-m", module, *map(str, arguments)]
    before = cpu_seconds()
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    with (folder / "cpu_seconds").open("a", encoding="utf-8") as file:
        file.write(f"{cpu_seconds() - before:.0f}\n")
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout


def cpu_seconds() -> float:
    """Of all processes that were begun here and have ended, and of those that they began."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def joined(values: Iterable[Any]) -> str:
    return ",".join(map(str, values))


def write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(content, sort_keys=False), "utf-8")


def write_rows(path: Path, rows: Sequence[dict[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
