"""The check for leaks by n-grams: its speed and its memory, against lm-evaluation-harness's Janitor.

    python benchmarks/overlap.py FILE... [--words 10000000]

Each file holds a JSON object per line, whose strings are training texts; every 50th of them is an item. The
last row is made-up text of so many words in documents of 500, from a vocabulary of 200,000 whose frequencies
fall as in text, to see what a run's size does. Janitor registers the n-grams of the items and looks for each
of the training text's among them, in Python (its C++ module is not part of the package); ours keeps those of
the training text. Both look for 13 words. Time is CPU time of one process, the best of three.
"""

import argparse
import contextlib
import importlib.metadata
import io
import json
import os
import platform
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
from train_cpu import cpu_model

from jaxlingua.eval.grams import TrainingGrams
from jaxlingua.eval.overlap import overlap
from jaxlingua.eval.tasks.item import Item

EVERY = 50
VOCABULARY = 200_000
DOCUMENT_WORDS = 500


def main() -> None:
    """Print the table and all that it takes to repeat it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, help="JSON lines with text in several scripts")
    parser.add_argument("--words", type=int, default=10_000_000, help="of the made-up text")
    arguments = parser.parse_args()
    head = "text | words | words per second | Janitor | bytes per word | most MB | items per second | found"
    print(f"| {head} |\n|{'---|' * len(head.split('|'))}")
    for path in arguments.files:
        print(row(f"{path.parent.name}/{path.stem}", strings_of(path), is_compared=True), flush=True)
    print(row("made up", made_up(arguments.words), is_compared=False))
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("numpy", "regex", "lm_eval")]
    machine = f"{cpu_model()}, {os.cpu_count()} cores; Python {platform.python_version()}"
    print(f"\n- Machine: {machine}, {', '.join(versions)}")
    print(f"- Command: `python benchmarks/{' '.join([Path(sys.argv[0]).name, *sys.argv[1:]])}`")


def strings_of(path: Path) -> list[str]:
    with path.open(encoding="utf-8") as file:
        return [text for line in file for text in json.loads(line).values() if isinstance(text, str)]


def made_up(words: int) -> list[str]:
    """Documents of words drawn with frequencies that fall with the rank."""
    rng = np.random.default_rng(0)
    frequency = 1 / (np.arange(VOCABULARY) + 2.7)
    vocabulary = np.array([f"word{n:x}" for n in range(VOCABULARY)])
    drawn = rng.choice(
        VOCABULARY, size=(words // DOCUMENT_WORDS, DOCUMENT_WORDS), p=frequency / frequency.sum()
    )
    return [" ".join(vocabulary[line]) for line in drawn]


def row(name: str, texts: list[str], *, is_compared: bool) -> str:
    """One line of the table."""
    items = [Item(str(n), "und_Zyyy", "", (), text) for n, text in enumerate(texts[::EVERY])]
    grams = TrainingGrams.of(texts)
    words = grams.training_words
    seconds = best_of_three(lambda: TrainingGrams.of(texts))
    checking = best_of_three(lambda: overlap(items, grams))
    found = overlap(items, grams)
    tracemalloc.start()
    TrainingGrams.of(texts)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    kept = grams.grams.nbytes + grams.wholes.nbytes
    theirs = f"{words / janitor_seconds(texts):,.0f}" if is_compared else "not run"
    return (
        f"| {name} | {words:,} | {words / seconds:,.0f} | {theirs} | {kept / words:.1f} | {most / 1e6:.0f} "
        f"| {len(items) / checking:,.0f} | {len(found.leaked):,} of {len(items):,} |"
    )


def janitor_seconds(texts: list[str]) -> float:
    with contextlib.redirect_stdout(io.StringIO()):
        from lm_eval.decontamination.janitor import Janitor

        def check() -> None:
            janitor = Janitor(ngram_n=13)
            for text in texts[::EVERY]:
                janitor.register_contaminant_python(text)
            for text in texts:
                janitor.clean_python(text)

        return best_of_three(check)


def best_of_three(work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(3):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return min(seconds)


if __name__ == "__main__":
    main()
