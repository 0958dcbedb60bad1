"""Published files (../shared/data): native prompts, connectives, labels and numbers as they are asked.

How many items there are, and where, is counted in test_published_files.py.
"""

import csv
import json

import pytest

from tests.eval.tasks.rendered import tasks_of

XQUAD = {
    "ar": "arb_Arab",
    "de": "deu_Latn",
    "el": "ell_Grek",
    "es": "spa_Latn",
    "hi": "hin_Deva",
    "ru": "rus_Cyrl",
    "tr": "tur_Latn",
    "vi": "vie_Latn",
    "zh": "zho_Hans",
}


@pytest.mark.parametrize("code", XQUAD)
def test_a_question_of_xquad_is_asked_in_english_and_in_its_own_language(code, shared_data):
    english, *_, native = tasks_of(f"xquad.{XQUAD[code]}", shared_data, items=1)
    content = json.loads((shared_data / f"xquad/xquad.{code}.json").read_text("utf-8"))
    context, question, answer = next(
        (paragraph["context"], asked["question"], asked["answers"][0]["text"])
        for article in content["data"]
        for paragraph in article["paragraphs"]
        for asked in paragraph["qas"]
        if asked["id"] == english.items[0].id
    )
    assert english.items[0].prompt == (
        f"Answer the question with words taken from the context.\n\nContext: {context}\nQuestion: {question}\n"
    )
    asked = native.items[0].prompt
    assert native.prompt == "native.0"
    assert context in asked
    assert "Context" not in asked
    assert asked.endswith(f"{question}\n")
    assert native.items[0].targets == (answer,)


def test_cause_and_effect_are_asked_with_the_connective_of_the_language(shared_data):
    """The premise loses its period, the choices their capital."""
    with open(shared_data / "xcopa/it/test.it.jsonl", encoding="utf-8") as file:
        rows = {str(row["idx"]): row for row in map(json.loads, file)}
    (task,) = tasks_of("xcopa.ita_Latn", shared_data, prompts="native.1", items=40)
    assert {rows[item.id]["question"] for item in task.items} == {"cause", "effect"}
    for item in task.items:
        row = rows[item.id]
        connective = {"cause": " perché", "effect": ", perciò"}[row["question"]]
        assert item.prompt == f"Completa la frase.\n\n{row['premise'].rstrip()[:-1]}{connective}\n"
        right = row[f"choice{row['label'] + 1}"]
        assert item.choices[row["label"]] == right[0].lower() + right[1:]
        assert item.targets == (task.labels[row["label"]],)


@pytest.mark.parametrize(
    ("entry", "file"),
    [
        ("nusaparagraph_topic.bug_Latn", "nusawrites/nusa_alinea-topic-bug-test.csv"),
        ("nusatranslation_sentiment.rej_Latn", "nusawrites/nusa_kalimat-senti-rej-test.csv"),
        ("nusax_sentiment.ban_Latn", "nusax/sentiment/balinese/test.csv"),
    ],
)
def test_labels_are_all_that_the_file_has(entry, file, shared_data):
    with open(shared_data / file, encoding="utf-8", newline="") as opened:
        rows = list(csv.DictReader(opened))
    (task,) = tasks_of(entry, shared_data, prompts="english.0")
    assert set(task.labels) == {row["label"] for row in rows}
    assert [(item.id, *item.targets) for item in task.items] == [(row["id"], row["label"]) for row in rows]


def test_african_questions_are_answered_in_english(shared_data):
    (task,) = tasks_of("afriqa.hau_Latn", shared_data, prompts="english.0", items=1)
    assert (task.source_language, task.language) == ("hau_Latn", "eng_Latn")
    assert dict(task.items[0].fields)["question_en"]


def test_numbers_of_mgsm_stand_in_the_second_column(shared_data):
    (task,) = tasks_of("mgsm.swh_Latn", shared_data, prompts="native.0")
    rows = (shared_data / "mgsm/mgsm_sw.tsv").read_text("utf-8").rstrip("\n").split("\n")
    assert [item.targets[0] for item in task.items] == [row.split("\t")[1] for row in rows]
    assert rows[0].split("\t")[0] in task.items[0].prompt
