"""Replay: which records are chosen, how many of each stratum, and what the run folder holds of them."""

import json
import random
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from jaxlingua.config import InstructionsSource, ReplayConfig, SourceConfig
from jaxlingua.data.records import Conversation, Instruction, Pair, Question, Text
from jaxlingua.data.replay import choose_replay, describe_replay, equal_parts, write_replay
from jaxlingua.data.sources import open_source
from jaxlingua.errors import DataError

WHERE = "stage 'align', mixture.old"
DOCS = Path(__file__).parents[2] / "docs" / "mixtures.md"
SOURCE = TypeAdapter(SourceConfig)


def texts(count: int, first: int = 0, stratum: str = "", language: str = "eng_Latn") -> list[Text]:
    return [Text(i, language, f"line {i}", stratum) for i in range(first, first + count)]


def choose(records, count: int, by: str = "all", seed: int = 0) -> list:
    return choose_replay(records, ReplayConfig(records=count, by=by, seed=seed), WHERE)


def indices(records) -> set[int]:
    return {record.index for record in records}


# ── which ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("by", ["all", "stratum", "language"])
@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**40),
)
def test_as_many_as_asked_each_once_and_in_the_order_of_the_source(by, sizes, share, seed):
    languages = ["eng_Latn", "ind_Latn", "tha_Thai", "lao_Laoo", "jav_Latn", "sun_Latn"]
    records = []
    for number, size in enumerate(sizes):
        records += texts(size, len(records), f"task {number}", languages[number])
    count = max(1, round(share * len(records)))
    chosen = choose(records, count, by, seed)
    assert len(chosen) == len(indices(chosen)) == count
    assert chosen == [record for record in records if record.index in indices(chosen)]


def test_the_choice_is_the_same_in_any_order_of_the_records_and_another_for_each_seed():
    records = texts(500)
    shuffled = random.Random(7).sample(records, len(records))
    chosen = choose(records, 50, seed=3)
    assert indices(choose(shuffled, 50, seed=3)) == indices(chosen)
    assert len({tuple(indices(choose(records, 50, seed=seed))) for seed in range(10)}) == 10


@pytest.mark.parametrize("by", ["all", "stratum"])
def test_a_smaller_choice_is_part_of_a_larger_one(by):
    """So runs that differ in the size of replay differ in nothing else."""
    records = texts(300, 0, "qa") + texts(90, 300, "title") + texts(7, 390, "rare")
    larger = indices(records)
    for count in (396, 250, 100, 21, 20, 19, 3, 2, 1):
        smaller = indices(choose(records, count, by))
        assert smaller < larger
        larger = smaller


def test_a_record_that_leaves_the_source_changes_the_choice_by_one():
    records = texts(200)
    chosen = indices(choose(records, 40))
    gone = min(chosen)
    after = indices(choose([record for record in records if record.index != gone], 40))
    assert chosen - after == {gone}
    assert len(after - chosen) == 1


def test_every_record_is_chosen_equally_often_over_seeds():
    """400 seeds, 20 of 100: 80 times each, within five standard deviations of a binomial."""
    records = texts(100)
    counts = Counter(index for seed in range(400) for index in indices(choose(records, 20, seed=seed)))
    assert len(counts) == 100
    assert max(abs(count - 80) for count in counts.values()) < 5 * (400 * 0.2 * 0.8) ** 0.5


def test_neighbors_are_chosen_independently_of_each_other():
    """Of 100 neighbors a quarter are chosen both, in 400 choices of half: within five standard deviations."""
    records = texts(101)
    chosen = [indices(choose(records, 50, seed=seed)) for seed in range(400)]
    both = sum(index in of and index + 1 in of for of in chosen for index in range(100))
    share = 50 / 101 * 49 / 100
    assert abs(both - 400 * 100 * share) < 5 * (400 * 100 * share * (1 - share)) ** 0.5


# ── how many of each ─────────────────────────────────────────────────────────────────────────────────────────


def dealt(sizes: dict[str, int], total: int) -> dict[str, int]:
    """One at a time to each that has more, the largest first, until all are dealt."""
    parts = dict.fromkeys(sizes, 0)
    order = sorted(sizes, key=lambda value: (sizes[value], value), reverse=True)
    while sum(parts.values()) < total:
        for value in order:
            if parts[value] < sizes[value] and sum(parts.values()) < total:
                parts[value] += 1
    return parts


@given(
    sizes=st.dictionaries(st.text("abc", max_size=3), st.integers(1, 12), min_size=1, max_size=6),
    share=st.floats(0, 1),
)
def test_equal_parts_are_those_of_dealing_one_at_a_time(sizes, share):
    total = round(share * sum(sizes.values()))
    assert equal_parts(sizes, total) == dealt(sizes, total)


def test_strata_and_languages_give_equally_many_as_far_as_they_have_them():
    records = (
        texts(1000, 0, "qa", "eng_Latn") + texts(300, 1000, "title", "ind_Latn") + texts(5, 1300, "rare")
    )
    by_stratum = Counter(record.stratum for record in choose(records, 101, "stratum"))
    assert by_stratum == {"qa": 48, "title": 48, "rare": 5}
    by_language = Counter(record.language for record in choose(records, 101, "language"))
    assert by_language == {"eng_Latn": 51, "ind_Latn": 50}


def test_records_without_a_stratum_are_one_of_their_own_where_others_have_one():
    records = texts(50) + texts(50, 50, "qa")
    assert Counter(record.stratum for record in choose(records, 20, "stratum")) == {"": 10, "qa": 10}


# ── what cannot be chosen ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("records", "config", "expected"),
    [
        (
            texts(8000),
            {"records": 10_000},
            "records: 10,000 given; source has 8,000 training records here; give 8,000 or fewer, or leave "
            "replay out to take all",
        ),
        (
            texts(3),
            {"records": 2, "by": "stratum"},
            "by: stratum given; no record of the source has one; set columns.stratum of the source "
            "(instructions, text and chat can have it), or write by: all",
        ),
        (
            [Pair(0, {"eng_Latn": "one", "deu_Latn": "eins"})],
            {"records": 1, "by": "language"},
            "by: language given; each record of the source has 2 languages, not one; write by: all",
        ),
    ],
    ids=["too many", "no stratum", "pairs"],
)
def test_what_cannot_be_chosen_is_refused(records, config, expected):
    with pytest.raises(DataError) as caught:
        choose_replay(records, ReplayConfig(**config), WHERE)
    assert str(caught.value) == f"{WHERE}.replay.{expected}"


# ── what is told and written ─────────────────────────────────────────────────────────────────────────────────

MIXED = [
    Instruction(4, "eng_Latn", "Summarize.", "A \u2028 text.", "Text.", "summary"),
    Instruction(7, "tha_Thai", "ทักทาย", "", "สวัสดี", "chat"),
    Text(8, "eng_Latn", 'a "b"\nc', "summary"),
    Conversation(9, "eng_Latn", (("user", "Hi."), ("assistant", "Hello.")), "chat"),
    Question(11, "q", "eng_Latn", "Ann is here.", "Who?", ("Ann", "Ann is"), 0),
    Pair(12, {"eng_Latn": "one", "deu_Latn": "eins"}),
]


def test_a_choice_is_described_by_stratum_and_language():
    assert describe_replay([*MIXED, *texts(3, 20, "chat", "tha_Thai")]) == [
        {"stratum": "", "language": "eng_Latn", "records": 1},
        {"stratum": "", "language": "eng_Latn, deu_Latn", "records": 1},
        {"stratum": "chat", "language": "eng_Latn", "records": 1},
        {"stratum": "chat", "language": "tha_Thai", "records": 4},
        {"stratum": "summary", "language": "eng_Latn", "records": 2},
    ]


def test_every_record_is_written_whole_on_a_line_of_its_own(tmp_path):
    write_replay(tmp_path / "old.jsonl", MIXED)
    written = (tmp_path / "old.jsonl").read_bytes().decode()
    assert "สวัสดี" in written
    assert [json.loads(line) for line in written.removesuffix("\n").split("\n")] == [
        {
            "index": 4,
            "language": "eng_Latn",
            "stratum": "summary",
            "prompt": "Summarize.",
            "input": "A \u2028 text.",
            "answer": "Text.",
        },
        {"index": 7, "language": "tha_Thai", "stratum": "chat", "prompt": "ทักทาย", "answer": "สวัสดี"},
        {"index": 8, "language": "eng_Latn", "stratum": "summary", "text": 'a "b"\nc'},
        {
            "index": 9,
            "language": "eng_Latn",
            "stratum": "chat",
            "messages": [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}],
        },
        {
            "index": 11,
            "language": "eng_Latn",
            "stratum": "",
            "prompt": "Who?",
            "context": "Ann is here.",
            "answer": "Ann",
        },
        {
            "index": 12,
            "language": "eng_Latn, deu_Latn",
            "stratum": "",
            "texts": {"eng_Latn": "one", "deu_Latn": "eins"},
        },
    ]


def test_what_was_written_can_be_read_as_a_source(tmp_path):
    """So what was taken from a stream once can be learned again without the stream."""
    records = [
        Instruction(i, "eng_Latn", f"Say {i}.", "x" * (i % 2), f"{i}", f"task {i % 3}") for i in range(9)
    ]
    write_replay(tmp_path / "old.jsonl", records)
    columns = {"instruction": "prompt", "output": "answer", "stratum": "stratum"}
    config = InstructionsSource(path="old.jsonl", language="eng_Latn", columns=columns)
    assert open_source("old", config, str(tmp_path)).records("all") == records


def test_what_was_written_can_be_read_as_the_docs_say(tmp_path):
    told = DOCS.read_text("utf-8")
    pairs = [Pair(i, {"eng_Latn": f"one {i}", "deu_Latn": f"eins {i}"}) for i in range(5)]
    chats = [Conversation(i, "eng_Latn", (("user", f"Hi {i}."), ("assistant", "Hello."))) for i in range(5)]
    asked = [Instruction(i, "eng_Latn", f"Say {i}.", "", f"{i}", f"task {i}") for i in range(5)]
    for records, kind in ((pairs, "parallel"), (chats, "chat"), (asked, "instructions")):
        write_replay(tmp_path / "align.old.jsonl", records)
        [options] = [line for line in told.splitlines() if f"`kind: {kind}`" in line]
        given = yaml.safe_load("\n".join(re.findall(r"`([^`]+: [^`]+)`", options)))
        config = SOURCE.validate_python({**given, "path": "align.old.jsonl", "held_out_records": 0})
        assert open_source("old", config, str(tmp_path)).records("train") == records
