"""The files that the pages speak of, small and made up: texts, benchmarks, a run, its checkpoint as a public one."""

import csv
import json
import re
import shutil
from pathlib import Path

import yaml

from jaxlingua.config import CldrSource
from jaxlingua.data.cldr import open_cldr
from tests.docs.shell import ROOT, blocks_of

PAIRS = 60
# Codes of files, and of what is in them.
LANGUAGES = {
    "en": "eng_Latn", "jv": "jav_Latn", "id": "ind_Latn", "ar": "arb_Arab", "el": "ell_Grek", "hi": "hin_Deva", "tr": "tur_Latn",
    "vi": "vie_Latn", "zh": "zho_Hans",
}  # fmt: skip
FLORES = ("eng", "ind", "sun", "jav", "bug", "ace", "bjn", "ban", "min")
HUB_NAMES = ("TinyLlama/TinyLlama_v1.1", "meta-llama/Llama-3.2-1B", "meta-llama/Llama-2-7b-hf")


def readme_config() -> str:
    """my.yaml as README.md has it."""
    return next(block for _, block in blocks_of("README.md", "yaml") if block.startswith("# my.yaml"))


def write_texts(home: Path) -> None:
    """my.yaml and what it and the recipes read."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "my.yaml").write_text(readme_config(), "utf-8")
    cldr = open_cldr("phrases", CldrSource(languages=list(LANGUAGES.values())))
    texts = [pair.texts for pair in cldr.records("all")[:PAIRS]]
    for name, code in LANGUAGES.items():
        sides = [pair[code] for pair in texts]
        if name in ("en", "zh"):
            asked = [
                {"instruction": f"{n}. {side}", "input": "", "output": side} for n, side in enumerate(sides)
            ]
            (home / f"alpaca_{name}.json").write_text(json.dumps(asked), "utf-8")
        for prefix in ("news", "wikimatrix"):
            (home / f"{prefix}.{code}").write_text("\n".join(sides) + "\n", "utf-8")
    (home / "alpaca.json").write_text(
        json.dumps(json.loads((home / "alpaca_en.json").read_text())[:3]), "utf-8"
    )
    for split, count in (("dev", 997), ("devtest", 1012)):  # FLORES-200 as it is unpacked
        (home / split).mkdir()
        for name in FLORES:
            (home / split / f"{name}_Latn.{split}").write_text(
                "".join(f"{split} {n}\n" for n in range(count))
            )
    (home / "en").mkdir()
    for part in ("a", "b"):
        (home / "en" / f"{part}.jsonl").write_text("{}\n" * 70_000)


def write_named_files(home: Path) -> None:
    """Files that a page shows in full, below their names; and the wording of a language."""
    text = "\n".join(
        (ROOT / "docs" / page).read_text("utf-8")
        for page in ("tasks.md", "generate.md", "vocabulary.md", "allocate.md", "scaling.md")
    )
    for name, content in re.findall(r"`(\S+)`:\n\n```\w+\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        _write(home / name, content)
    _write(home / "mine" / "localized.yaml", blocks_of("docs/wording.md", "yaml")[0][1])


def write_benchmarks(folder: Path) -> None:
    """Two items of each benchmark that a page asks for, in its published form."""
    for name, text in (("en", "The ferry leaves at eight."), ("el", "Το πλοίο φεύγει στις οκτώ.")):
        words = text.rstrip(".").split()
        asked = [
            {"id": str(n), "question": f"{n}?", "answers": [{"text": word, "answer_start": text.index(word)}]}
            for n, word in enumerate(words[:2])
        ]
        squad = {"data": [{"title": "", "paragraphs": [{"context": text, "qas": asked}]}]}
        _write(folder / f"xquad/xquad.{name}.json", json.dumps(squad))
    for code in ("eng_Latn", "ell_Grek", "ind_Latn"):
        _write(folder / f"flores200_dataset/devtest/{code}.devtest", f"{code} one\n{code} two\n")
    cause = {
        "premise": "Hujan.",
        "choice1": "Jalan basah.",
        "choice2": "Jalan kering.",
        "question": "effect",
        "label": 0,
    }
    _write(
        folder / "xcopa/id/test.id.jsonl", "".join(json.dumps({**cause, "idx": n}) + "\n" for n in range(2))
    )
    with _made(folder / "nusax/sentiment/minangkabau/test.csv").open("w", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [("id", "text", "label"), (1, "Rancak bana.", "positive"), (2, "Buruak.", "negative")]
        )
    shown = [("It is good.", "Iko rancak."), ("It is bad.", "Iko buruak."), ("It is new.", "Iko baru.")]
    _write(folder / "nusax/mt/train.csv", _table("id,english,minangkabau", shown))
    solved = [
        (text, label) for (text, _), label in zip(shown, ("positive", "negative", "neutral"), strict=True)
    ]
    _write(folder / "nusax/sentiment/english/train.csv", _table("id,text,label", solved))


def publish(export: Path, home: Path) -> None:
    """Let an exported folder stand for public checkpoints."""
    for name in (*HUB_NAMES, "MODEL"):
        shutil.copytree(export, home / name)


def add_names(home: Path) -> None:
    """The names that stand for others on the pages: RUN, CONFIG, FOLDER; more runs for what needs several."""
    for name in ("my-seed1", "greek", "greek-seed1", "mine"):
        shutil.copytree(home / "runs" / "my", home / "runs" / name)
    for config in (home / "runs").glob("*-seed1/config.yaml"):
        config.write_text(config.read_text("utf-8").replace("seed: 0", "seed: 1"), "utf-8")
    shutil.copytree(home / "MODEL", home / "EDITED")
    config = home / "EDITED" / "config.json"
    content = json.loads(config.read_text("utf-8"))
    config.write_text(json.dumps({**content, "rope_scaling": {"rope_type": "longrope"}}), "utf-8")
    (home / "RUN").symlink_to("runs/my")
    (home / "FOLDER").symlink_to(".")
    shutil.copy(home / "my.yaml", home / "CONFIG")


def begin_from_checkpoint(home: Path) -> None:
    """my.yaml as README.md changes it: the model is a public checkpoint's, and so is the vocabulary."""
    content = yaml.safe_load(readme_config())
    del content["tokens"]["vocab_size"]
    content["model"] = {"init": "huggingface", "path": "TinyLlama/TinyLlama_v1.1"}
    (home / "my.yaml").write_text(yaml.safe_dump(content), "utf-8")


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _table(head: str, rows: list[tuple[str, str]]) -> str:
    return "\n".join([head, *(",".join([str(n), *row]) for n, row in enumerate(rows))]) + "\n"


def _write(path: Path, text: str) -> None:
    _made(path).write_text(text, "utf-8")
