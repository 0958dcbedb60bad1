"""What is told of entries that are drawn anew: their own draws, counted, and estimates of the first window."""

import io
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from rich.console import Console

from jaxlingua.config import Config, ParallelSource
from jaxlingua.data.leaks import Leaks
from jaxlingua.data.records import Pair, RecordSource
from jaxlingua.tokens import stages as flow
from jaxlingua.tokens.describe import describe_left_out, describe_stage, estimated_columns
from jaxlingua.tokens.draws import DRAWS, SHOWN_SLOTS, describe_draws, sentences
from jaxlingua.tokens.facts import describe_data
from jaxlingua.tokens.page import render_page
from jaxlingua.tokens.show import show
from jaxlingua.tokens.stages import Stage
from tests.tiny import tiny_parallel, tiny_tokenizer

LINES = 60


@dataclass
class Sentences:
    """A source of 60 lines in English and Greek."""

    name: str = "news"
    config: ParallelSource = field(
        default_factory=lambda: ParallelSource(path="x.tsv", languages=["eng_Latn", "ell_Grek"])
    )
    languages: list[str] = field(default_factory=lambda: ["eng_Latn", "ell_Grek"])
    fingerprint: str = "f"
    skipped: dict[str, int] = field(default_factory=dict)

    def records(self, split: str) -> list[Pair]:
        texts = tiny_parallel()
        pairs = [Pair(i, {code: texts[code][i] for code in self.languages}) for i in range(LINES)]
        return [] if split == "held_out" else pairs


def made(mixture: Any = None, **changes: Any) -> tuple[Stage, dict[str, RecordSource], Any]:
    """The stage of a configuration with one entry that is drawn anew, and its sources and leaks."""
    config = Config.model_validate(
        {
            "data": {
                "sources": {
                    "news": {"kind": "parallel", "path": "x.tsv", "languages": ["eng_Latn", "ell_Grek"]}
                },
                "template": "short",
                "workers": 0,
            },
            "tokens": {"row_length_tokens": changes.pop("row_length_tokens", 256), "too_long": "drop"},
            "stages": [
                {"name": "s", "mixture": mixture or {"news": {"objectives": "random-xss"}}, "epochs": 2}
            ],
            "train": {"batch_rows": 4, "held_out_documents": 0},
        }
    )
    sources: dict[str, RecordSource] = {"news": Sentences()}
    examples, leaks = flow.make_examples(config, sources, {})
    (stage,) = flow.make_stages(
        config, sources, examples, tiny_tokenizer(), cache=None, on_progress=lambda done, of: None
    )
    return stage, sources, leaks


@pytest.fixture(scope="module")
def stage() -> Stage:
    stage, _, _ = made()
    yield stage
    stage.batches.close()


def test_frequencies_are_those_of_the_draws_themselves(stage: Stage):
    (told,) = describe_draws(stage)
    objectives = stage.examples.redrawn["news"]
    drawn = [objectives.drawn(slot, 0) for slot in range(2 * LINES)]
    assert (told["entry"], told["slots"], told["draws"]) == ("news", 2 * LINES, 2 * LINES)
    expected = {
        "objective": Counter(draw.objective for draw in drawn),
        "answer": Counter(draw.label for draw in drawn if draw.label),
        "other sentence": Counter(draw.negative for draw in drawn if draw.negative),
        "noise": Counter(" + ".join(draw.recipe) for draw in drawn if draw.recipe),
    }
    assert {(r["drawn"], r["which"]): r["draws"] for r in told["frequencies"]} == {
        (kind, which): count for kind, counts in expected.items() for which, count in counts.items()
    }
    for kind in expected:
        assert sum(row["share"] for row in told["frequencies"] if row["drawn"] == kind) == pytest.approx(1)


def test_several_draws_of_an_example_are_its_draws_in_several_passes(stage: Stage):
    (told,) = describe_draws(stage)
    objectives = stage.examples.redrawn["news"]
    assert len(told["samples"]) == SHOWN_SLOTS
    for place, sample in enumerate(told["samples"]):
        slot = place * 2 * LINES // SHOWN_SLOTS
        for number, draw in enumerate(sample["draws"]):
            example = objectives.draw(slot, number)
            assert "".join(text for _, text in draw["parts"]) == example.text
            assert [text for learned, text in draw["parts"] if learned] == list(example.answer_texts)
            assert (sample["record"], draw["language"]) == (example.index, example.language)
        assert len(sample["draws"]) == DRAWS
    texts = {str(draw["parts"]) for sample in told["samples"] for draw in sample["draws"]}
    assert len(texts) > SHOWN_SLOTS


def test_fertility_is_told_of_the_sentences_not_of_yes_and_no(stage: Stage):
    found = Counter(sentences(stage.examples.redrawn["news"]))
    lines = tiny_parallel()
    assert found == Counter((code, text) for code in ("eng_Latn", "ell_Grek") for text in lines[code][:LINES])


def test_examples_too_long_are_told_as_shares_of_all_slots():
    """Of the slots that a pass has on average in each language: half of them, as both directions are there."""
    stage, sources, leaks = made(row_length_tokens=60)
    objectives = stage.examples.redrawn["news"]
    tokenizer = tiny_tokenizer()
    lengths: dict[str, list[int]] = {}
    for slot in range(len(objectives)):
        example = objectives.draw(slot, 0)
        lengths.setdefault(example.language, []).append(
            len(tokenizer.encode_batch([example.text])[0].ids) + 2
        )
    rows = {row["language"]: row for row in describe_stage(stage)["mixture"]}
    left_out = {row["language"]: (row["examples"], row["of"]) for row in describe_left_out(stage)}
    for language, sizes in lengths.items():
        too_long = sum(size > 61 for size in sizes)
        assert 0 < too_long < len(sizes)
        expected = round(LINES * too_long / len(sizes))
        assert left_out[language] == (expected, LINES)
        assert rows[language]["records"] == LINES
        assert rows[language]["documents"] == LINES - expected
        assert f"{expected} too long" in rows[language]["left out"]
    facts = describe_data(sources, leaks, [stage], tokenizer, "learned")
    stage.batches.close()
    assert any(line.startswith("examples left out: ") for line in facts["warnings"])
    html = render_page(facts, "drawn")
    assert "≈ is estimated from its first window" in html
    heads = re.findall(
        "<th[^>]*>([^<]*)</th>", html.split("Mixture, over all its steps")[1].split("</tr>")[0]
    )
    assert [head for head in heads if not head.startswith("≈ ")] == ["entry", "language", "records"]
    assert "Drawn for news" in html


@pytest.mark.parametrize("objectives", ["random-xss", ["translation"], ["denoising", "translation"]])
def test_documents_of_a_pass_are_its_slots_where_each_language_has_as_many(objectives: Any):
    stage, _, _ = made({"news": {"objectives": objectives}})
    rows = {row["language"]: row for row in describe_stage(stage)["mixture"]}
    stage.batches.close()
    for language in ("eng_Latn", "ell_Grek"):
        assert (rows[language]["records"], rows[language]["documents"]) == (LINES, LINES)
    estimated = estimated_columns(stage)
    assert "tokens seen" in estimated
    assert not {"records", "documents", "left out"} & {*estimated}


def test_documents_of_one_direction_are_its_slots_in_all_languages_together():
    """One in three objectives is denoising, which answers in the language that the direction begins with."""
    entry = {"objectives": ["denoising", "translation", "similarity"], "direction": "eng_Latn-ell_Grek"}
    stage, _, _ = made({"news": entry})
    rows = {row["language"]: row for row in describe_stage(stage)["mixture"]}
    stage.batches.close()
    assert (rows["eng_Latn"]["documents"], rows["eng_Latn"]["records"]) == (LINES / 3, LINES / 3)
    assert (rows["ell_Grek"]["documents"], rows["ell_Grek"]["records"]) == (LINES * 2 / 3, LINES * 2 / 3)


def test_only_heads_of_estimates_are_marked_on_the_console(stage: Stage):
    console = Console(file=io.StringIO(), width=1000, highlight=False)
    show(
        console, describe_data({"news": Sentences()}, Leaks("refuse", 0, ()), [stage], tiny_tokenizer(), "x")
    )
    lines = console.file.getvalue().split("Mixture, over all its steps")[1].splitlines()
    assert lines[0] == "; ≈ is estimated from its first window"
    heads = set(re.split(r"\s{2,}", lines[1].strip()) + re.split(r"\s{2,}", lines[2].strip()))
    assert {"entry", "language", "documents", "≈ passes", "≈ tokens", "≈ cut"} <= heads
    assert "≈ documents" not in heads


def test_fertility_is_told_of_the_language_that_is_translated_from():
    stage, sources, leaks = made({"news": {"direction": "eng_Latn-ell_Grek"}})
    facts = describe_data(sources, leaks, [stage], tiny_tokenizer(), "learned")
    texts = {row["language"]: row["texts"] for row in facts["fertility"]}
    assert texts == {"ell_Grek": LINES, "eng_Latn": LINES}
    (english,) = [row for row in facts["fertility"] if row["language"] == "eng_Latn"]
    assert english["characters"] == len("".join(tiny_parallel()["eng_Latn"][:LINES]))
    text = {"source": "news", "task": "text", "language": "eng_Latn", "limit": 10}
    learned, _, _ = made({"news": {"direction": "eng_Latn-ell_Grek"}, "text": text})
    facts = describe_data(sources, leaks, [learned], tiny_tokenizer(), "learned")
    assert {row["language"]: row["texts"] for row in facts["fertility"]} == {
        "ell_Grek": LINES,
        "eng_Latn": 10,
    }


def test_an_entry_in_one_direction_is_told_in_every_language_it_is_answered_in(stage: Stage):
    """Denoising of the source sentence is answered in a language in which the entry counts no slot."""
    counts = {("news", "ell_Grek"): stage.examples.counts["news", "ell_Grek"]}
    one_way = replace(stage, examples=replace(stage.examples, counts=counts))
    told = describe_stage(one_way)
    assert {row["language"] for row in told["mixture"]} == {"eng_Latn", "ell_Grek"}
    assert {"entry": "news", "source": "eng_Latn", "target": "ell_Grek"} in told["directions"]
