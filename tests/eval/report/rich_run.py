"""A made-up run with all that a report can show: ten tasks, twelve languages, prompts, leaks, two stages."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

from tests.eval.told_run import mixture_row, stage

LANGUAGES = (
    *("eng_Latn", "deu_Latn", "ell_Grek", "zho_Hans", "hin_Deva", "arb_Arab", "heb_Hebr", "urd_Arab"),
    *("tha_Thai", "jav_Latn", "sun_Latn", "mad_Latn"),
)
KINDS = {
    "xquad": "qa", "mlqa": "qa", "tydiqa": "qa", "flores": "translation", "tatoeba": "translation",
    "nusax_sentiment": "choice", "xnli": "choice", "xcopa": "choice", "mgsm": "number", "belebele": "choice",
}  # fmt: skip
METRICS = {
    "qa": ("exact_match", "f1"),
    "translation": ("bleu", "chrf++"),
    "choice": ("accuracy", "macro_f1"),
    "number": ("exact_number",),
}
FLOORS = {
    "qa": ("majority_answer",),
    "translation": ("copy_source",),
    "choice": ("majority", "random"),
    "number": (),
}
SEEN = {"deu_Latn", "arb_Arab", "heb_Hebr", "jav_Latn", "zho_Hans", "eng_Latn"}
SENTENCES = {
    "arb_Arab": "تقع القاهرة على ضفاف نهر النيل في شمال مصر.",
    "heb_Hebr": "ירושלים היא אחת הערים העתיקות בעולם, 3,000 שנה.",
    "urd_Arab": "لاہور پاکستان کا دوسرا بڑا شہر ہے۔",
    "zho_Hans": "长江全长约6300公里，是亚洲最长的河流。",
    "hin_Deva": "गंगा भारत की सबसे लंबी नदी है।",
    "tha_Thai": "แม่น้ำเจ้าพระยาไหลผ่านกรุงเทพมหานคร",
    "ell_Grek": "Η Αθήνα είναι η πρωτεύουσα της Ελλάδας.",
}
HOSTILE = '<script>alert(1)</script> & \\input{/etc/passwd} | `x` "q" {{ 7*7 }} $&_%#'
EVALUATIONS = (
    ("base", 0, "base", 0.0), ("coit", 500, "tuned", 0.5), ("coit", 1000, "tuned", 0.8),
    ("more", 1500, "tuned", 1.0), ("more", 2000, "tuned", 1.1),
)  # fmt: skip


def chance(*parts: Any) -> float:
    """A number between 0 and 1 that belongs to its arguments."""
    return int(hashlib.sha256(repr(parts).encode()).hexdigest()[:8], 16) / 2**32


def entries(languages=LANGUAGES, kinds=None):
    """Entry, kind, language of the answers, language of the row and source language of every task."""
    for name, kind in (kinds or KINDS).items():
        for code in languages:
            if kind == "translation":
                if code == "eng_Latn":
                    continue
                yield f"{name}.eng_Latn-{code}", kind, code, code, "eng_Latn"
                if name == "flores":
                    yield f"{name}.{code}-eng_Latn", kind, "eng_Latn", code, code
            elif chance(name, code) > 0.12:
                yield f"{name}.{code}", kind, code, code, code


def value_of(task: str, metric: str, prompt: str, row: str, progress: float) -> float:
    start = 8 + 45 * chance(task, metric)
    gain = (
        (26 if row in SEEN else 9)
        * (chance(task, "gain") - 0.15 + 0.1 * chance(task, prompt, "gain"))
        * progress
    )
    return round(min(max(start + gain + 3 * (chance(task, prompt) - 0.5), 0), 100), 4)


def scores_of(name, step, model, progress, languages, kinds, prompts):
    for task, kind, language, row, source in entries(languages, kinds):
        for prompt in prompts if kind == "choice" else prompts[:1]:
            for metric in METRICS[kind]:
                value = value_of(task, metric, prompt, row, progress)
                items = 50 if task.startswith("mlqa") and name == "base" and row == "deu_Latn" else 1000
                score = {
                    "stage": name, "step": step, "model": model, "task": task, "language": language,
                    "metric": metric, "value": value, "low": round(value - 2.1, 4), "high": round(value + 2.3, 4),
                    "items": items,
                    "signature": f"metric:{metric}|norm:mlqa1|task:{kind}1|prompt:alpaca.{prompt}|split:test|"
                    f"items:{items}of1190|data:{hashlib.sha256((task + prompt).encode()).hexdigest()[:8]}|"
                    f"decoding:greedy,64|interval:95%,bootstrap20000,seed0",
                    "prompt": prompt, "kind": kind, "source_language": source,
                    "delta": None, "delta_low": None, "delta_high": None, "p_value": None,
                }  # fmt: skip
                before = value_of(task, metric, prompt, row, 0.0)
                if name != "base" and not (task.startswith("mlqa") and row == "deu_Latn"):
                    delta = round(value - before, 4)
                    score |= {
                        "delta": delta,
                        "delta_low": round(delta - 1.9, 4),
                        "delta_high": round(delta + 2, 4),
                    }
                    score["p_value"] = max(math.exp(-1.1 * delta**2), 1 / 20001)
                yield score


def predictions(task, kind, language, name, items=10):
    sentence = SENTENCES.get(language, f"This is a sentence of {task} in {language}.")
    for index in range(items):
        right = chance(task, index, "q") < (0.25 if name == "base" else 0.55)
        target = {"choice": "positive", "number": "42"}.get(kind, sentence)
        context = (sentence + " ") * (30 if kind == "qa" else 1)
        line = {
            "id": f"{index}", "language": language,
            "prompt": f"Below is an instruction that describes a task. {HOSTILE if index == 0 else ''}\n\n### Input:\n"
            f"{context}\n\n### Response:\n",
            "prediction": target if right else {"choice": "negative", "number": "17"}.get(kind, sentence[: 9 + index]),
            "targets": [target],
        }  # fmt: skip
        score = 100.0 if right else round(60 * chance(task, index, name), 2)
        per_item = {"qa": "f1", "translation": "chrf++", "choice": "accuracy", "number": "exact_number"}[kind]
        line[per_item] = score if kind in ("qa", "translation") else 100.0 * right
        line |= {"new_tokens": 5, "is_finished": True, "cut_prompt_tokens": 0}
        yield line


def write_rich_run(
    folder: Path,
    *,
    languages=LANGUAGES,
    kinds=None,
    prompts=("english.0", "english.1", "native.0"),
    groups=None,
    evaluations=EVALUATIONS,
) -> Path:
    """Everything that training and evaluation leave in a folder, but the weights."""
    for name, step, model, progress in evaluations:
        home = folder / "evals" / f"{name}-{step}"
        home.mkdir(parents=True)
        scores = list(scores_of(name, step, model, progress, languages, kinds, prompts))
        tasks = {}
        for score in scores:
            key = score["task"] if score["prompt"] == "english.0" else f"{score['task']}@{score['prompt']}"
            tasks[key] = {
                "items": score["items"], "available": 1190, "split": "test", "left_out": {}, "cut_prompts": 0,
                "cut_prompt_tokens": 0, "unfinished": 0, "prompt": score["prompt"], "kind": score["kind"],
                "checked_on": "made-up files" if key.startswith("xnli") else "real files", "overlap": None,
            }  # fmt: skip
            if key == "xquad.arb_Arab":
                tasks[key] |= {
                    "cut_prompts": 12,
                    "cut_prompt_tokens": 3400,
                    "unfinished": 7,
                    "left_out": {"no answer": 190},
                }
                tasks[key]["overlap"] = {
                    "words": 13, "items": 1000, "leaked": [str(n) for n in range(37)], "source": ["1"], "asked": [],
                    "short": 0, "whole": [], "examples": [["3", SENTENCES["arb_Arab"]]], "value_without": {"f1": 41.25},
                }  # fmt: skip
        found = {entry[0]: entry for entry in entries(languages, kinds)}
        for key in tasks:
            task, kind, language, *_ = found[key.partition("@")[0]]
            lines = predictions(task, kind, language, name)
            text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            (home / f"{key}.jsonl").write_text(text, "utf-8")
        base = {"evaluation": "base-0", "fingerprint": "0" * 64}
        content = {
            "scores": scores, "tasks": tasks,
            "model": {"name": model, "path": "owner/Model-7b", "fingerprint": f"{step:x}".zfill(64)},
            "base": None if name == "base" else base,
            "decoding": {"how": "greedy", "max_new_tokens": 64, "stop": [], "choice_by": "auto", "seed": 0},
        }  # fmt: skip
        (home / "scores.json").write_text(json.dumps(content, ensure_ascii=False))
    floors = []
    for score in scores_of("base", 0, "x", 0.0, languages, kinds, prompts[:1]):
        for floor in FLOORS[score["kind"]]:
            value = 100 * chance(floor, score["task"]) / 3
            floors.append(
                {**score, "stage": "floors", "model": floor, "value": value, "low": value, "high": value}
            )
    (folder / "evals" / "floors-0").mkdir()
    (folder / "evals" / "floors-0" / "scores.json").write_text(json.dumps({"scores": floors, "tasks": {}}))
    lines = [
        {
            "step": step, "stage": "coit" if step <= 1000 else "more", "loss": 2 + 3 * math.exp(-step / 400),
            "loss/news/deu_Latn": 2.2 + 3 * math.exp(-step / 300), "loss/hub/jav_Latn": 2.6 + 2 * math.exp(-step / 700),
            "target_tokens_per_second": 9000 + step % 70, "step_seconds": 0.2, "learning_rate": 2e-5 * (1 - step / 2100),
            "grad_norm": 1 + chance(step),
        }
        for step in range(10, 2001, 10)
    ]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    first = [
        mixture_row(f"news_{code[:3]}", code) for code in ("deu_Latn", "arb_Arab", "heb_Hebr", "eng_Latn")
    ]
    second = [mixture_row(f"hub_{code[:3]}", code) for code in ("jav_Latn", "zho_Hans")]
    source = {"name": "news", "languages": ["eng_Latn", "deu_Latn"], "train": 1300, "held_out": 9, "skipped": {"empty": 3}, "fingerprint": "a" * 64}  # fmt: skip
    data = {"stages": [stage("coit", 1000, *first), stage("more", 1000, *second)], "sources": [source]}
    (folder / "data.json").write_text(json.dumps(data))
    provenance = {
        "command": "python -m jaxlingua.train coit.yaml", "repeat": "python -m jaxlingua.train RUN run.folder=ANOTHER",
        "started": "2031-02-03 04:05 UTC", "devices": "8 devices (tpu) in 1 process: data=1 fsdp=8 tensor=1",
        "git_commit": "0123abcd" * 5, "versions": {"jaxlingua": "0.1.0", "jax": "0.10.2"}, "tokenizer": "f" * 64,
    }  # fmt: skip
    (folder / "provenance.json").write_text(json.dumps(provenance))
    (folder / "config.yaml").write_text(json.dumps({"eval": {"groups": groups or {}}}))
    return folder
