"""Prompts of each kind in every arm, in every frame, and byte-identical ones where no arm is asked for."""

import json
from pathlib import Path

import pytest

from jaxlingua.errors import ConfigError
from jaxlingua.eval.in_context.lines import cell
from tests.eval.in_context.world import ENTRIES, GOLDEN, arms, asked, made, rendered, told, write

EXPECTED = {
    (line["kind"], arm): {key: line[key] for key in ("prompt", "choices", "stop")}
    for line in map(json.loads, GOLDEN.read_text("utf-8").splitlines())
    for arm in line["arms"]
}


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write(folder)
    return folder


@pytest.mark.parametrize(
    ("kind", "arm"), [pytest.param(*each, id=f"{each[0]} {told(each[1])}") for each in arms()]
)
def test_every_kind_has_its_golden_prompt_in_every_arm(home, kind, arm):
    assert rendered(home, kind, arm) == EXPECTED[kind, told(arm)]


def test_golden_prompts_are_of_arms_that_there_are():
    assert EXPECTED.keys() == {(kind, told(arm)) for kind, arm in arms()}


def test_a_cross_lingual_prompt_with_both_alignments_reads_as_the_paper_has_it(home):
    task = made(home, "mood.ind_Latn", exemplars="cross", align="both", parallel="say.train", count=1)
    assert task.items[1].prompt.split("\n") == [
        "Is the sentiment of the text negative, neutral or positive?",
        "",
        "The soup is cold. => negatif",
        'In Indonesian, "Jalannya panjang." means "The road is long.".',
        'In Indonesian, "negative" means "negatif".',
        'In Indonesian, "neutral" means "netral".',
        'In Indonesian, "positive" means "positif".',
        "Jalannya lebar. =>",
    ]
    assert task.items[1].choices == (" negatif", " netral", " positif")


@pytest.mark.parametrize("entry", ENTRIES.values())
@pytest.mark.parametrize("template", ["raw", "short", "alpaca"])
def test_without_an_arm_nothing_changes(home, entry, template):
    """What else is set has no effect while nothing is shown."""
    plain = made(home, entry, template=template)
    other = made(home, entry, template=template, count=4, nearest="first", parallel="say", retrieval=["bm25"])
    assert plain.context is None
    assert plain == other
    assert "icl:" not in plain.signature
    assert "=>" not in plain.items[0].prompt


def test_in_an_open_frame_the_answer_follows_the_arrow_and_elsewhere_the_frame(home):
    raw, short, alpaca = (
        made(home, "mood.ind_Latn", template=template, exemplars="mono")
        for template in ("raw", "short", "alpaca")
    )
    shown = "Supnya dingin. => negative\nSaya suka kebunnya. => positive\nSaya suka supnya. =>"
    assert raw.items[0].prompt.endswith(f"?\n\n{shown}")
    assert short.items[0].prompt.endswith(f"?\n{shown}")
    assert alpaca.items[0].prompt.endswith(f"### Input:\n{shown}\n\n### Response:")
    assert raw.items[0].choices == short.items[0].choices == (" negative", " neutral", " positive")
    assert alpaca.items[0].choices == ("negative", "neutral", "positive")
    assert raw.stop == ("\n",)
    assert alpaca.stop == ()


def test_labels_of_the_target_language_alone_change_what_is_scored_and_no_prompt(home):
    plain, target = (made(home, "mood.ind_Latn", labels=labels) for labels in ("source", "target"))
    assert [item.prompt for item in plain.items] == [item.prompt for item in target.items]
    assert target.items[0].choices == ("negatif", "netral", "positif")
    assert [item.targets for item in plain.items] == [item.targets for item in target.items]
    assert plain.signature != target.signature


def test_label_alignment_of_a_native_prompt_is_from_english(home):
    task = made(home, "mood.ind_Latn", prompts="native.0", align="label")
    assert 'In Indonesian, "negative" means "negatif".\n' in task.items[0].prompt
    assert task.items[0].prompt.startswith("Apakah sentimen")


def test_the_nearest_stands_next_to_the_item_unless_it_is_asked_for_first(home):
    last, first = (
        made(home, "mood.ind_Latn", exemplars="mono", count=4, nearest=place).items[0].prompt.split("\n")
        for place in ("last", "first")
    )
    assert last[-2] == first[2] == "Saya suka kebunnya. => positive"
    assert last[2:-1] == first[2:-1][::-1]


def test_a_sentence_can_be_said_in_both_orders(home):
    task = made(home, "mood.ind_Latn", align="query", parallel="say.train", align_order="source_first")
    assert 'In Indonesian, "I like the garden." means "Saya suka kebunnya.".' in task.items[0].prompt


def test_a_match_by_the_source_side_compares_with_the_translation(home):
    """`Jalannya lebar.` shares a word with `Jalannya panjang.`, and none with any English sentence."""
    pair = 'In Indonesian, "Jalannya panjang." means "The road is long.".'
    target, source = (
        made(home, "mood.ind_Latn", align="query", parallel="say.train", match=side).items[1].prompt
        for side in ("target", "source")
    )
    assert pair in target
    assert pair not in source


def test_an_instruction_that_shows_the_record_is_said_with_each(home):
    task = made(home, "river.ind_Latn", prompts="english.2", exemplars="mono", count=1)
    assert task.items[0].prompt == "Saya 2?\nSaya suka kebunnya. => kebunnya\n\nSaya 4?\nSaya suka supnya. =>"


def test_bars_and_line_breaks_stay_inside_a_cell():
    assert cell("a|b\nc\r\nd") == "a\\|b<br>c<br>d"


def test_ids_targets_and_records_are_those_of_the_plain_task(home):
    plain, shown = (made(home, "why.ind_Latn", exemplars=kind) for kind in ("none", "cross"))
    for name in ("id", "targets", "fields", "source_text", "language"):
        assert [getattr(one, name) for one in plain.items] == [getattr(one, name) for one in shown.items]
    assert (plain.records, plain.key) == (shown.records, shown.key)


def test_two_arms_have_two_signatures_and_each_tells_what_it_is(home):
    asked_for = [
        {"exemplars": "mono"},
        {"exemplars": "cross"},
        {"exemplars": "cross", "count": 1},
        {"exemplars": "cross", "nearest": "first"},
        {"exemplars": "cross", "format": "table"},
        {"exemplars": "cross", "labels": "target"},
        {"exemplars": "cross", "retrieval": ["overlap", "bm25"]},
        {"exemplars": "pivot", "parallel": "say.train"},
        {"exemplars": "cross", "align": "query", "parallel": "say.train"},
        {"exemplars": "cross", "align": "query", "parallel": "say.train", "align_place": "before"},
        {"exemplars": "cross", "align": "label"},
    ]
    told_in = [asked(home, "mood.ind_Latn", **arm).signature.partition("|icl:")[2] for arm in asked_for]
    assert len(set(told_in)) == len(told_in)
    shown = (
        "cross2,mood.train.eng_Latn,say.train,overlap,nearest-last,query1,match-target,target_first,before"
    )
    assert told_in[9].startswith(shown)


def test_the_prompt_is_told_with_its_slots(home):
    task = made(home, "mood.ind_Latn", exemplars="cross", align="query", parallel="say.train")
    assert task.prompt_text.split("\n")[2:] == [
        "{text} => {answer}",
        'In Indonesian, "{target}" means "{source}".',
        "{text} =>",
    ]


def test_kinds_without_an_answer_are_refused(home):
    with pytest.raises(ConfigError, match="'tell.ind_Latn' is kind open, whose answers nobody knows"):
        asked(home, "tell.ind_Latn", exemplars="mono")
