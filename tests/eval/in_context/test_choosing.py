"""Which exemplars and sentences an item is shown with, and what is refused."""

import dataclasses
import re
from pathlib import Path

import pytest

from jaxlingua.command_line import check_map
from jaxlingua.config import Config
from jaxlingua.errors import ConfigError, DataError
from jaxlingua.eval.in_context import complete
from jaxlingua.eval.in_context.ask import check_labels
from jaxlingua.eval.in_context.complete import completed, pivots
from jaxlingua.eval.in_context.form import same_text
from jaxlingua.eval.in_context.retrieval.lexical import lexical
from tests.eval.in_context.world import SENTENCES, asked, made, write
from tests.eval.test_evaluate import TOKENIZER


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write(folder)
    return folder


def solved(prompt: str) -> list[str]:
    return re.findall(r"^(.*) => ", prompt, re.MULTILINE)


# ── pivot ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_pivot_changes_with_the_item_and_finds_the_exemplar_of_its_translation(home):
    """The items share no word with the English exemplars: only by the parallel text are these found."""
    options = {"exemplars": "pivot", "parallel": "say.train", "count": 1}
    task = asked(home, "mood.ind_Latn", **options)
    overlap = [lexical("overlap", 0)]
    assert pivots(task.context, overlap) == ["I like the garden.", "The road is long."]
    shown = [solved(item.prompt) for item in made(home, "mood.ind_Latn", **options).items]
    assert shown == [["I like the garden."], ["The road is long."]]
    crossed = [
        solved(item.prompt)
        for item in made(home, "mood.ind_Latn", **(options | {"exemplars": "cross"})).items
    ]
    assert crossed == [["The soup is cold."], ["The soup is cold."]]  # equally far: the first of the pool


def test_a_pivot_goes_by_the_nearest_sentence_and_not_by_the_first(home):
    """With the order of the parallel text reversed, the same exemplars are found."""
    file = home / "say/train.jsonl"
    before = file.read_text("utf-8")
    options = {"exemplars": "pivot", "parallel": "say.train"}
    prompts = [item.prompt for item in made(home, "mood.ind_Latn", **options).items]
    try:
        file.write_text("".join(reversed(before.splitlines(keepends=True))), "utf-8")
        again = [item.prompt for item in made(home, "mood.ind_Latn", **options).items]
    finally:
        file.write_text(before, "utf-8")
    assert again == prompts


def test_a_pivot_by_chance_is_made_and_repeats_itself(home):
    options = {"exemplars": "pivot", "parallel": "say.train", "retrieval": ["random"]}
    first, second = (made(home, "mood.ind_Latn", **options).items for _ in range(2))
    assert first == second
    assert len(solved(first[0].prompt)) == 2


# ── the item itself ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("entry", "options", "note"),
    [
        ("mood.ind_Latn", {"exemplars": "mono"}, "2 exemplars left out that are the item itself"),
        ("mood.ind_Latn", {"exemplars": "cross"}, "2 exemplars left out that are the item itself"),
        ("say.ind_Latn-jav_Latn", {"exemplars": "mono"}, "2 exemplars left out"),
        ("say.ind_Latn-jav_Latn", {"exemplars": "cross"}, "2 exemplars left out"),  # by their translation
        ("mood.ind_Latn", {"align": "query", "parallel": "say.test"}, "2 sentence pairs left out that are"),
        ("mood.ind_Latn", {"exemplars": "pivot", "parallel": "say.test"}, "; 2 sentence pairs left out"),
    ],
)
def test_an_exemplar_that_is_the_item_is_left_out_and_counted(home, entry, options, note):
    """Of the split that is asked itself, in its own language and in that of the exemplars."""
    task = made(home, entry, split="test", count=1, **options)
    assert note in f"; {task.note}"
    assert note in task.describe()
    for number, item in enumerate(task.items, start=4):
        above = item.prompt.rpartition("\n")[0]
        assert not any(same_text(text) in above for text in SENTENCES[number])
        assert any(text in above for text in SENTENCES[9 - number])


def test_a_text_is_the_same_whatever_its_form(home):
    assert same_text(" e\u0301te\u0301 ") == same_text("été")
    file = home / "mood/id.train.jsonl"
    before = file.read_text("utf-8")
    try:
        file.write_text(before.replace("Supnya dingin.", " Saya suka supnya.\\n"), "utf-8")
        task = made(home, "mood.ind_Latn", exemplars="mono", count=3)
    finally:
        file.write_text(before, "utf-8")
    assert task.note == "1 exemplars left out that are the item itself"
    assert "Saya suka supnya." not in solved(task.items[0].prompt)
    assert "Saya suka supnya." in task.items[1].prompt


def test_exemplars_of_a_source_are_those_it_trains_on(home):
    task = made(home, "news.ind_Latn-jav_Latn", exemplars="mono", count=4)
    held_out = {item.source_text for item in task.items}
    for item in task.items:
        assert len(held_out) == 2
        assert not held_out & set(solved(item.prompt))


def test_chance_is_seeded_and_differs_from_item_to_item(home):
    task = made(home, "mood.ind_Latn", exemplars="mono", retrieval=["random"], count=4)
    assert task.items == made(home, "mood.ind_Latn", exemplars="mono", retrieval=["random"], count=4).items
    assert solved(task.items[0].prompt) != solved(task.items[1].prompt)


def test_chance_does_not_give_the_translations_of_the_exemplars(home):
    """Pool and sentence pairs are the same four records: over 8 seeds the two draws are not one."""
    same = []
    for seed in range(8):
        task = asked(
            home, "mood.ind_Latn", exemplars="mono", align="query", parallel="say.train", retrieval=["random"]
        )
        for item in completed(task, [lexical("random", seed)]).items:
            pair = re.findall('"(.*)" means', item.prompt)
            same.append(solved(item.prompt)[-1] == pair[0])
    assert len(same) == 16
    assert 0 < sum(same) < 12, "one in four by chance"


@pytest.mark.parametrize("most", [1, 8, 12])
def test_a_large_pool_is_compared_with_few_items_at_a_time(home, monkeypatch, most):
    """Never more scores than are allowed, unless one item has more; the same prompts come of it."""
    options = {"exemplars": "mono", "count": 2}
    wanted = made(home, "mood.ind_Latn", **options).items
    overlap, sizes = lexical("overlap", 0), []

    class Counted:
        name = "overlap"

        def scores(self, queries, pool, role):
            sizes.append(len(queries) * len(pool))
            return overlap.scores(queries, pool, role)

    monkeypatch.setattr(complete, "_SCORES", most)
    assert completed(asked(home, "mood.ind_Latn", **options), [Counted()]).items == wanted
    assert sizes == ([4, 4] if most == 1 else [8])


# ── refused ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("entry", "options", "error", "message"),
    [
        (
            "mood.ind_Latn",
            {"exemplars": "mono", "count": 5},
            DataError,
            "count: 5 given; 'mood.train.ind_Latn' has 4 beside an item of mood.ind_Latn; 5 are needed; ask for",
        ),
        (
            "mood.ind_Latn",
            {"exemplars": "mono", "split": "test", "count": 2},
            DataError,
            "count: 2 given; 'mood.test.ind_Latn' has 1 beside an item",
        ),
        (
            "mood.ind_Latn",
            {"align": "query", "parallel": "say.train", "align_count": 9},
            DataError,
            "align_count: 9 given; 'say.train' has 4",
        ),
        ("mood.ind_Latn", {"exemplars": "mono", "split": "dev"}, ConfigError, "no split 'dev'; known: test, train"),
        (
            "mood.ind_Latn",
            {"exemplars": "cross", "source_language": "deu_Latn"},
            ConfigError,
            "exemplars=cross: 'mood.train.deu_Latn': no language 'deu_Latn'; files are there for eng_Latn",
        ),
        ("mood.ace_Latn", {"exemplars": "mono"}, DataError, "no file 'mood/ace.train.jsonl' in eval.data_folder"),
        ("mood.ace_Latn", {"labels": "target"}, ConfigError, "has no labels in ace_Latn; ind_Latn, jav_Latn"),
        ("why.ind_Latn", {"labels": "target"}, ConfigError, "whose labels are texts of each item"),
        ("sum.ind_Latn", {"align": "label"}, ConfigError, "given with target labels, of kind number; only choices"),
        ("notes.ind_Latn", {"align": "label"}, ConfigError, "given with target labels, of kind qa; only choices"),
        (
            "mood.eng_Latn",
            {"align": "query", "parallel": "say"},
            ConfigError,
            "align=query given; the items of 'mood.eng_Latn' are in source_language=eng_Latn themselves",
        ),
        (
            "mood.ind_Latn",
            {"align": "query", "parallel": "mood.train"},
            ConfigError,
            "parallel: 'mood.train' given, which is kind choice; kind translation is needed",
        ),
        (
            "mood.ace_Latn",
            {"align": "query", "parallel": "say"},
            ConfigError,
            "parallel: 'say' given: 'say.train.eng_Latn-ace_Latn': no language 'ace_Latn'",
        ),
        (
            "mood.ind_Latn",
            {"align": "query", "parallel": "news.train"},
            ConfigError,
            "'news.train' given; a source has no splits to choose from; write news",
        ),
        (
            "mood.ind_Latn",
            {"align": "query", "parallel": "notes"},
            DataError,
            "'notes' given: no training record of it has both ind_Latn and eng_Latn; parallel text is needed",
        ),
        (
            "say.ind_Latn-eng_Latn",
            {"exemplars": "cross"},
            ConfigError,
            "source_language: 'eng_Latn' given, which 'say.ind_Latn-eng_Latn' is translated into",
        ),
        ("notes.ind_Latn", {"exemplars": "cross"}, DataError, "'notes.eng_Latn' has no record with an answer"),
        ("notes.ind_Latn", {"exemplars": "mono", "split": "train"}, ConfigError, "split: 'train' given; 'notes' is a"),
    ],
)  # fmt: skip
def test_what_cannot_be_shown_is_refused_in_one_line(home, entry, options, error, message):
    with pytest.raises(error) as refused:
        asked(home, entry, **options)
    assert str(refused.value).startswith("eval.in_context")
    assert "\n" not in str(refused.value)
    assert message in str(refused.value)


def test_a_task_of_one_split_is_told_how_to_take_it(home):
    file = home / "tasks/mood.yaml"
    before = file.read_text("utf-8")
    try:
        file.write_text(re.sub(r"- train\n|    +train: .*\n", "", before), "utf-8")
        with pytest.raises(ConfigError, match="'mood' has no other split than 'test'; .* write split=test"):
            asked(home, "mood.ind_Latn", exemplars="mono")
        assert made(home, "mood.ind_Latn", exemplars="mono", split="test", count=1).items
    finally:
        file.write_text(before, "utf-8")


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        ({"exemplars": "pivot"}, "exemplars=pivot given without sentence pairs; a task of kind translation"),
        ({"align": "both"}, "align=both given without sentence pairs"),
        (
            {"parallel": "flors.dev"},
            "parallel: unknown source or task file 'flors.dev'; did you mean 'flores'?",
        ),
        ({"source_language": "english"}, "source_language"),
        ({"exemplars": "crosslingual"}, "exemplars"),
        ({"retrieval": ["tfidf", "bert"]}, "bert"),
        ({"retrieval": []}, "retrieval"),
        ({"retrieval": ["count", "count"]}, "retrieval: count, count given; each counts once"),
        ({"count": 0}, "count"),
        ({"translate_test": "m", "align": "label"}, "align=label given with translate_test"),
        ({"translate_test": "m", "exemplars": "mono"}, "exemplars=mono given with translate_test"),
    ],
)
def test_unknown_names_and_parts_that_do_not_fit_are_refused_before_any_file_is_read(arm, message):
    with pytest.raises(ConfigError, match=re.escape(message)) as refused:
        check_map(Config, {"eval": {"in_context": arm}}, "my.yaml")
    assert "eval.in_context" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_label_that_tokenizes_to_nothing_is_refused(home):
    """The space before it would be scored instead."""
    nothing = dataclasses.replace(
        TOKENIZER,
        encode_pieces=lambda texts, continuation: TOKENIZER.encode_pieces(
            ["" if text == "neutral" else "а" for text in texts], continuation
        ),
    )
    task = asked(home, "mood.ind_Latn", exemplars="mono")
    with pytest.raises(
        DataError, match=r"mood.ind_Latn: choice 'neutral' tokenizes to nothing; each needs a"
    ):
        check_labels([task], nothing)


def test_a_label_without_text_is_refused(home):
    file = home / "tasks/mood.yaml"
    before = file.read_text("utf-8")
    try:
        file.write_text(before + "choices: [bad, ' ', good]\n", "utf-8")
        with pytest.raises(DataError, match=r"mood.ind_Latn \(item 4\): a label without text given"):
            asked(home, "mood.ind_Latn", exemplars="mono")
    finally:
        file.write_text(before, "utf-8")
