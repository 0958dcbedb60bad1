"""What each filter of parallel text takes from clean pairs, and which injected faults it finds.

    python benchmarks/filters.py DATA_FOLDER

DATA_FOLDER has flores200/<code>.jsonl, tatoeba/v1/<language>.jsonl, tico19/<language>.jsonl and
multi30k/train.jsonl. The first table is of pairs as they are; the second of FLORES-200 pairs of which one in
ten got the fault of its row, and tells the share of those that are dropped. English is the first language;
shares are means over the others. What several filters drop is what any of them drops alone.
"""

import argparse
import json
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from language_identification import SCRIPTS

from jaxlingua.config import FiltersConfig
from jaxlingua.data.filters import apply_filters
from jaxlingua.data.records import Pair
from jaxlingua.identify import individual_language

ENGLISH = "eng_Latn"
FILTERS = {
    "identical": {"identical": True},
    "length_ratio 2": {"length_ratio": 2.0},
    "length_ratio 3": {"length_ratio": 3.0},
    "numbers": {"numbers": True},
    "urls": {"urls": True},
    "duplicates": {"duplicates": True},
    "script 0.5": {"script": 0.5},
    "language 0.9": {"language": 0.9},
}
STRICT = ("length_ratio 2", "numbers")  # left out where all that are recommended are told together
Texts = dict[str, str]
Fault = Callable[[list[Texts], int, str], str]


def main() -> None:
    """Filter clean pairs and faulty ones, print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--pairs", type=int, default=300, help="pairs per language and set at most")
    parser.add_argument("--faulty", type=int, default=200, help="pairs per language and fault")
    arguments = parser.parse_args()
    sets = {name: read(arguments.data, arguments.pairs) for name, read in SETS.items()}
    flores = {code: pairs[: arguments.faulty] for code, pairs in sets["FLORES-200"].items()}
    header(f"clean pairs dropped, % | {' | '.join(FILTERS)} | recommended")
    for name, of_languages in sets.items():
        print(clean_row(name, of_languages), flush=True)
    header(f"faulty pairs found, % | {' | '.join(FILTERS)} | recommended | all")
    for name, fault in FAULTS.items():
        print(fault_row(name, fault, flores), flush=True)
    header(f"CPU seconds per million pairs | {' | '.join(FILTERS)} | all")
    print(cost_row(flores))


def header(cells: str) -> None:
    print(f"\n| {cells} |\n{'|---' * (cells.count('|') + 1)}|")


def read_flores(folder: Path, most: int) -> dict[str, list[Texts]]:
    """English beside each of the other languages."""
    sides = {path.stem: column(path, "text") for path in sorted((folder / "flores200").glob("*_*.jsonl"))}
    english = sides.pop(ENGLISH)
    return {code: beside(english, texts, code)[:most] for code, texts in sides.items()}


def read_source_and_target(folder: Path, most: int) -> dict[str, list[Texts]]:
    """English beside each language of a folder, `src` beside `tgt`."""
    scripts = {individual_language(one): script for script, them in SCRIPTS.items() for one in them.split()}
    of_languages = {}
    for path in sorted(folder.glob("*.jsonl")):
        language = individual_language(path.stem)
        code = f"{language}_{scripts.get(language, 'Latn')}"
        of_languages[code] = some(beside(column(path, "src"), column(path, "tgt"), code), most)
    return of_languages


def read_multi30k(folder: Path, most: int) -> dict[str, list[Texts]]:
    """Captions in English, German and French."""
    path = folder / "multi30k" / "train.jsonl"
    return {
        code: some(beside(column(path, "en"), column(path, name), code), most)
        for code, name in (("deu_Latn", "de"), ("fra_Latn", "fr"))
    }


SETS: Mapping[str, Callable[[Path, int], dict[str, list[Texts]]]] = {
    "FLORES-200": read_flores,
    "Tatoeba": lambda folder, most: read_source_and_target(folder / "tatoeba" / "v1", most),
    "TICO-19": lambda folder, most: read_source_and_target(folder / "tico19", most),
    "Multi30k": read_multi30k,
}


def column(path: Path, field: str) -> list[str]:
    return [json.loads(line)[field] for line in path.read_text("utf-8").strip("\n").split("\n")]


def beside(english: list[str], texts: list[str], code: str) -> list[Texts]:
    return [{ENGLISH: first, code: other} for first, other in zip(english, texts, strict=True)]


def some(pairs: list[Texts], most: int) -> list[Texts]:
    return pairs if len(pairs) <= most else random.Random(0).sample(pairs, most)


# ── faults: what becomes of the other side, given all pairs and the place of this one ───────────────────────


def next_of(pairs: list[Texts], index: int) -> Texts:
    return pairs[(index + 1) % len(pairs)]


def beginning(share: float) -> Fault:
    return lambda pairs, index, code: pairs[index][code][: max(1, round(share * len(pairs[index][code])))]


SWAPPED, PAIR_AGAIN = "sides swapped", "pair of the next line, so that it is there twice"
FAULTS: Mapping[str, Fault] = {
    "English left as it is": lambda pairs, index, code: pairs[index][ENGLISH],
    "another English sentence": lambda pairs, index, code: next_of(pairs, index)[ENGLISH],
    SWAPPED: lambda pairs, index, code: pairs[index][ENGLISH],
    PAIR_AGAIN: lambda pairs, index, code: next_of(pairs, index)[code],
    "sentence of the next line": lambda pairs, index, code: next_of(pairs, index)[code],
    "first half only": beginning(1 / 2),
    "first quarter only": beginning(1 / 4),
    "HTML around it": lambda pairs, index, code: f'<p class="text">{pairs[index][code]}</p>',
    "UTF-8 read as Latin-1": lambda pairs, index, code: pairs[index][code].encode().decode("latin-1"),
}


def faulty(name: str, fault: Fault, pairs: list[Texts], code: str) -> list[Pair]:
    """Every tenth pair with the fault; two of the faults change the English side as well."""
    records = []
    for index, texts in enumerate(pairs):
        first, other = texts[ENGLISH], texts[code]
        if index % 10 == 0:
            other = fault(pairs, index, code)
            first = {SWAPPED: texts[code], PAIR_AGAIN: next_of(pairs, index)[ENGLISH]}.get(name, first)
        records.append(Pair(index, {ENGLISH: first, code: other}))
    return records


# ── rows of the tables ──────────────────────────────────────────────────────────────────────────────────────


def dropped(records: list[Pair], code: str) -> dict[str, set[int]]:
    """Indices of the records that each filter drops alone."""
    indices = {record.index for record in records}
    of_filters = {}
    for name, options in FILTERS.items():
        kept = apply_filters(records, FiltersConfig(**options), [ENGLISH, code]).kept
        of_filters[name] = indices - {record.index for record in kept}
    return of_filters


def recommended(of_filters: Mapping[str, set[int]]) -> set[int]:
    return set().union(*(found for name, found in of_filters.items() if name not in STRICT))


def clean_row(name: str, of_languages: Mapping[str, list[Texts]]) -> str:
    """Mean over languages in percent, and the language that most is taken from."""
    shares = {}
    for code, pairs in of_languages.items():
        of_filters = dropped([Pair(*one) for one in enumerate(pairs)], code)
        found = [*of_filters.values(), recommended(of_filters)]
        shares[code] = [100 * len(indices) / len(pairs) for indices in found]
    cells = []
    for of_column in np.array(list(shares.values())).T:
        most = int(of_column.argmax())
        where = f" ({list(shares)[most]} {of_column[most]:.1f})" if of_column[most] else ""
        cells.append(f"{of_column.mean():.2f}{where}")
    return f"| {name}, {len(of_languages)} languages | {' | '.join(cells)} |"


def fault_row(name: str, fault: Fault, of_languages: Mapping[str, list[Texts]]) -> str:
    """Share of the faulty pairs that each filter drops, mean over languages in percent."""
    shares = []
    for code, pairs in of_languages.items():
        records = faulty(name, fault, pairs, code)
        of_filters = dropped(records, code)
        found = [*of_filters.values(), recommended(of_filters), set().union(*of_filters.values())]
        if name == PAIR_AGAIN:  # the second of the two is the one that goes
            found = [{index - 1 for index in indices} for indices in found]
        injected = set(range(0, len(records), 10))
        shares.append([100 * len(indices & injected) / len(injected) for indices in found])
    return f"| {name} | {' | '.join(f'{share:.0f}' for share in np.mean(shares, axis=0))} |"


def cost_row(of_languages: Mapping[str, list[Texts]]) -> str:
    """Processor time by filter, and with all of them on."""
    cells = []
    everything = {name: value for options in FILTERS.values() for name, value in options.items()}
    for options in (*FILTERS.values(), everything):
        start = time.process_time()
        for code, pairs in of_languages.items():
            records = [Pair(*one) for one in enumerate(pairs)]
            apply_filters(records, FiltersConfig(**options), [ENGLISH, code])
        seconds = time.process_time() - start
        cells.append(f"{1e6 * seconds / sum(map(len, of_languages.values())):.0f}")
    return f"| FLORES-200 | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
