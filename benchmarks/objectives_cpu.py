"""Drawing, noising, tokenizing and packing InstructAlign's examples: jaxlingua against a plain loop.

    python benchmarks/objectives_cpu.py DATA [--cores 2] [--rounds 3] [--windows 2]

DATA holds flores200/<language>.jsonl and nusax/mt/train.csv. The tokenizer is a byte-level BPE with 32,000
pieces that is learned on them. Ours makes windows of 16,384 documents as training does, with data.workers=1
and 0. The plain loop is the design of the released code, written anew: for each access a template, a recipe
and noise on words are drawn and the prompt is tokenized alone by a fast tokenizer of transformers, cut at 128
tokens; a batch is padded to its longest, not packed. Both use the same sentences and templates and draw the
four objectives alike. Each runs on the given cores alone, in turns. Tokens are those of documents, padding
left out.

Linux only: cores are given out with sched_setaffinity.
"""

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from train_cpu import cpu_model

from jaxlingua.config import Config
from jaxlingua.data.noise import draw_recipe, noised_as_released
from jaxlingua.data.slots import fill
from jaxlingua.data.wordings import load_wording
from jaxlingua.languages import display_name
from jaxlingua.tokens import stages as flow
from jaxlingua.tokens.fast import from_files
from jaxlingua.tokens.learned import learn

FLORES = (
    "eng_Latn",
    "ind_Latn",
    "sun_Latn",
    "jav_Latn",
    "bug_Latn",
    "ace_Latn",
    "bjn_Latn",
    "ban_Latn",
    "min_Latn",
)
NUSAX = {
    "eng_Latn": "english",
    "ind_Latn": "indonesian",
    "sun_Latn": "sundanese",
    "jav_Latn": "javanese",
    "bug_Latn": "buginese",
    "ace_Latn": "acehnese",
    "bjn_Latn": "banjarese",
    "ban_Latn": "balinese",
    "min_Latn": "minangkabau",
}
FLORES = tuple(NUSAX)
LONGEST_TOKENS = 128
BATCH_ROWS = 32


def write_nusax(data: Path, folder: Path) -> Path:
    """NusaX's translations as JSONL, a key per language."""
    import csv
    import json

    path = folder / "nusax.jsonl"
    with (data / "nusax/mt/train.csv").open(encoding="utf-8", newline="") as file, path.open("w") as out:
        for row in csv.DictReader(file):
            out.write(json.dumps({code: row[name] for code, name in NUSAX.items()}) + "\n")
    return path


def configured(data: Path, folder: Path) -> Config:
    """Both sets with all four objectives, rows of 512."""
    parallel = {"kind": "parallel", "languages": list(FLORES), "held_out_records": 0}
    return Config.model_validate(
        {
            "data": {
                "folder": str(data),
                "sources": {
                    "flores": {**parallel, "path": "flores200/{language}.jsonl"},
                    "nusax": {**parallel, "path": str(write_nusax(data, folder))},
                },
            },
            "tokens": {"row_length_tokens": 512, "vocab_size": 32_000},
            "stages": [
                {
                    "name": "align",
                    "mixture": {name: {"objectives": "random-xss"} for name in ("flores", "nusax")},
                    "steps": 1000,
                }
            ],
            "train": {"batch_rows": BATCH_ROWS, "held_out_documents": 0},
        }
    )


def ours(config: Config, sources, examples, tokenizer, windows: int) -> float:
    """Tokens per second of so many windows, the start of the workers and the first window left out."""
    [stage] = flow.make_stages(config, sources, examples, tokenizer, cache=None, on_progress=lambda *_: None)
    batches = stage.batches
    begin, tokens = time.perf_counter(), 0
    for number in range(1, windows + 1):
        window = batches._window(number)
        tokens += int(window.corpus.lengths[window.plan.documents].sum()) + len(window.plan.documents)
    seconds = time.perf_counter() - begin
    batches.close()
    return tokens / seconds


def plain_loop(pairs, templates, labels, tokenizer, seconds: float) -> float:
    """Tokens per second of the released design, for about so many seconds."""
    chance = random.Random(0)
    objectives = list(templates)

    def example() -> str:
        (source_language, source), (language, target) = chance.choice(pairs)
        objective = chance.choice(objectives)
        slots = {
            "source_language": display_name(source_language),
            "target_language": display_name(language),
            "source_text": source,
            "target_text": target,
        }
        if objective == "denoising":
            slots |= {
                "source_text": noised_as_released(source, draw_recipe(chance), chance),
                "target_text": source,
            }
        elif objective == "bilingual_denoising":
            slots |= {
                "source_text": noised_as_released(target, draw_recipe(chance), chance),
                "context": source,
                "context_language": display_name(language),
            }
        elif objective == "similarity":
            same = chance.random() < 0.5
            if not same:
                recipe = draw_recipe(chance)
                for side in ("source_text", "target_text"):
                    slots[side] = noised_as_released(slots[side], recipe, chance)
            slots["label"] = labels["same" if same else "different"]
        return fill(chance.choice(templates[objective]), slots)

    begin, tokens = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        rows = [
            tokenizer(example(), truncation=True, max_length=LONGEST_TOKENS)["input_ids"]
            for _ in range(BATCH_ROWS)
        ]
        longest = max(map(len, rows))
        batch = np.array([row + [0] * (longest - len(row)) for row in rows])
        tokens += sum(map(len, rows))
        assert batch.shape == (BATCH_ROWS, longest)
    return tokens / (time.perf_counter() - begin)


def main() -> None:
    """Take turns and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--windows", type=int, default=2, help="windows of 16,384 documents in a round")
    given = parser.parse_args()

    import transformers

    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[: given.cores]))
    with tempfile.TemporaryDirectory() as folder:
        config = configured(given.data.resolve(), Path(folder))
        sources = flow.open_sources(config)
        examples, _ = flow.make_examples(config, sources, {})
        files = learn(flow.learned_texts(examples), 32_000)
        tokenizer = from_files(files, "learned")
        tokenizer.save(Path(folder))
        theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=f"{folder}/tokenizer.json")
    wording = load_wording(config.data)
    pairs = [
        (("eng_Latn", record.texts["eng_Latn"]), (language, record.texts[language]))[::step]
        for source in sources.values()
        for record in source.records("train")
        for language in FLORES[1:]
        for step in (1, -1)
    ]
    found: dict[str, list[float]] = {"worker": [], "no worker": [], "plain loop": []}
    for _ in range(given.rounds):
        for name, workers in (("worker", 1), ("no worker", 0)):
            data = config.data.model_copy(update={"workers": workers})
            changed = config.model_copy(update={"data": data})
            found[name].append(ours(changed, sources, examples, tokenizer, given.windows))
        found["plain loop"].append(plain_loop(pairs, wording.objectives, wording.labels, theirs, 10))
    for line in told(found, given, len(pairs)):
        print(line)
    if min(statistics.median(found[name]) for name in ("worker", "no worker")) < 100_000:
        sys.exit("fewer than 100,000 tokens a second")


def told(found: dict[str, list[float]], given: argparse.Namespace, pairs: int) -> Iterator[str]:
    """The table for RESULTS.md."""
    plain = statistics.median(found["plain loop"])
    yield "| | tokens per second, median (least to most) | ratio to the plain loop |"
    yield "|---|---|---|"
    names = {
        "worker": "windows, data.workers=1",
        "no worker": "windows, data.workers=0",
        "plain loop": "plain loop",
    }
    for key, name in names.items():
        rates = found[key]
        middle = statistics.median(rates)
        yield f"| {name} | {middle:,.0f} ({min(rates):,.0f} to {max(rates):,.0f}) | {middle / plain:.1f} |"
    yield (
        f"\n- {cpu_model()}, {given.cores} cores; {pairs:,} pairs in 16 directions; {given.rounds} rounds of "
        f"{given.windows} windows and of 10 s"
    )


if __name__ == "__main__":
    main()
