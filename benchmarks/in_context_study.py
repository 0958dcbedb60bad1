"""What exemplars, alignment and their retrieval change for a model of 1M parameters: NusaX and XCOPA.

    python benchmarks/in_context_study.py DATA FOLDER [--quick]

DATA holds nusax/ (sentiment and parallel text of one set of comments in Indonesian and its neighbors) and
xcopa/. A model reads the training sentences of Indonesian, English, Javanese, Sundanese and Minangkabau, and
is tuned to tell the sentiment of Indonesian and English comments, asked as the arms below ask it: without
exemplars, with three at random, with a sentence pair in front. The sentiment of the other three languages it
has never seen. Each arm then asks the test comments of these three by `python -m jaxlingua.eval`, and is
compared with asking without exemplars: the same items, the same model, one option changed at a time.
Intervals are of 2,000 draws of comments, the same in all languages, since each says the same thing in each.
XCOPA is asked in Indonesian, Turkish and Vietnamese. What is finished in FOLDER is not done again. Prints
Markdown.
"""

import json
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

SOURCES = ("ind_Latn", "eng_Latn")  # whose sentiment is trained
TARGETS = ("jav_Latn", "sun_Latn", "min_Latn")
COPA = ("ind_Latn", "tur_Latn", "vie_Latn")
NUSAX = {
    "ind_Latn": "indonesian",
    "eng_Latn": "english",
    "jav_Latn": "javanese",
    "sun_Latn": "sundanese",
    "min_Latn": "minangkabau",
}
PAIRS = {"parallel": "nusax_translation.train", "source_language": "ind_Latn"}
DRAWS = 2000
PROMPT = r"(?s)### Instruction:\n(.*)\n\n### Input:\n(.*)\n\n### Response:\Z"

# One thread per run, and an allocator that keeps its pages (RESULTS.md, "A training step on a CPU").
SURROUNDINGS = {
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false --xla_force_host_platform_device_count=1",
    "OMP_NUM_THREADS": "1",
    "GLIBC_TUNABLES": "glibc.malloc.arena_max=1:glibc.malloc.mmap_max=0:"
    "glibc.malloc.trim_threshold=17179869184",
}
# What is trained, in the words that the arms ask with.
TRAINED: tuple[dict[str, Any], ...] = (
    {},
    {"exemplars": "mono"},
    {"exemplars": "cross"},
    {"align": "query", "align_count": 1, **PAIRS},
    {"exemplars": "mono", "align": "query", "align_count": 1, **PAIRS},
)
LEXICAL, STATES = {"retrieval": ["tfidf"]}, {"retrieval": ["states"]}
CROSS = {"exemplars": "cross", "source_language": "ind_Latn"}
QUERY = {"align": "query", "align_count": 1, **PAIRS}
ARMS: dict[str, dict[str, Any]] = {
    "zero-shot": {},
    "labels of the language": {"labels": "target"},
    "label alignment": {"align": "label"},
    "query alignment, TF-IDF": QUERY | LEXICAL,
    "query alignment, random": QUERY,
    "own language, random": {"exemplars": "mono"},
    "own language, TF-IDF": {"exemplars": "mono", **LEXICAL},
    "own language, BM25": {"exemplars": "mono", "retrieval": ["bm25"]},
    "own language, states": {"exemplars": "mono", **STATES},
    "own language, TF-IDF + states": {"exemplars": "mono", "retrieval": ["tfidf", "states"]},
    "Indonesian, random": CROSS,
    "Indonesian, TF-IDF": CROSS | LEXICAL,
    "Indonesian, states": CROSS | STATES,
    "English, states": {"exemplars": "cross", "source_language": "eng_Latn", **STATES},
    "pivoted through pairs, TF-IDF": PAIRS | LEXICAL | {"exemplars": "pivot"},
    "Indonesian, TF-IDF, query after": CROSS | QUERY | LEXICAL,
    "Indonesian, TF-IDF, query before": CROSS | QUERY | LEXICAL | {"align_place": "before"},
    "Indonesian, TF-IDF, label alignment": CROSS | LEXICAL | {"align": "label"},
    "own language, TF-IDF, table": {"exemplars": "mono", "format": "table", **LEXICAL},
}
COPA_ARMS: dict[str, dict[str, Any]] = {
    "zero-shot": {},
    "own language, random": {"exemplars": "mono"},
    "own language, TF-IDF": {"exemplars": "mono", **LEXICAL},
    "Indonesian, TF-IDF": CROSS | LEXICAL,
}


def main() -> None:
    """Prompts to train on, the model, the arms."""
    data, folder, is_quick = Path(sys.argv[1]), Path(sys.argv[2]), "--quick" in sys.argv
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    run = folder / "model"
    write_training(data, folder, is_quick)
    (folder / "model.yaml").write_text(
        yaml.safe_dump(settings(data, run, folder, is_quick), sort_keys=False), "utf-8"
    )
    if not (run / "report.json").is_file():
        command("jaxlingua.train", folder / "model.yaml")
    asked = answers_of(run, folder, ARMS, [f"nusax_sentiment.{code}" for code in TARGETS], is_quick)
    print("## NusaX sentiment\n")
    tell(asked, TARGETS, "nusax_sentiment")
    copa = answers_of(
        run, folder, COPA_ARMS, [f"xcopa.{code}" for code in COPA if code != "ind_Latn"], is_quick
    )
    print("\n## XCOPA\n")
    tell(copa, [code for code in COPA if code != "ind_Latn"], "xcopa")
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = (spent.ru_utime + spent.ru_stime) / 60
    print(f"\n{cpu:.0f} CPU min in this call, {(time.monotonic() - began) / 60:.0f} min")


def write_training(data: Path, folder: Path, is_quick: bool) -> None:
    """The training comments of the source languages as the arms ask them, with other exemplars each time."""
    path = folder / "asked.json"
    if path.is_file():
        return
    from jaxlingua.command_line import check_config
    from jaxlingua.eval.in_context.complete import completed
    from jaxlingua.eval.in_context.retrieval.lexical import lexical
    from jaxlingua.eval.tasks.make import make_tasks

    records = []
    for language in SOURCES:
        for number, arm in enumerate(TRAINED):
            for seed in range(1 if is_quick else 4):
                arm_here = dict(arm)
                if arm.get("exemplars") == "cross" or "align" in arm:
                    arm_here["source_language"] = next(code for code in SOURCES if code != language)
                if arm.get("exemplars", "none") != "none":
                    arm_here["split"] = "train"
                config = check_config(
                    {
                        "run": {"folder": str(folder / "none"), "seed": 100 * number + seed},
                        "data": {"template": "alpaca"},
                        "eval": {
                            "tasks": [f"nusax_sentiment.train.{language}"],
                            "data_folder": str(data),
                            "in_context": arm_here,
                        },
                    },
                    "in_context_study",
                )
                (task,) = make_tasks(config, {})
                for item in completed(task, [lexical("random", config.run.seed)]).items:
                    said = item.choices[task.labels.index(item.targets[0])]
                    (parts,) = re.findall(PROMPT, item.prompt)
                    records.append({"instruction": parts[0], "input": parts[1], "output": said})
    path.write_text(json.dumps(records, ensure_ascii=False), "utf-8")


def settings(data: Path, run: Path, folder: Path, is_quick: bool) -> dict[str, Any]:
    """Sentences of all five languages, then these with the questions."""
    sentences = {
        "kind": "parallel",
        "path": str((data / "nusax/mt/train.csv").resolve()),
        "languages": list(NUSAX),
        "columns": NUSAX,
    }
    text = {
        f"{code[:3]}_text": {"source": "sentences", "task": "text", "language": code, "weight": 1}
        for code in NUSAX
    }
    asked = {"asked": {"weight": 10}}
    return {
        "run": {"folder": str(run)},
        "model": {"preset": "tiny-0.6m", "compute_dtype": "float32", "layers": 4, "max_positions": 1024},
        "data": {
            "template": "alpaca",
            "leaks": "drop",
            "sources": {
                "sentences": sentences,
                "asked": {
                    "kind": "instructions",
                    "path": str((folder / "asked.json").resolve()),
                    "language": "ind_Latn",
                },
            },
        },
        "tokens": {"vocab_size": 2048, "row_length_tokens": 512},
        "stages": [{"name": "asked", "mixture": text | asked, "steps": 40 if is_quick else 500}],
        "train": {
            "batch_rows": 4,
            "remat": "none",
            "held_out_documents": 64,
            "held_out_every_steps": 100000,
            "optimizer": {
                "peak_lr": 1.5e-3,
                "schedule": "wsd",
                "decay_ratio": 0.3,
                "warmup_steps": 20,
                "beta2": 0.99,
                "weight_decay": 0.1,
            },
        },
        "generate": {"batch_rows": 64},
        "eval": {
            "tasks": [],
            "base_model": False,
            "leak_words": 0,
            "bootstrap_samples": 100,
            "data_folder": str(data.resolve()),
        },
        "checkpoint": {"save_every_steps": 100000, "keep_last": 1},
        "tracking": {"log_every_steps": 50, "tensorboard": False},
    }


def answers_of(
    run: Path, folder: Path, arms: Mapping[str, Mapping[str, Any]], tasks: Sequence[str], is_quick: bool
) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """By arm and task, the lines that the evaluation wrote."""
    found = {}
    for name, arm in arms.items():
        kept = folder / "arms" / f"{tasks[0].partition('.')[0]} {name}"
        if not kept.is_dir():
            command(
                "jaxlingua.eval", run, f"eval.tasks=[{','.join(tasks)}]",
                f"eval.in_context={json.dumps(arm)}", f"eval.items={40 if is_quick else 'auto'}",
            )  # fmt: skip
            (home,) = [path for path in (run / "evals").iterdir() if path.name.startswith("asked-")]
            kept.mkdir(parents=True)
            for task in tasks:
                (kept / f"{task}.jsonl").write_bytes((home / f"{task}.jsonl").read_bytes())
        found[name] = {
            task: [json.loads(line) for line in (kept / f"{task}.jsonl").open(encoding="utf-8")]
            for task in tasks
        }
    return found


def tell(
    asked: Mapping[str, Mapping[str, list[dict[str, Any]]]], languages: Sequence[str], task: str
) -> None:
    """A line for each arm: accuracy by language, their mean, and its change against the first arm."""
    print("| arm | " + " | ".join(languages) + " | mean | change, 95 % | same answers |")
    print("|---|" + "---|" * (len(languages) + 3))
    ids = sorted({line["id"] for line in next(iter(asked.values()))[f"{task}.{languages[0]}"]})
    drawn = np.random.default_rng(0).integers(0, len(ids), (DRAWS, len(ids)))
    lines = next(iter(asked.values()))[f"{task}.{languages[0]}"]
    truth = [line["targets"][0] for line in lines]
    floor = 100 * max(truth.count(label) for label in set(truth)) / len(truth)
    print(f"| most frequent label |{f' {floor:.1f} |' * (len(languages) + 1)} | |")
    first = first_said = None
    for name, of_task in asked.items():
        right, said = [], []
        for language in languages:
            lines = {line["id"]: line for line in of_task[f"{task}.{language}"]}
            right.append([lines[each]["prediction"] in lines[each]["targets"] for each in ids])
            said.append([lines[each]["prediction"] for each in ids])
        hits = np.array(right, float)  # languages ids
        if first is None:
            first, first_said = hits, said
        change = (hits - first).mean(axis=0)
        low, high = np.percentile(change[drawn].mean(axis=1), (2.5, 97.5))
        same = np.mean(np.array(said) == np.array(first_said))
        cells = [f"{100 * value:.1f}" for value in (*hits.mean(axis=1), hits.mean())]
        told = "" if hits is first else f"{100 * change.mean():+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
        print(f"| {name} | " + " | ".join(cells) + f" | {told} | {100 * same:.0f} % |")


def command(module: str, *arguments: Any) -> None:
    """A command of jaxlingua; what it tells goes to stderr."""
    environment = {**os.environ, **SURROUNDINGS}
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)], env=environment, stdout=sys.stderr, check=False
    )
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
