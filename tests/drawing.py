"""Sources, wording and draws of InstructAlign's objectives, for the tests of several modules."""

import random
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from jaxlingua.config import DataConfig, MixtureEntry
from jaxlingua.data.objectives import objectives_of
from jaxlingua.data.records import Pair
from jaxlingua.data.wordings import Wording, load_wording, wording_of

ALL = ["denoising", "translation", "bilingual_denoising", "similarity"]
RAW = wording_of("raw")
# Templates that say which they are and can be taken apart again.
SLOTS = {
    "denoising": "{source_language}\t{source_text}\t{target_text}",
    "translation": "{source_language}\t{target_language}\t{source_text}\t{target_text}",
    "bilingual_denoising": "{source_language}\t{source_text}\t{context_language}\t{context}\t{target_text}",
    "similarity": "{source_language}\t{target_language}\t{source_text}\t{target_text}\t{label}",
}


@dataclass
class Records:
    """A source, as far as objectives ask."""

    languages: list[str]
    everything: list
    name: str = "news"
    config: None = None
    fingerprint: str = "0"
    skipped: dict = field(default_factory=dict)

    def records(self, split):
        return self.everything


def sentences(count, languages=("eng_Latn", "deu_Latn"), words=8):
    """Pairs of different sentences with a comma and a full stop; each language has words of its own."""
    draw = random.Random(1)

    def sentence(language, number):
        said = [f"{language[:2]}{draw.randrange(500)}" for _ in range(words)]
        return f"{said[0]}, {' '.join(said[1:])} {language[:3]}{number}."

    return Records(
        list(languages),
        [Pair(n, {language: sentence(language, n) for language in languages}) for n in range(count)],
    )


def made(source, objectives, *, faithful=False, wording=RAW, seed=0, stage="align", name="news", **options):
    """Objectives of an entry with these fields; `records`, `leaking` and `split` go to `objectives_of`."""
    passed = {key: options.pop(key) for key in ("leaking", "split", "records") if key in options}
    if "records" not in passed:
        passed["records"] = source.everything
    entry = MixtureEntry(objectives=objectives, **options)
    return objectives_of(
        name, entry, source, stage=stage, seed=seed, wording=wording, faithful=faithful, **passed
    )


def draws(objectives, passes=1):
    return [objectives.drawn(slot, number) for number in range(passes) for slot in range(len(objectives))]


def tabbed_wording(folder: Path) -> Wording:
    """A wording with one template per objective, whose slots are separated by tabs."""
    said = {name: [template] for name, template in SLOTS.items()}
    said["labels"] = {"same": "yes", "different": "no"}
    (folder / "objectives.yaml").write_text(yaml.safe_dump(said), encoding="utf-8")
    return load_wording(DataConfig(template="raw", wording_folder=str(folder)))


def parts(drawn):
    """The filled slots of a tabbed example by name; the frame raw puts a line break before the answer."""
    names = [name.strip("{}") for name in SLOTS[drawn.objective].split("\t")]
    text = drawn.example.text
    if drawn.example.ends:
        answer = drawn.example.answer_texts[0]
        asked = drawn.example.prompt.removesuffix("\n").split("\t")
        return dict(zip(names, [*asked, answer], strict=True))
    return dict(zip(names, text.split("\t"), strict=True))
