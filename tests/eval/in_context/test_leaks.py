"""What would tell a model the answer of an item, or a part of the item itself, is not shown with it."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from jaxlingua.errors import ConfigError
from jaxlingua.eval.in_context.itself import Excluded, inside
from tests.eval.in_context.world import SENTENCES, asked, made, write


@pytest.fixture
def home(tmp_path) -> Path:
    write(tmp_path)
    return tmp_path


def change(file: Path, *replaced: tuple[str, str]) -> None:
    text = file.read_text("utf-8")
    for old, new in replaced:
        assert old in text
        text = text.replace(old, new)
    file.write_text(text, "utf-8")


def squad(home: Path, name: str, paragraphs: dict[str, list[str]]) -> None:
    """Paragraphs with questions, whose first word is the answer; ids are numbers from 0."""
    numbers = iter(range(99))
    made = [
        {
            "context": context,
            "qas": [
                {"id": str(next(numbers)), "question": each, "answers": [{"text": context.split()[0], "answer_start": 0}]}
                for each in questions
            ],
        }
        for context, questions in paragraphs.items()
    ]  # fmt: skip
    (home / name).write_text(json.dumps({"data": [{"title": "", "paragraphs": made}]}), "utf-8")


# ── the item in another language ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["cross", "pivot"])
def test_exemplars_of_the_asked_split_in_another_language_need_ids_that_tell_the_item(home, kind):
    """A pivot would find the translation of the very item, with its label."""
    arm = {"exemplars": kind, "parallel": "say.train", "split": "test", "count": 1}
    assert made(home, "mood.ind_Latn", **arm).items
    change(home / "tasks/mood.yaml", ("is_parallel: true\n", ""))
    with pytest.raises(ConfigError, match=rf"exemplars={kind}: 'mood' is asked in split=test, whose ids do"):
        asked(home, "mood.ind_Latn", **arm)
    assert made(home, "mood.ind_Latn", **(arm | {"split": "auto"})).items
    assert made(home, "mood.eng_Latn", exemplars="cross", split="test", count=1).items  # the item by its id
    assert made(home, "mood.ind_Latn", exemplars="mono", split="test", count=1).items


@pytest.mark.parametrize("language", ["en", "id"])
def test_ids_that_repeat_on_either_side_do_not_tell_the_item(home, language):
    change(home / f"mood/{language}.test.jsonl", ('"id": 5', '"id": 4'))
    with pytest.raises(ConfigError, match="'mood' is asked in split=test, whose ids do not tell"):
        asked(home, "mood.ind_Latn", exemplars="cross", split="test", count=1)


def test_a_task_of_one_split_without_such_ids_is_not_told_to_take_it(home):
    file = home / "tasks/mood.yaml"
    file.write_text(
        re.sub(r"- train\n|    +train: .*\n|is_parallel: true\n", "", file.read_text("utf-8")), "utf-8"
    )
    with pytest.raises(ConfigError, match="or exemplars=mono with split=test$"):
        asked(home, "mood.ind_Latn", exemplars="cross")


# ── a part of the item ──────────────────────────────────────────────────────────────────────────────────────


def test_a_sentence_pair_that_stands_in_a_field_of_the_item_is_left_out(home):
    """The first question's paragraph has two of the sentences, one of them over another line break."""
    squad(
        home,
        "notes.json",
        {"Itu dia. Supnya dingin. Perahunya\nbaru. Ya.": ["Apa?"], "Saya sukan.": ["Siapa?"]},
    )
    options = {"align": "query", "parallel": "say.train", "align_count": 2}
    task = made(home, "notes.ind_Latn", **options)
    assert task.note == "2 sentence pairs left out that are the item itself or a part of it"
    assert task.context.is_pair_itself.places == (frozenset({0, 1}), frozenset())
    assert "The soup is cold." not in task.items[0].prompt
    assert "The boat is new." not in task.items[0].prompt


def test_a_field_that_the_prompt_does_not_show_counts_too(home):
    change(home / "tasks/mood.yaml", ("    text: text\n", "    text: text\n    before: before\n"))
    change(
        home / "mood/id.test.jsonl",
        ('{"id": 4,', '{"before": "Supnya dingin. Ya.", "id": 4,'),
        ('{"id": 5,', '{"before": "", "id": 5,'),
    )
    task = made(home, "mood.ind_Latn", align="query", parallel="say.train", align_count=1)
    assert task.context.form.fields == ["text"]
    assert task.context.is_pair_itself.places == (frozenset({0}), frozenset())


def test_a_pair_of_a_part_of_the_translation_is_left_out(home):
    change(home / "say/test.jsonl", ("Aku seneng sope.", "Aku seneng sope. Sope adhem."))
    task = made(
        home, "say.ind_Latn-jav_Latn", align="query", parallel="say.train", source_language="eng_Latn"
    )
    assert task.context.is_pair_itself.count == 0  # pairs of Indonesian and English
    task = made(
        home, "say.ind_Latn-jav_Latn", align="query", parallel="say.train", source_language="jav_Latn"
    )
    assert task.context.is_pair_itself.places[0] == {0}


def test_a_part_is_of_whole_words_in_any_script():
    assert inside([["A red, old boat."], ["หมาแดงมาก"]], ["red , old", "red", "ed", "old boat. A", "แดง", "old boat."]) == [
        {0, 1, 5},
        {4},
    ]  # fmt: skip


def test_what_is_left_out_is_made_dense_for_a_part_of_the_items():
    found = Excluded((frozenset(), frozenset({0, 2}), frozenset({1})), 3)
    np.testing.assert_array_equal(found[1:9], [[True, False, True], [False, True, False]])
    assert (found.count, found.left) == (3, 1)


# ── the paragraph of the item ───────────────────────────────────────────────────────────────────────────────


def test_questions_of_the_same_paragraph_are_left_out_also_of_a_source(home):
    squad(home, "notes.json", {"Satu ada.": ["A?", "B?", "C?"], "Dua ada.": ["D?"], "Tiga ada.": ["E?"]})
    task = made(home, "notes.ind_Latn", exemplars="mono", count=2)
    places = [sorted(one) for one in task.context.is_itself.places]
    assert places == [[0, 1, 2]] * 3 + [[3], [4]]
    assert task.note == (
        "5 exemplars left out that are the item itself; 6 exemplars left out that share its paragraph"
    )
    assert task.items[0].prompt.count("Satu ada.") == 1


def test_the_paragraph_in_another_language_is_known_by_the_ids_of_its_questions(home):
    squad(home, "river/id.test.json", {"Satu ada.": ["A?", "B?"], "Dua ada.": ["C?"], "Tiga ada.": ["D?"]})
    squad(home, "river/en.test.json", {"One is.": ["A?", "B?"], "Two is.": ["C?"], "Three is.": ["D?"]})
    task = made(home, "river.ind_Latn", exemplars="cross", split="test", count=2)
    assert [sorted(one) for one in task.context.is_itself.places] == [[0, 1], [0, 1], [2], [3]]
    assert "One is." not in task.items[0].prompt


# ── where an exemplar ends, and what an arm is ──────────────────────────────────────────────────────────────


def test_lines_are_separated_alike_in_all_prompts_and_an_answer_ends_there(home):
    """One answer of the pool has a line break, and is not shown with every item."""
    change(home / "say/train.jsonl", ("Dalane dawa.", "Dalane\\ndawa."))
    task = made(home, "say.ind_Latn-jav_Latn", exemplars="mono", count=1)
    assert "\n\n" in task.stop
    shown = [re.search(r"(\S)(\n+)[^\n]* =>$", item.prompt)[2] for item in task.items]
    assert ["Dalane" in item.prompt for item in task.items] == [False, True]
    assert shown == ["\n\n", "\n\n"]
    assert set(shown) <= set(task.stop)


def test_an_arm_is_the_same_wherever_its_files_lie(home, tmp_path_factory):
    arm = {"exemplars": "cross", "align": "query", "parallel": "say.train"}
    before = asked(home, "mood.ind_Latn", **arm).arm
    moved = tmp_path_factory.mktemp("moved") / "data"
    shutil.copytree(home, moved)
    assert asked(moved, "mood.ind_Latn", **arm).arm == before
    change(moved / "mood/en.train.jsonl", (SENTENCES[0][0], "The soup is hot."))
    assert asked(moved, "mood.ind_Latn", **arm).arm != before


def test_an_answer_in_a_table_is_unescaped_and_its_cell_ends_at_a_bar(home):
    table = asked(home, "say.ind_Latn-jav_Latn", exemplars="mono", format="table").context
    assert table.answer(r" Sope \| adhem<br>. | Aku") == " Sope | adhem\n. "
    assert table.stop == (" |", "\n")  # no escaped bar
    lines = asked(home, "say.ind_Latn-jav_Latn", exemplars="mono").context
    assert lines.answer(r"a \| b | c") == r"a \| b | c"
    framed = asked(home, "say.ind_Latn-jav_Latn", exemplars="mono", format="table", template="alpaca").context
    assert framed.answer(r"| a \| b") == "| a | b"
