"""What is told of entries that are drawn anew: their own draws, counted, and estimates of the first window."""

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from jaxlingua.config import Config, ParallelSource
from jaxlingua.data.records import Pair, RecordSource
from jaxlingua.tokens import stages as flow
from jaxlingua.tokens.describe import describe_left_out, describe_stage
from jaxlingua.tokens.draws import DRAWS, SHOWN_SLOTS, describe_draws, sentences
from jaxlingua.tokens.facts import describe_data
from jaxlingua.tokens.page import render_page
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


def made(**changes: Any) -> tuple[Stage, dict[str, RecordSource], Any]:
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
            "stages": [{"name": "s", "mixture": {"news": {"objectives": "random-xss"}}, "epochs": 2}],
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
    """A window of one pass holds every slot once, so the estimate is exact here."""
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
        assert left_out[language] == (too_long, len(sizes))
        assert rows[language]["documents"] == len(sizes) - too_long
        assert f"{too_long} too long" in rows[language]["left out"]
    facts = describe_data(sources, leaks, [stage], tokenizer, "learned")
    stage.batches.close()
    assert any(line.startswith("examples left out: ") for line in facts["warnings"])
    html = render_page(facts, "drawn")
    assert "estimated from its first window" in html
    assert "Drawn for news" in html


def test_an_entry_in_one_direction_is_told_in_every_language_it_is_answered_in(stage: Stage):
    """Denoising of the source sentence is answered in a language in which the entry counts no slot."""
    counts = {("news", "ell_Grek"): stage.examples.counts["news", "ell_Grek"]}
    one_way = replace(stage, examples=replace(stage.examples, counts=counts))
    assert {row["language"] for row in describe_stage(one_way)["mixture"]} == {"eng_Latn", "ell_Grek"}
