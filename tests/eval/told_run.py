"""A run folder that tells of two stages in three languages, without the weights: what a model card is made of."""

import json
from pathlib import Path

from jaxlingua.command_line import check_config

SECRET = "/home/somebody/secret"
PROMPTS = {"ell_Grek": "a|b\n**c** `d` <i>", "heb_Hebr": "שָׁלוֹם | עולם\r\n", "eng_Latn": "[x](y) $z$ \\| &lt;"}


def settings(folder: Path, **changes):
    content = {
        "run": {"folder": str(folder)},
        "model": {"compute_dtype": "float32", "init": "huggingface", "path": "owner/Some-Model"},
        "data": {
            "folder": f"{SECRET}/data",
            "template": "alpaca",
            "sources": {
                "news": {"kind": "parallel", "path": f"{SECRET}/n.{{language}}.txt", "languages": ["eng_Latn", "ell_Grek"]},
                "hub": {"kind": "huggingface", "path": "people/questions", "yields": "qa", "language": "heb_Hebr"},
                "old": {"kind": "qa", "path": "deep/squad.json", "language": "eng_Latn"},
            },
        },
        "stages": [
            {"name": "coit", "mixture": {"news": {"direction": "eng_Latn-ell_Grek"}}, "steps": 100},
            {"name": "more", "mixture": {"hub": {}, "again": {"source": "news", "direction": "eng_Latn-ell_Grek"}}, "steps": 50},
        ],
    }  # fmt: skip
    return check_config({**content, **changes}, "test")


def mixture_row(entry, language, **changes):
    return {
        "entry": entry, "language": language, "records": 1300, "left out": "12 too long", "documents": 1288, "cut": 3,
        "tokens cut": 77, "passes": 2.5, "documents seen": 3220, "share of documents": 1.0,
        "target tokens seen": 123456, "share of target tokens": 0.75, **changes,
    }  # fmt: skip


def stage(name, steps, *rows):
    sizes = {"epochs": 2.5, "batch_rows": 8, "row_length_tokens": 64, "use": 0.985}
    return {"name": name, "steps": steps, **sizes, "mixture": list(rows)}


def score(stage, step, task, value, *, model="tuned", metric="chrf++", items=4):
    language = task.rpartition("-")[2].rpartition(".")[2]
    return {
        "stage": stage, "step": step, "model": model, "task": task, "language": language, "metric": metric,
        "value": value, "low": value - 1.25, "high": value + 1.5, "items": items,
        "signature": f"metric:{metric}|task:{task}|decoding:greedy,8",
    }  # fmt: skip


def write_run(folder: Path) -> Path:
    """A run of two stages in two languages, with an old language and texts that are hard to write down."""
    (folder / "evals").mkdir(parents=True)
    tasks = {"news.eng_Latn-ell_Grek": 10.04, "hub.heb_Hebr": 20.06, "old.eng_Latn": 61.25}
    evaluations = [
        ("floors", 0, "copy_source", 1),
        ("base", 0, "base", 2),
        ("coit", 100, "tuned", 3),
        ("more", 150, "tuned", 4),
    ]
    for name, step, model, shift in evaluations:
        home = folder / "evals" / f"{name}-{step}"
        home.mkdir()
        told = {
            "cut_prompts": 0,
            "cut_prompt_tokens": 0,
            "unfinished": 0,
            "items": 4,
            "available": 9,
            "left_out": {},
            "split": "held_out",
        }
        counts = {} if name == "floors" else {task: told for task in tasks}
        if name == "more":
            counts["hub.heb_Hebr"] = {**told, "cut_prompts": 2, "cut_prompt_tokens": 1900, "unfinished": 1}
        scores = [score(name, step, task, value + shift, model=model) for task, value in tasks.items()]
        (home / "scores.json").write_text(json.dumps({"scores": scores, "tasks": counts}))
        for task in counts:
            language = task.rpartition("-")[2].rpartition(".")[2]
            item = {
                "id": "7", "language": language, "prompt": PROMPTS[language], "prediction": f"{name}: 你好 🦙\x19|",
                "targets": ["नमस्ते | สวัสดี"], "exact_match": 0,
            }  # fmt: skip
            (home / f"{task}.jsonl").write_text(json.dumps(item, ensure_ascii=False) + "\n", "utf-8")
    provenance = {
        "command": f"python -m jaxlingua.train {SECRET}/my run/greek.yaml run.folder={folder} model.path=owner/Some-Model "
        f"data.sources.old={{kind: qa, path: {SECRET}/q.json}} tokens.cache_folder=~/tmp/cache",
        "repeat": f"python -m jaxlingua.train {folder} run.folder=ANOTHER tokens.kind=huggingface tokens.path={folder}/tokenizer",
        "started": "2031-02-03 04:05 UTC", "devices": "8 devices (tpu) in 1 process: data=1 fsdp=8 tensor=1",
        "host": "4 cores", "git_commit": "0123abcd" * 5, "versions": {"jaxlingua": "0.1.0", "jax": "0.10.2"},
        "resumed": [{"step": 40}, {"step": 1200}], "tokenizer": "f" * 64,
    }  # fmt: skip
    read = {"languages": ["ell_Grek"], "train": 1300, "held_out": 9, "fingerprint": "a" * 64}
    sources = [
        {**read, "name": "news", "skipped": {"no text in ell_Grek": 1234, "empty answer": 0}},
        {**read, "name": "hub", "skipped": {}},
    ]
    stages = [
        stage("coit", 100, mixture_row("news", "ell_Grek")),
        stage(
            "more",
            50,
            mixture_row("hub", "heb_Hebr"),
            mixture_row("again", "ell_Grek", **{"documents seen": 0}),
        ),
    ]
    (folder / "provenance.json").write_text(json.dumps(provenance))
    (folder / "data.json").write_text(json.dumps({"sources": sources, "stages": stages}))
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    return folder
