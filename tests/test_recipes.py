"""docs/recipes.md: its overrides and arithmetic, on made-up files. Its commands are run by tests/docs.

Every override is given to the configuration that is named before it, and what comes of it is made into
examples, as far as that needs no download.
"""

import gzip
import json
import re
import shlex
from pathlib import Path
from typing import NamedTuple

import pytest

from jaxlingua.command_line import load_config
from jaxlingua.config import CldrSource
from jaxlingua.data.cldr import open_cldr
from jaxlingua.data.mixtures import StageExamples
from jaxlingua.tokens.balance import documents_per_epoch
from jaxlingua.tokens.masks import assemble
from jaxlingua.tokens.stages import make_examples, open_sources
from tests.tiny import tiny_tokenizer

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "recipes.md").read_text("utf-8")
SIX = {
    "ar": "arb_Arab", "el": "ell_Grek", "hi": "hin_Deva", "tr": "tur_Latn", "vi": "vie_Latn", "zh": "zho_Hans"
}  # fmt: skip
INDONESIA = ["ind", "sun", "jav", "bug", "ace", "bjn", "ban", "min"]
PAIRS = 60
XLLAMA, MLLAMA, INSTRUCTALIGN = (
    "coit_llama2-7b_zho_v5e-8.yaml",
    "muit_llama2-7b_arb-ell-hin-tur-vie-zho_v5e-8.yaml",
    "instructalign_llama2-7b_ace-ban-bjn-bug-ind-jav-min-sun_v5e-8.yaml",
)


class Row(NamedTuple):
    """A row of a table that ends in overrides."""

    config: str
    cells: tuple[str, ...]
    overrides: tuple[str, ...]
    is_default: bool

    def __str__(self) -> str:
        return f"{self.config.split('_')[0]}-{self.cells[0][:40]}"


def rows() -> list[Row]:
    """All rows of the tables whose last column is called overrides, or brings something back."""
    found, config, has_overrides = [], "", False
    for line in TEXT.splitlines():
        if not line.startswith("|"):
            has_overrides = False
            if named := re.findall(r"`(\w\S*_\S*\.yaml)`", line):
                config = named[0]
            continue
        *cells, last = [cell.strip() for cell in line.strip("|").split("|")]
        if last in ("overrides", "what brings it back"):
            has_overrides = True
        elif has_overrides and "=" in last:
            code = re.findall(r"`([^`]+)`", last)[0]
            found.append(Row(config, tuple(cells), tuple(shlex.split(code)), "as it is" in last))
    return found


ROWS = rows()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The files that docs/recipes.md names, small."""
    folder = tmp_path_factory.mktemp("recipes")
    code_of = {**SIX, "en": "eng_Latn", "jv": "jav_Latn"}
    cldr = open_cldr("phrases", CldrSource(languages=list(code_of.values()), records=4 * PAIRS))
    texts = [pair.texts for pair in cldr.records("all")[:PAIRS]]
    for name, code in code_of.items():
        sides = [pair[code] for pair in texts]
        records = [
            {"instruction": f"{n}. {side}", "input": "", "output": side} for n, side in enumerate(sides)
        ]
        (folder / f"alpaca_{name}.json").write_text(json.dumps(records), "utf-8")
        for prefix in ("wikimatrix", "news", *(f"wikimatrix.{other}" for other in SIX)):
            (folder / f"{prefix}.{code}").write_text("\n".join(sides), "utf-8")
        (folder / f"WikiMatrix.en-zh.{name}").write_text("\n".join(sides), "utf-8")
    scored = [f"1.1\t{pair['eng_Latn']}\t{pair['zho_Hans']}\n" for pair in texts]
    (folder / "WikiMatrix.en-zh.tsv.gz").write_bytes(gzip.compress("".join(scored).encode()))
    (folder / "dev").mkdir()
    for name in ["eng", *INDONESIA]:
        lines = "".join(f"{name} {n} says: {pair['jav_Latn']}\n" for n, pair in enumerate(texts * 2))
        (folder / f"flores.{name}_Latn").write_text(lines, "utf-8")
        (folder / "dev" / f"{name}_Latn.dev").write_text(lines, "utf-8")
    asked = [{"inputs": f"Say {n}.", "targets": str(n), "task": "ab"[n % 2]} for n in range(100)]
    (folder / "xp3_en.jsonl").write_text("".join(json.dumps(one) + "\n" for one in asked), "utf-8")
    return folder


def examples(folder: Path, config: str, overrides: tuple[str, ...]) -> StageExamples:
    """What the stage learns, of few replayed instructions."""
    few = ["stages[0].mixture.english.replay.records=20"]
    read = load_config(config, list(overrides))
    is_replay = "english" in read.stages[0].mixture
    read = load_config(config, [*overrides, *few * is_replay, f"data.folder={folder}"])
    return make_examples(read, open_sources(read), {})[0][0]


def test_the_tables_have_every_language_size_of_replay_and_objective():
    cells = [row.cells[0] for row in ROWS]
    for language in ("Arabic", "Greek", "Hindi", "Turkish", "Vietnamese", "Chinese"):
        assert cells.count(language) == 1
    assert [cell for cell in cells if cell in ("0", "100", "1,000", "10,000", "100,000")] == [
        "0", "100", "1,000", "10,000", "100,000"
    ]  # fmt: skip
    objectives = [row.cells[1] for row in ROWS if row.config == INSTRUCTALIGN and len(row.cells) == 2]
    presets = {"pair", "pair-xss", "random", "random-xss", "TLM+XSS"}
    assert set(objectives) >= {"TLM, best with 1.1B", "XSS, best with 560M", "MT", "MLM", *presets}
    assert {row.config for row in ROWS} == {XLLAMA, MLLAMA, INSTRUCTALIGN}


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_an_override_of_the_tables_changes_the_recipe_and_gives_examples(row: Row, folder: Path):
    """For either model; "(as it is)" changes nothing."""
    base, changed = load_config(row.config), load_config(row.config, list(row.overrides))
    assert (changed == base) == row.is_default
    small = {
        XLLAMA: "coit_llama3.2-1b_zho_v5e-1.yaml",
        MLLAMA: "muit_llama3.2-1b_arb-ell-hin-tur-vie-zho_v5e-1.yaml",
        INSTRUCTALIGN: "instructalign_llama3.2-1b_ace-ban-bjn-bug-ind-jav-min-sun_v5e-1.yaml",
    }[row.config]
    assert load_config(small, list(row.overrides)).stages == changed.stages
    overrides = [one for one in row.overrides if not one.startswith("data.wording_folder")]
    made = examples(folder, row.config, tuple(overrides))
    assert set(made.by_entry) | set(made.redrawn) == set(changed.stages[0].mixture)


@pytest.mark.parametrize("code", SIX.values())
def test_a_language_of_the_six_is_learned_with_english_alone(code: str, folder: Path):
    """The row of a language names the sources, direction and test of this language."""
    row = next(row for row in ROWS if row.config == MLLAMA and f"eng_Latn-{code}]" in row.overrides[-1])
    made = examples(folder, row.config, row.overrides)
    assert {language for _, language in made.counts} == {"eng_Latn", code}
    assert len(made.by_entry) == 3


def test_filters_leave_most_of_plain_pairs(folder: Path):
    """Dates and quantities are short; filters that took them would take everything."""
    made = examples(folder, MLLAMA, ())
    kept = [len(made.by_entry[f"wikimatrix_{name}"]) for name in SIX]
    assert min(kept) > 0.5 * PAIRS


def test_controls_learn_the_same_sentences_as_plain_text(folder: Path):
    control = next(row for row in ROWS if "continued pre-training" in row.cells[0])
    made, translated = examples(folder, XLLAMA, control.overrides), examples(folder, XLLAMA, ())
    plain = {example.index: example.text for example in made.by_entry["zh"]}
    answers = {example.index: example.answer_texts[0] for example in translated.by_entry["wikimatrix"]}
    assert plain == answers


def test_instructalign_draws_in_sixteen_directions(folder: Path):
    made = examples(folder, INSTRUCTALIGN, ("data.sources.flores.held_out_records=6",))
    flores = made.redrawn["flores"]
    assert len(flores.ways) == 16
    assert len(flores) == 16 * (2 * PAIRS - 6)
    assert {way for way in flores.ways if "eng_Latn" not in way} == set()
    assert len(made.replay["english"]) == 20


def test_the_arithmetic_of_replay_is_that_of_the_paper():
    """31,144 rows and n instructions in turn, until both are gone through; 50,000 steps of 32."""
    table = [row for row in ROWS if len(row.cells) == 4]
    assert len(table) == 5
    config = load_config(INSTRUCTALIGN)
    for row in table:
        replayed = int(row.cells[0].replace(",", ""))
        sizes = {"flores": 31_144, **({"english": replayed} if replayed else {})}
        stage = load_config(INSTRUCTALIGN, list(row.overrides)).stages[0]
        assert set(stage.mixture) == set(sizes)
        counts = documents_per_epoch(
            sizes, {name: entry.weight for name, entry in stage.mixture.items()}, "align"
        )
        told = [f"{sum(counts.values()):,}", f"{counts['flores'] / 31_144:.1f}", "–"]
        if replayed:
            told[2] = f"{counts['english'] / replayed:.1f}"
            assert stage.mixture["english"].replay.records == replayed
            assert counts["english"] == counts["flores"]
        assert list(row.cells[1:]) == told
        assert stage.epochs * sum(counts.values()) == pytest.approx(50_000 * 32, rel=0.001)
    assert 16 * (2009 - config.data.sources["flores"].held_out_records) == 31_136
    assert "31,136 (1,946 sentences" in TEXT


def test_as_released_is_what_the_paper_had(folder: Path):
    """Rows are held out and not sentences; all of a document is learned, and it has no EOS."""
    row = next(row for row in ROWS if "stages[0].faithful=true" in row.overrides)
    config = load_config(row.config, list(row.overrides))
    assert (config.stages[0].steps, config.train.batch_rows) == (50_000, 32)
    optimizer = config.train.optimizer
    assert (optimizer.peak_lr, optimizer.schedule, optimizer.warmup_ratio) == (1e-5, "linear", 0)
    made = examples(folder, row.config, row.overrides)
    slots = 16 * 2 * PAIRS
    assert len(made.redrawn["flores"]) == slots - slots // 10
    drawn = made.redrawn["flores"].draw(0, 0)
    replayed = made.by_entry["english"][0]
    tokenizer = tiny_tokenizer()
    for example in (drawn, replayed):
        assert example.answers == ((0, len(example.text)),)
        tokens = assemble([example.text], [example.answers], tokenizer, [example.ends]).tokens.tolist()
        assert tokenizer.eos_id not in tokens


def test_no_configuration_is_tested_on_what_it_learns():
    """FLORES is learned, so no task is of FLORES or of what shares its text."""
    for config in (ROOT / "configs").glob("instructalign_*.yaml"):
        tasks = [task.partition(".")[0] for task in load_config(str(config)).eval.tasks]
        assert tasks
        assert not set(tasks) & {"flores", "belebele"}


@pytest.mark.parametrize(
    "page", [*(ROOT / "docs").glob("*.md"), ROOT / "README.md"], ids=lambda page: page.stem
)
def test_links_lead_to_files(page: Path):
    for link in re.findall(r"\]\(((?!http)[^)#]+)\)", page.read_text("utf-8")):
        assert (page.parent / link).exists(), link
