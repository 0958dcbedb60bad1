"""What pieces of a new language are worth, by how their rows begin: four scripts, beside English.

    python benchmarks/vocabulary.py FOLDER_OF_DATA [RUNS_FOLDER] [--jobs 2]

A model of about a million parameters learns English, and a little of four other languages that its tokenizer
writes in bytes. For each of them `python -m jaxlingua.tokens extend` makes folders with 1,000 pieces more,
one for each way in which rows can begin; these, and the base as it is, are then tuned on text of that
language by ordinary runs of `python -m jaxlingua.train`, of one thread each. What is finished in RUNS_FOLDER
is not made again.

All arms see the same text once, in steps of the same number of tokens, so that the base without new pieces
takes more steps for it; in a second arm it takes as many steps as the others, and so sees less text. Held out
are whole articles. The outcome is bits per byte there, before and after tuning, and what becomes of English.
Intervals are of 2,000 draws of held-out articles, the same for all arms. A fifth language, in the script of
English, is not trained: of it is told what its pieces change in English text.
"""

import argparse
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import numpy as np
import yaml
from train_cpu import cpu_model

# One thread per run, and an allocator that keeps its pages (RESULTS.md, "A training step on a CPU").
SURROUNDINGS = {
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "OMP_NUM_THREADS": "1",
    "GLIBC_TUNABLES": "glibc.malloc.arena_max=1:glibc.malloc.mmap_max=0:"
    "glibc.malloc.trim_threshold=17179869184",
}
ENGLISH, SWAHILI = "eng_Latn", "swh_Latn"
# In the names of xquad, flores200, tatoeba, tico19 and mlqa.
NAMES = {
    "hin_Deva": ("hi", "hin_Deva", "hin", "hi", None),
    "arb_Arab": ("ar", "arb_Arab", "ara", "ar", "ar"),
    "ell_Grek": ("el", "ell_Grek", "ell", None, None),
    "zho_Hans": ("zh", "zho_Hans", "cmn", "zh", "zh"),
}
SHOWN = {
    SWAHILI: "Swahili",
    "hin_Deva": "Hindi", "arb_Arab": "Arabic", "ell_Grek": "Greek", "zho_Hans": "Chinese", ENGLISH: "English"
}  # fmt: skip
HELD_OUT_ARTICLES = 8  # of XQuAD's 48, the last
HELD_OUT_ROWS = 100  # of FLORES, the last ones: about thirty articles
HELD_OUT_VERSES = 400  # of the New Testament in Swahili, the last ones
BLOCKS = 8  # of FLORES
LONGEST = 240  # bytes of a text, so that no tokenizer cuts it at the end of a row

BASE = "base-run/export"  # under RUNS_FOLDER, as all that is made
BYTES, STEPS, TWO = "no new pieces, same text", "no new pieces, same steps", "pieces, rows first"
METHODS, KEPT = ("mean", "pieces", "distilled"), "kept"
ARMS = (BYTES, STEPS, *METHODS, TWO)


class Sizes(NamedTuple):
    """The model, the text, and the lengths."""

    preset: str = "tiny-0.6m"
    layers: int = 3
    vocab: int = 2048
    pieces: int = 1000
    base_steps: int = 1000
    base_rows: int = 8
    rows: int = 4
    row_length: int = 256
    train_bytes: int = 300_000  # of each new language
    base_bytes: int = 50_000  # of it that the base has seen
    english_bytes: int = 4_000_000
    seeds: tuple[int, ...] = (0, 1)


QUICK = Sizes("tiny-test", 2, 400, 100, 8, 2, 2, 256, 20_000, 5_000, 200_000, (0,))


# ── text ────────────────────────────────────────────────────────────────────────────────────────────────────


def cut(text: str) -> Iterator[str]:
    """A text in parts of at most `LONGEST` bytes, at ends of sentences, else at spaces, else anywhere."""
    kept = ""
    for part in re.findall(r".+?(?:[.!?।。！？؟]+\s*|\s+|$)", " ".join(text.split())):
        while len(part.encode()) > LONGEST:
            yield from filter(None, [kept.strip()])
            kept, most = "", max(n for n in range(len(part)) if len(part[:n].encode()) <= LONGEST)
            yield part[:most]
            part = part[most:]
        if len((kept + part).encode()) > LONGEST:
            yield kept.strip()
            kept = ""
        kept += part
    yield from filter(None, [kept.strip()])


class Texts:
    """What is trained on and what is held out, of a folder of data."""

    def __init__(self, data: Path):
        self.data = data

    def rows(self, path: str) -> list[dict[str, Any]]:
        """Of a JSON lines file."""
        return [json.loads(line) for line in (self.data / path).open(encoding="utf-8")]

    def contexts(self, path: str) -> list[list[str]]:
        """Paragraphs of each article of a file like SQuAD."""
        articles = json.loads((self.data / path).read_text("utf-8"))["data"]
        return [[one["context"] for one in article["paragraphs"]] for article in articles]

    def held_out(self, language: str) -> list[list[str]]:
        """Blocks of texts: articles of XQuAD, then those of FLORES in `BLOCKS` groups."""
        xquad, flores, *_ = NAMES.get(language, ("en", ENGLISH))
        blocks = self.contexts(f"xquad/xquad.{xquad}.json")[-HELD_OUT_ARTICLES:]
        texts = [row["text"] for row in self.rows(f"flores200/{flores}.jsonl")][-HELD_OUT_ROWS:]
        urls = [row["URL"] for row in self.rows("flores200/meta.jsonl")][-HELD_OUT_ROWS:]
        articles = list(dict.fromkeys(urls))
        for block in np.array_split(np.arange(len(articles)), BLOCKS):
            own = {articles[place] for place in block}
            blocks.append([text for text, url in zip(texts, urls, strict=True) if url in own])
        return [[part for text in block for part in cut(text)] for block in blocks]

    def training(self, language: str, most_bytes: int) -> list[str]:
        """Texts in a fixed order by chance, none of them held out."""
        found: list[str] = []
        xquad, flores, tatoeba, tico, mlqa = NAMES.get(language, ("en", ENGLISH, None, None, "en"))
        for article in self.contexts(f"xquad/xquad.{xquad}.json")[:-HELD_OUT_ARTICLES]:
            found += article
        articles = [row["URL"] for row in self.rows("flores200/meta.jsonl")]
        rows = self.rows(f"flores200/{flores}.jsonl")
        held_out = set(articles[-HELD_OUT_ROWS:])
        found += [row["text"] for row, url in zip(rows, articles, strict=True) if url not in held_out]
        if tatoeba:
            found += [row["tgt"] for row in self.rows(f"tatoeba/large/{tatoeba}.jsonl")]
        if tico:
            found += [row["tgt"] for row in self.rows(f"tico19/{tico}.jsonl")]
        if mlqa:
            path = f"mlqa/dev-context-{mlqa}-question-{mlqa}.json"
            found += [text for article in self.contexts(path) for text in article]
        if language == ENGLISH:
            found += [row["text"] for row in self.rows("bible/eng.jsonl")]
            found += [row["output"] for row in self.rows("instructions/alpaca_en.jsonl")]
            for article in self.contexts("tydiqa_goldp/tydiqa.goldp.en.train.json"):
                found += article
            for name in ("tur", "vie", "ind"):
                found += [row["src"] for row in self.rows(f"tatoeba/large/{name}.jsonl")]
        parts = list(dict.fromkeys(part for text in found for part in cut(text)))
        own = {part for block in self.held_out(language) for part in block}
        parts = [part for part in parts if part not in own]
        random.Random(0).shuffle(parts)
        return within(parts, most_bytes)


def within(texts: Sequence[str], most_bytes: int) -> list[str]:
    """As many of the first as have `most_bytes` together."""
    ends = np.cumsum([len(text.encode()) for text in texts])
    return list(texts[: int(np.searchsorted(ends, most_bytes, side="right"))])


def write(path: Path, texts: Iterable[str]) -> None:
    """A text per line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{text}\n" for text in texts), "utf-8")


# ── runs ────────────────────────────────────────────────────────────────────────────────────────────────────


class Study:
    """The folders of one study: text, models, runs, measurements."""

    def __init__(self, runs: Path, sizes: Sizes, jobs: int):
        self.runs, self.sizes = runs.resolve(), sizes
        self.runs.mkdir(parents=True, exist_ok=True)
        self.pool = ThreadPoolExecutor(jobs)
        self.writing = threading.Lock()

    def write_texts(self, data: Path) -> None:
        """All text, and the base's tokenizer, which is learned on English alone."""
        from jaxlingua.tokens.learned import learn

        texts, sizes = Texts(data), self.sizes
        verses = [row["text"] for row in texts.rows("bible/swh.jsonl")]
        write(self.runs / "text" / f"{SWAHILI}-00.txt", verses[-HELD_OUT_VERSES:])
        own = within(verses[:-HELD_OUT_VERSES], sizes.train_bytes)
        write(self.runs / "text" / f"{SWAHILI}.txt", own)
        for language in (ENGLISH, *NAMES):
            for number, block in enumerate(texts.held_out(language)):
                write(self.runs / "text" / f"{language}-{number:02}.txt", block)
            most = sizes.english_bytes if language == ENGLISH else sizes.train_bytes
            own = texts.training(language, most)
            write(self.runs / "text" / f"{language}.txt", own)
            if language == ENGLISH:
                (self.runs / "pieces").mkdir(exist_ok=True)
                for name, content in learn(own, sizes.vocab).items():
                    (self.runs / "pieces" / name).write_bytes(content)
            else:
                write(self.runs / "text" / f"{language}-base.txt", within(own, sizes.base_bytes))

    def configuration(
        self,
        texts: Sequence[str],
        stages: list[dict[str, Any]],
        *,
        model: dict[str, Any],
        rows: int,
        seed: int,
    ) -> dict[str, Any]:
        """What all runs share; `texts` are sources, and the mixture of each stage has all of them."""
        sources = {
            name: {"kind": "text", "path": f"{name}.txt", "language": name[:8], "held_out_records": 0}
            for name in texts
        }
        return {
            "run": {"seed": seed, "platform": "cpu"},
            "model": {"compute_dtype": "float32", **model},
            "data": {"folder": str(self.runs / "text"), "sources": sources},
            "tokens": {"row_length_tokens": self.sizes.row_length},
            "stages": [{"mixture": {name: {} for name in texts}, **stage} for stage in stages],
            "train": {
                "batch_rows": rows,
                "remat": "none",
                "optimizer": {"peak_lr": 1.0e-3, "warmup_ratio": 0.1, "beta2": 0.99, "weight_decay": 0.1},
            },
            "checkpoint": {"save_every_steps": 100_000},
            "eval": {"tasks": [], "base_model": False},
            "tracking": {"log_every_steps": 10, "tensorboard": False},
        }  # fmt: skip

    def command(self, name: str, arguments: Sequence[str], **surroundings: str) -> None:
        """One command of the product; its CPU seconds are noted."""
        begin = time.perf_counter()
        with (self.runs / f"{name}.log").open("a", encoding="utf-8") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments], stdout=log, stderr=log, env=os.environ | surroundings
            )
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        self.note(name, used.ru_utime + used.ru_stime, time.perf_counter() - begin)
        if process.returncode:
            raise SystemExit(f"{name}: ended with {process.returncode}; see {self.runs / name}.log")

    def note(self, name: str, cpu: float, wall: float) -> None:
        """CPU seconds of a command, or of a part of one that was interrupted."""
        with self.writing, (self.runs / "cpu_seconds.jsonl").open("a") as file:
            print(json.dumps({"run": name, "cpu": round(cpu, 1), "wall": round(wall, 1)}), file=file)
        print(f"{name}: {cpu:.0f} CPU seconds, {wall:.0f} s", file=sys.stderr, flush=True)

    def cpu_seconds(self) -> dict[str, float]:
        """By command."""
        seconds: dict[str, float] = {}
        for line in (self.runs / "cpu_seconds.jsonl").open():
            one = json.loads(line)
            seconds[one["run"]] = seconds.get(one["run"], 0.0) + one["cpu"]
        return seconds

    def all_of(self, jobs: Sequence[Callable[[], None]]) -> None:
        """Several, `jobs` at a time. Raises: what the first of them raised."""
        for done in [self.pool.submit(job) for job in jobs]:
            done.result()

    def train(self, name: str, config: dict[str, Any], **surroundings: str) -> None:
        """One run."""
        folder = self.runs / name
        if (folder / "report.json").is_file():
            return
        config["run"]["folder"] = str(folder)
        path = self.runs / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config, sort_keys=False), "utf-8")
        self.command(name, ["jaxlingua.train", str(path)], **surroundings)

    def base(self) -> None:
        """English with a little of the other languages, as a Hugging Face folder."""
        if (self.runs / BASE / "config.json").is_file():
            return
        sizes = self.sizes
        model = {"preset": sizes.preset, "layers": sizes.layers, "tie_embeddings": False}
        texts = [ENGLISH, *(f"{language}-base" for language in NAMES)]
        config = self.configuration(
            texts, [{"name": "base", "steps": sizes.base_steps}], model=model, rows=sizes.base_rows, seed=0
        )
        config["tokens"]["path"] = str(self.runs / "pieces")
        config["train"]["optimizer"]["peak_lr"] = 3.0e-3
        self.train("base-run", config, XLA_FLAGS="")  # it runs alone, so on all cores
        self.command("base-export", ["jaxlingua.checkpoint", "export", str(self.runs / "base-run")])

    def folder(self, language: str, arm: str) -> str:
        """The model that an arm begins with, under RUNS_FOLDER."""
        if arm in (BYTES, STEPS):
            return BASE
        return f"{language}-{'pieces' if arm == TWO else arm}"

    def extend(self, language: str, method: str) -> None:
        """The base with new pieces; `KEPT` has none that would change English, and rows as in `pieces`."""
        folder = self.runs / self.folder(language, method)
        if folder.is_dir():
            return
        own, old = (str(self.runs / "text" / f"{one}.txt") for one in (language, ENGLISH))
        self.command(
            folder.name + "-extend",
            ["jaxlingua.tokens", "extend", str(self.runs / BASE), own, "--old", old,
             "--pieces", str(self.sizes.pieces), "--output", str(folder),
             *(["--keep-old"] if method == KEPT else ["--rows", method])],
        )  # fmt: skip

    def tune(self, language: str, arm: str, seed: int) -> None:
        """One arm; those with as many steps as `pieces` come after it."""
        folder = self.runs / self.folder(language, arm)
        stages: list[dict[str, Any]] = [{"name": "all", "epochs": 1}]
        if arm in (STEPS, TWO):
            steps = self.steps(run_name(language, "pieces", seed))
            stages = [{"name": "all", "steps": steps}]
        if arm == TWO:
            first = json.loads((folder / "extension.json").read_text("utf-8"))["first_id"]
            old = [f"{name}[0:{first}]" for name in ("embed/embedding", "head/kernel")]
            rows = {"name": "rows", "steps": steps // 4, "frozen": ["layers/*", "final_norm/*", *old]}
            stages = [rows, {"name": "all", "steps": steps - steps // 4}]
        model = {"init": "huggingface", "path": str(folder)}
        config = self.configuration([language], stages, model=model, rows=self.sizes.rows, seed=seed)
        self.train(run_name(language, arm, seed), config)

    def steps(self, run: str) -> int:
        """How long a finished run was."""
        report = json.loads((self.runs / run / "data.json").read_text("utf-8"))
        return sum(stage["steps"] for stage in report["stages"])

    # ── bits per byte ───────────────────────────────────────────────────────────────────────────────────────

    def measured(self, name: str, language: str) -> dict[str, dict[str, list[float]]]:
        """Bits and bytes of each held-out block of a language and of English; kept in measured.json.

        Args:
            name: a Hugging Face folder or a run, under RUNS_FOLDER.
        """
        path = self.runs / "measured.json"
        known = json.loads(path.read_text()) if path.is_file() else {}
        key = f"{name} {language}"
        if key not in known:
            begin, cpu = time.perf_counter(), time.process_time()
            known[key] = {one: self.measure(name, one) for one in (language, ENGLISH)}
            path.write_text(json.dumps(known, indent=1))
            self.note("measuring", time.process_time() - cpu, time.perf_counter() - begin)
        return known[key]

    def measure(self, name: str, language: str) -> dict[str, list[float]]:
        """Held-out loss by block, as `jaxlingua.train.held_out` measures it."""
        import jax

        from jaxlingua.command_line import load_config
        from jaxlingua.progress import told
        from jaxlingua.sharding.mesh import make_mesh
        from jaxlingua.tokens import stages as flow
        from jaxlingua.tokens.batches import one_pass
        from jaxlingua.tokens.documents import tokenize
        from jaxlingua.train.held_out import make_held_out
        from jaxlingua.train.objective import Objective
        from jaxlingua.train.open_model import other_model

        blocks = [path.stem for path in sorted((self.runs / "text").glob(f"{language}-[0-9]*.txt"))]
        asked = self.configuration(
            blocks, [{"name": "test", "epochs": 1}], model={}, rows=self.sizes.rows, seed=0
        )
        asked["run"]["folder"] = str(self.runs / "none")
        path = self.runs / "test.yaml"
        path.write_text(yaml.safe_dump(asked), "utf-8")
        config = load_config(str(path))
        mesh = make_mesh(config.sharding)
        candidate = other_model(config, name, str(self.runs / name), mesh, lambda line: None)
        opened = candidate.open(lambda what: told(lambda line: None, what))
        [examples], _ = flow.make_examples(config, flow.open_sources(config), {})
        length = self.sizes.row_length
        documents = {
            entry: tokenize(each, opened.tokenizer, row_length_tokens=length)
            for entry, each in examples.by_entry.items()
        }
        held_out = make_held_out(
            one_pass(documents, row_length_tokens=length, batch_rows=4),
            opened.model,
            Objective(opened.tokenizer.vocab_size, len(documents), config.train.loss_chunk_tokens),
            jax.tree.map(lambda leaf: leaf.sharding, opened.params),
        )
        found = [
            one for _, one in sorted(held_out.tell(jax.device_get(held_out.measure(opened.params))).items())
        ]
        return {
            "bits": [one.bits_per_byte * one.target_bytes for one in found],
            "bytes": [one.target_bytes for one in found],
            "tokens": [one.target_tokens for one in found],
        }


def run_name(language: str, arm: str, seed: int) -> str:
    """The folder of a run."""
    return f"{language}-{arm.replace(',', '').replace(' ', '-')}-run-{seed}"


# ── figures ─────────────────────────────────────────────────────────────────────────────────────────────────


def drawn(blocks: int) -> np.ndarray:
    """Places of held-out blocks: all of them in the first row, then 2,000 draws."""
    draws = np.random.default_rng(0).integers(0, blocks, (2000, blocks))
    return np.concatenate([np.arange(blocks)[None], draws])


def bits_per_byte(blocks: Mapping[str, Sequence[float]], places: np.ndarray) -> np.ndarray:
    """Of each draw."""
    bits, size = (np.asarray(blocks[name])[places].sum(1) for name in ("bits", "bytes"))
    return bits / size


def interval(values: np.ndarray) -> str:
    """The value of all blocks, and where 95 % of the draws lie."""
    low, high = np.quantile(values[1:], (0.025, 0.975))
    return f"{values[0]:+.3f} ({low:+.3f} to {high:+.3f})"


def tell(study: Study) -> None:
    """All tables, as Markdown."""
    sizes, languages = study.sizes, list(NAMES)
    tell_pieces(study)
    found: dict[tuple[str, str, str], np.ndarray] = {}  # arm, "before" or "after", language
    english: dict[tuple[str, str], list[float]] = {}
    by_seed = {arm: np.zeros(len(sizes.seeds)) for arm in ARMS}  # mean over languages
    for language in languages:
        for arm in ARMS:
            names = {"before": [study.folder(language, arm)]}
            names["after"] = [run_name(language, arm, seed) for seed in sizes.seeds]
            for when, own in names.items():
                measured = [study.measured(name, language) for name in own]
                places = drawn(len(measured[0][language]["bits"]))
                drawn_bits = [bits_per_byte(one[language], places) for one in measured]
                found[arm, when, language] = np.mean(drawn_bits, axis=0)
                if when == "after":
                    by_seed[arm] += [one[0] / len(languages) for one in drawn_bits]
                of_english = [float(bits_per_byte(one[ENGLISH], places)[0]) for one in measured]
                english.setdefault((arm, when), []).append(mean(of_english))
    columns = " | ".join(SHOWN[language] for language in languages)
    print(f"\n| bits per byte before tuning | {columns} | English |\n|---|{'---|' * (len(languages) + 1)}")
    for arm in (BYTES, *METHODS):
        cells = [f"{found[arm, 'before', language][0]:.3f}" for language in languages]
        name = "no new pieces" if arm == BYTES else arm
        print(f"| {name} | {' | '.join(cells)} | {mean(english[arm, 'before']):.3f} |")
    print(
        f"\n| after tuning | {columns} | mean | minus '{BYTES}' | minus '{STEPS}' | English "
        f"| steps | CPU seconds |\n|---|{'---|' * (len(languages) + 6)}"
    )
    seconds = study.cpu_seconds()
    over_all = {arm: np.mean([found[arm, "after", one] for one in languages], axis=0) for arm in ARMS}
    for arm in ARMS:
        runs = [run_name(language, arm, seed) for language in languages for seed in sizes.seeds]
        cells = [f"{found[arm, 'after', language][0]:.3f}" for language in languages]
        cells.append(f"{over_all[arm][0]:.3f}")
        for other in (BYTES, STEPS):
            cells.append("" if arm == other else interval(over_all[arm] - over_all[other]))
        cells.append(f"{mean(english[arm, 'after']):.3f}")
        cells.append(f"{mean(study.steps(run) for run in runs):.0f}")
        cells.append(f"{mean(seconds[run] for run in runs):.0f}")
        print(f"| {arm} | {' | '.join(cells)} |")
    print()
    for first, second in (("pieces", "mean"), ("distilled", "pieces"), (TWO, "pieces")):
        own = [
            f"{SHOWN[one]} {interval(found[first, 'after', one] - found[second, 'after', one])}"
            for one in languages
        ]
        whole = interval(over_all[first] - over_all[second])
        pairs = zip(by_seed[first], by_seed[second], strict=True)
        print(
            f"- {first} minus {second}, bits per byte after tuning: {whole}, by seed "
            f"{', '.join(f'{one - other:+.3f}' for one, other in pairs)}; {'; '.join(own)}"
        )
    print(f"- {cpu_model()}; {sum(seconds.values()) / 60:.1f} CPU minutes in all, measuring included")


def tell_pieces(study: Study) -> None:
    """What the tokenizers write before and after, on held-out text, and what becomes of English tokens."""
    from jaxlingua.tokens.fertility import describe_fertility
    from jaxlingua.tokens.tokenizer import tokenizer_of_folder

    print(
        "| language | training text, KB | tokens per word, before → after | tokens per 100 bytes "
        "| English tokens changed | with --keep-old: tokens per word | English tokens changed |\n"
        "|---|---|---|---|---|---|---|"
    )
    for language in (*NAMES, SWAHILI):
        blocks = sorted((study.runs / "text").glob(f"{language}-[0-9]*.txt"))
        texts = [line for path in blocks for line in path.read_text("utf-8").splitlines()]
        folders = [study.runs / name for name in (BASE, f"{language}-pieces", f"{language}-{KEPT}")]
        tokenizers = [tokenizer_of_folder(str(folder)) for folder in folders]
        before, after, kept = (describe_fertility({language: texts}, one)[0] for one in tokenizers)
        told = [json.loads((folder / "extension.json").read_text("utf-8")) for folder in folders[1:]]
        changed = [
            f"{one['old text']['changed_tokens']:,} of {one['old text']['tokens_before']:,}" for one in told
        ]
        size = (study.runs / "text" / f"{language}.txt").stat().st_size
        cells = [SHOWN[language], f"{size / 1000:.0f}"]
        cells.append(f"{before['tokens per word']:.2f} → {after['tokens per word']:.2f}")
        cells.append(f"{100 * before['tokens per byte']:.1f} → {100 * after['tokens per byte']:.1f}")
        cells += [changed[0], f"{kept['tokens per word']:.2f}", changed[1]]
        print(f"| {' | '.join(cells)} |")


def main() -> None:
    """Train, extend, tune, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("runs", type=Path, nargs="?", default=Path("runs/vocabulary"))
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, of one thread each")
    parser.add_argument("--seeds", type=int, nargs="+", help="of tuning")
    parser.add_argument("--quick", action="store_true", help="a few steps, which show nothing")
    given = parser.parse_args()
    os.environ |= SURROUNDINGS
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(given.runs.resolve() / "compiled")
    sizes = QUICK if given.quick else Sizes()
    study = Study(given.runs, sizes._replace(seeds=tuple(given.seeds or sizes.seeds)), given.jobs)
    study.write_texts(given.data)
    study.base()
    wanted = [(one, how) for how in (*METHODS, KEPT) for one in NAMES] + [
        (SWAHILI, "pieces"),
        (SWAHILI, KEPT),
    ]
    study.all_of([lambda one=one, how=how: study.extend(one, how) for one, how in wanted])
    for seed in study.sizes.seeds:
        for arms in ((BYTES, *METHODS), (STEPS, TWO)):
            study.all_of(
                [
                    lambda one=one, arm=arm, seed=seed: study.tune(one, arm, seed)
                    for arm in arms
                    for one in NAMES
                ]
            )
    tell(study)


if __name__ == "__main__":
    main()
