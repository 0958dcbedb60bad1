"""Small tasks of our own in two languages, one of each kind that has answers, and the prompts that arms make of them.

`python -m tests.eval.in_context.world` writes golden_prompts.jsonl anew: after the wording has changed on purpose.
"""

import itertools
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import yaml

from jaxlingua.config import Config
from jaxlingua.data.sources import open_source
from jaxlingua.eval.in_context.complete import completed
from jaxlingua.eval.in_context.retrieval.lexical import lexical
from jaxlingua.eval.tasks.item import Task
from jaxlingua.eval.tasks.make import make_tasks

GOLDEN = Path(__file__).parent / "golden_prompts.jsonl"
ABOUT = {"about": "x", "citation": "y", "license": "CC0", "version": 1, "checked_on": "made-up files"}
LANGUAGES = {"eng_Latn": "en", "ind_Latn": "id", "ace_Latn": "ace"}

# The same six sentences in English, Indonesian and Javanese: four are shown, two are asked.
SENTENCES = [
    ("The soup is cold.", "Supnya dingin.", "Sope adhem."),
    ("The boat is new.", "Perahunya baru.", "Praune anyar."),
    ("I like the garden.", "Saya suka kebunnya.", "Aku seneng kebone."),
    ("The road is long.", "Jalannya panjang.", "Dalane dawa."),
    ("I like the soup.", "Saya suka supnya.", "Aku seneng sope."),
    ("The road is wide.", "Jalannya lebar.", "Dalane amba."),
]
CODES = {"eng_Latn": "en", "ind_Latn": "ind", "jav_Latn": "jav"}  # columns of pairs
SHOWN, ASKED = range(4), range(4, 6)
MOODS = ["negative", "neutral", "positive", "neutral", "positive", "neutral"]
# Of each kind: the entry that is asked.
ENTRIES = {
    "choice": "mood.ind_Latn",
    "text choice": "why.ind_Latn",
    "qa": "river.ind_Latn",
    "translation": "say.ind_Latn-jav_Latn",
    "number": "sum.ind_Latn",
    "questions": "notes.ind_Latn",
    "pairs": "news.ind_Latn-jav_Latn",
}
SOURCES = {
    "news": {"kind": "parallel", "path": "news.jsonl", "languages": [*CODES], "held_out_records": 2},
    "notes": {"kind": "qa", "path": "notes.json", "language": "ind_Latn"},
}  # fmt: skip


def write(home: Path) -> None:
    """Task files and their data below `home`."""
    for name, task in _tasks().items():
        _write(home / "tasks" / f"{name}.yaml", yaml.safe_dump({**ABOUT, **task}, sort_keys=False))
    for split, chosen in (("train", SHOWN), ("test", ASKED)):
        for side, code in enumerate(("en", "id")):
            texts = {n: SENTENCES[n][side] for n in chosen}
            moods = [{"id": n, "text": text, "label": MOODS[n]} for n, text in texts.items()]
            why = [
                {"id": n, "premise": text, "choice1": f"A {text}", "choice2": f"B {text}"}
                | {"question": "cause" if n % 2 else "effect", "label": n % 2}
                for n, text in texts.items()
            ]
            _write(home / f"mood/{code}.{split}.jsonl", _lines(moods))
            _write(home / f"why/{code}.{split}.jsonl", _lines(why))
            _write(home / f"river/{code}.{split}.json", _squad(texts))
            _write(
                home / f"sum/{code}.{split}.tsv",
                "".join(f"{text} 1 + {n}?\t{1 + n}\n" for n, text in texts.items()),
            )
        pairs = [{"id": n, **dict(zip(CODES.values(), SENTENCES[n], strict=True))} for n in chosen]
        _write(home / f"say/{split}.jsonl", _lines(pairs))
    _write(home / "mood/ace.test.jsonl", _lines([{"id": 4, "text": "Lon galak.", "label": "positive"}]))
    _write(home / "news.jsonl", _lines([dict(zip(CODES, each, strict=True)) for each in SENTENCES]))
    _write(home / "notes.json", _squad({n: SENTENCES[n][1] for n in range(6)}))


def _tasks() -> dict[str, dict]:
    two = {"splits": ["test", "train"], "languages": LANGUAGES, "is_parallel": True}
    labelled = {"id": "id", "label": "label"}
    return {
        "mood": two | _layout("mood/{code}", "jsonl", {**labelled, "text": "text"})
        | {"kind": "choice", "prompts": "sentiment", "labels": ["negative", "neutral", "positive"]},
        "why": two | _layout("why/{code}", "jsonl", {**labelled, **{n: n for n in ("premise", "choice1", "choice2", "question")}})
        | {"kind": "choice", "prompts": "cause", "labels": {"choice1": 0, "choice2": 1}, "choices": ["{choice1}", "{choice2}"]},
        "river": two | _layout("river/{code}", "squad", {}, "json") | {"kind": "qa"},
        "sum": two | _layout("sum/{code}", "tsv", {"question": "1", "answer": "2"}) | {"kind": "number"},
        "say": two | {"kind": "translation", "is_parallel": False, "stop": ["\n\n"], "languages": CODES}
        | _layout("say/", "jsonl", {"id": "id", "text": "{code}"}),
        "tell": two | {"kind": "open", "is_parallel": False, "prompts": "open"}
        | _layout("mood/{code}", "jsonl", {"instruction": "text", "input": "label"}),
    }  # fmt: skip


def _layout(start: str, form: str, fields: dict[str, str], ending: str = "") -> dict:
    dot = "" if start.endswith("/") else "."
    files = {split: f"{start}{dot}{split}.{ending or form}" for split in ("test", "train")}
    return {"data": [{"format": form, "files": files, **({"fields": fields} if fields else {})}]}


def _squad(texts: dict[int, str]) -> str:
    paragraphs = [
        {"context": text, "qas": [{"id": f"q{n}", "question": f"{text.split()[0]} {n}?", "answers": [_last(text)]}]}
        for n, text in texts.items()
    ]  # fmt: skip
    return json.dumps({"data": [{"title": "", "paragraphs": paragraphs}]})


def _last(text: str) -> dict:
    word = text.rstrip(".").split()[-1]
    return {"text": word, "answer_start": text.index(word)}


def _lines(records: list[dict]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


# ── prompts ─────────────────────────────────────────────────────────────────────────────────────────────────


def asked(home: Path, entry: str, template: str = "raw", prompts: str = "english.0", **arm: object) -> Task:
    """The task of an entry with its context, before anything of it is chosen."""
    in_context = {"count": 2, "align_count": 1, "retrieval": ["overlap"], **arm}
    stage = {"name": "s", "mixture": {"news": {}}, "steps": 1}
    config = Config.model_validate(
        {
            "data": {"template": template, "folder": str(home), "sources": SOURCES},
            "stages": [stage],
            "eval": {"tasks": [entry], "prompts": [prompts], "data_folder": str(home)}
            | {"task_folder": str(home / "tasks"), "in_context": in_context},
        }
    )
    sources = {name: open_source(name, each, str(home)) for name, each in config.data.sources.items()}
    (task,) = make_tasks(config, sources)
    return task


def made(home: Path, entry: str, **options: object) -> Task:
    """The task of an entry in the prompts of an arm."""
    task = asked(home, entry, **options)
    retrieval = ["overlap"] if task.context is None else task.context.config.retrieval
    return completed(task, [lexical(name, seed=0) for name in retrieval])


def arms() -> Iterator[tuple[str, dict[str, str]]]:
    """Each kind with each combination that it can be asked in."""
    axes = (
        ("none", "mono", "cross", "pivot"),
        ("none", "query", "label", "both"),
        ("after", "before"),
        ("line", "table"),
        ("source", "target"),
    )
    names = ("exemplars", "align", "align_place", "format", "labels")
    for kind in ENTRIES:
        for values in itertools.product(*axes):
            arm = dict(zip(names, values, strict=True))
            has_labels = arm["labels"] == "target" or arm["align"] in ("label", "both")
            is_without = kind == "questions" and arm["exemplars"] in ("cross", "pivot")  # it has one language
            if not is_without and (kind == "choice" or not has_labels):
                yield kind, arm


def told(arm: dict[str, str]) -> str:
    return " ".join(arm.values())


def rendered(home: Path, kind: str, arm: dict[str, str]) -> dict:
    """The first item as it is asked."""
    task = made(home, ENTRIES[kind], **PARALLEL.get(kind, {"parallel": "say.train"}), **arm)
    return {"prompt": task.items[0].prompt, "choices": list(task.items[0].choices), "stop": list(task.stop)}


PARALLEL = {"questions": {"parallel": "news"}, "pairs": {"parallel": "news"}}


if __name__ == "__main__":
    found: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        for kind, arm in arms():
            shown = rendered(Path(folder), kind, arm)
            key = json.dumps([kind, shown])
            found.setdefault(key, {"kind": kind, "arms": [], **shown})["arms"].append(told(arm))
    GOLDEN.write_text(
        "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in found.values()), "utf-8"
    )
