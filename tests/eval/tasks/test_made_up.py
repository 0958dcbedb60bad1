"""Made-up records in the published formats: what is asked about them, and what is right."""

import csv
import json

import pytest

from tests.eval.tasks.rendered import ENTRIES, GOLDEN, MADE_UP, rendered, tasks_of


def test_every_record_is_asked_as_the_golden_file_has_it():
    """The wording changes on purpose only: see rendered.py."""
    golden = [json.loads(line) for line in GOLDEN.read_text("utf-8").splitlines()]
    assert rendered() == golden


@pytest.mark.parametrize("entry", ENTRIES)
def test_no_record_is_lost_and_no_slot_stays_empty(entry):
    for task in tasks_of(entry):
        assert (len(task.items), task.available, dict(task.left_out)) == (ENTRIES[entry], ENTRIES[entry], {})
        assert len({item.prompt for item in task.items}) == len(task.items)
        for item in task.items:
            assert "{" not in item.prompt + "".join(item.choices)


def test_a_pair_of_xnli_is_asked_with_all_its_words():
    """Written out here, so that the golden file is not the only witness."""
    english, *_, native = tasks_of("xnli.deu_Latn")
    assert (english.prompt, native.prompt) == ("english.0", "native.0")
    assert english.items[1].prompt == (
        "If the first sentence is true, is the second one true as well? Answer yes, no or maybe.\n\n"
        "First: Die Bäckerei an der Ecke öffnet jeden Morgen um sechs Uhr.\n"
        "Second: Die Bäckerei bleibt bis mittags geschlossen.\n"
    )
    assert (english.items[1].targets, english.labels) == (
        ("contradiction",),
        ("entailment", "neutral", "contradiction"),
    )
    assert english.items[1].choices == ("yes", "maybe", "no")
    assert native.items[1].prompt == (
        "Wenn der erste Satz stimmt, stimmt dann auch der zweite? Antworte mit ja, nein oder vielleicht.\n\n"
        "Erster: Die Bäckerei an der Ecke öffnet jeden Morgen um sechs Uhr.\n"
        "Zweiter: Die Bäckerei bleibt bis mittags geschlossen.\n"
    )
    assert native.items[1].choices == ("ja", "vielleicht", "nein")


def test_right_endings_are_those_of_the_file():
    """Counted from 1 there; what is said for a label is the ending itself."""
    (task,) = tasks_of("xstorycloze.spa_Latn", prompts="english.1")
    with open(MADE_UP / "XStoryCloze/spring2016.val.es.tsv.split_20_80_eval.tsv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    for item, row in zip(task.items, rows, strict=True):
        said = dict(zip(task.labels, item.choices, strict=True))
        assert said[item.targets[0]] == row[f"RandomFifthSentenceQuiz{row['AnswerRightEnding']}"]
        assert row["InputSentence4"] in item.prompt
        assert said[item.targets[0]] not in item.prompt


def test_right_letters_are_those_of_the_file():
    """Belebele counts answers from 1, as text."""
    (task,) = tasks_of("belebele.tur_Latn", prompts="native.0")
    rows = [json.loads(line) for line in (MADE_UP / "Belebele/tur_Latn.jsonl").open(encoding="utf-8")]
    for item, row in zip(task.items, rows, strict=True):
        right = row[f"mc_answer{row['correct_answer_num']}"]
        assert f"\n{item.targets[0]}: {right}" in item.prompt
    assert {item.choices for item in task.items} == {("A", "B", "C", "D")}


def test_paraphrases_and_emotions_have_the_labels_of_the_file():
    (pairs,) = tasks_of("paws_x.zho_Hans", prompts="english.0")
    assert [item.targets[0] for item in pairs.items] == ["same", "different", "different", "same"]
    (emotions,) = tasks_of("nusaparagraph_emotion.jav_Latn", prompts="native.0")
    right = [
        dict(zip(emotions.labels, item.choices, strict=True))[item.targets[0]] for item in emotions.items
    ]
    assert right == ["seneng", "sedhih", "wedi", "nesu", "kaget", "jijik", "isin"]


def test_open_instructions_are_asked_as_they_are_with_and_without_an_input():
    plain, *_, native = tasks_of("mi_eval.eng_Latn") + tasks_of("mi_eval.spa_Latn")
    assert plain.items[0].prompt == "Suggest three names for a boat.\n"
    assert plain.items[3].prompt == "Which word does not belong?\n\napple, pear, hammer, plum\n"
    assert native.items[3].prompt == (
        "Responde en español.\n\n¿Qué palabra sobra?\n\nmanzana, pera, martillo, ciruela\n"
    )
    assert plain.items[0].targets == ()
