"""The published layouts of benchmarks that lie otherwise, or not at all, in the data that tests have."""

import json
from pathlib import Path

import pytest

from jaxlingua.eval.tasks.item import Item
from tests.eval.tasks.rendered import tasks_of

RIVERS = {
    "en": ("The Elbe flows into the North Sea.", "Which river is it?", "The Elbe"),
    "de": ("Die Elbe mündet in die Nordsee.", "Welcher Fluss ist es?", "Die Elbe"),
}


def squad(context: str, question: str, answer: str) -> str:
    asked = {"id": "q1", "question": question, "answers": [{"text": answer, "answer_start": 0}]}
    return json.dumps({"data": [{"title": "", "paragraphs": [{"context": context, "qas": [asked]}]}]})


AFRIQA = {
    "id": "0",
    "context": "Kano is a city in the north of Nigeria.",
    "question_lang": "A wace ƙasa Kano take?",
    "question_translated": "In which country is Kano?",
    "answer_pivot": {"answer_start": [31], "text": ["Nigeria"]},
    "answer_lang": "Nijeriya",
    "title": "Kano",
}
TICO = "sourceLang\ttargetLang\tsourceString\ttargetString\tstringID\turl\tlicense\ttranslator_ID\n"

# Files by name, the entry, and the item that is to come out: source text or context, targets, end of the prompt.
PUBLISHED = {
    "mlqa, question in another language": (
        {
            "MLQA_V1/test/test-context-en-question-de.json": squad(
                RIVERS["en"][0], RIVERS["de"][1], RIVERS["en"][2]
            )
        },
        "mlqa.eng_Latn-deu_Latn",
        Item("q1", "eng_Latn", f"{RIVERS['de'][1]}\n", ("The Elbe",), RIVERS["en"][0]),
    ),
    "mlqa, both files in one folder": (
        {"mlqa/test-context-de-question-de.json": squad(*RIVERS["de"])},
        "mlqa.deu_Latn",
        Item("q1", "deu_Latn", f"{RIVERS['de'][1]}\n", ("Die Elbe",), RIVERS["de"][0]),
    ),
    "tydiqa, as XTREME names it": (
        {"tydiqa-goldp-v1.1-dev/tydiqa.en.dev.json": squad(*RIVERS["en"])},
        "tydiqa.eng_Latn",
        Item("q1", "eng_Latn", f"{RIVERS['en'][1]}\n", ("The Elbe",), RIVERS["en"][0]),
    ),
    "xquad, a clone of its repository": (
        {"xquad.de.json": squad(*RIVERS["de"])},
        "xquad.deu_Latn",
        Item("q1", "deu_Latn", f"{RIVERS['de'][1]}\n", ("Die Elbe",), RIVERS["de"][0]),
    ),
    "afriqa": (
        {
            "afriqa/data/gold_passages/hau/gold_span_passages.afriqa.hau.en.test.json": json.dumps(AFRIQA)
            + "\n"
        },
        "afriqa.hau_Latn",
        Item("0", "eng_Latn", "A wace ƙasa Kano take?\n", ("Nigeria",), AFRIQA["context"]),
    ),
    "flores": (
        {
            "flores200_dataset/devtest/deu_Latn.devtest": "Es regnet.\nEs schneit.\n",
            "flores200_dataset/devtest/jav_Latn.devtest": "Udan.\nUdan salju.\n",
        },
        "flores.jav_Latn-deu_Latn",
        Item("0", "deu_Latn", "Udan.\n", ("Es regnet.",), "Udan."),
    ),
    "flores, dev": (
        {
            "flores200_dataset/dev/deu_Latn.dev": "Es schneit.\n",
            "flores200_dataset/dev/eng_Latn.dev": "It snows.\n",
        },
        "flores.dev.eng_Latn-deu_Latn",
        Item("0", "deu_Latn", "It snows.\n", ("Es schneit.",), "It snows."),
    ),
    "tatoeba, a clone of LASER": (
        {
            "LASER/data/tatoeba/v1/tatoeba.tur-eng.tur": "Kar yağıyor.\n",
            "LASER/data/tatoeba/v1/tatoeba.tur-eng.eng": "It snows.\n",
        },
        "tatoeba.tur_Latn-eng_Latn",
        Item("0", "eng_Latn", "Kar yağıyor.\n", ("It snows.",), "Kar yağıyor."),
    ),
    "tico19": (
        {
            "tico19-testset/test/test.en-es-LA.tsv": TICO
            + "en\tes-LA\tShe said \"no\".\tDijo que \"no\".\tPubMed_1:1\tu\tpublic\t7\n"
        },
        "tico19.eng_Latn-spa_Latn",
        Item("PubMed_1:1", "spa_Latn", 'She said "no".\n', ('Dijo que "no".',), 'She said "no".'),
    ),
    "nusax_translation, a clone of its repository": (
        {"nusax/datasets/mt/test.csv": "id,indonesian,javanese\n7,\"Hujan, lebat\",\"Udan, deres\"\n"},
        "nusax_translation.ind_Latn-jav_Latn",
        Item("7", "jav_Latn", "Hujan, lebat\n", ("Udan, deres",), "Hujan, lebat"),
    ),
    "nusatranslation, a clone of its repository": (
        {"nusa-writes/data/nusa_kalimat-mt-btk-test.csv": "id,ind_text,tgt_text\na-1,Hujan.,Udan.\n"},
        "nusatranslation.bbc_Latn-ind_Latn",
        Item("a-1", "ind_Latn", "Udan.\n", ("Hujan.",), "Udan."),
    ),
    "mgsm, a clone of its repository": (
        {"url-nlp/mgsm/mgsm_en.tsv": "Two and two?\t4\n"},
        "mgsm.eng_Latn",
        Item("0", "eng_Latn", "Two and two?\n", ("4",), "Two and two?"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_files_are_read_where_their_publishers_put_them(name, tmp_path: Path):
    files, entry, expected = PUBLISHED[name]
    for path, content in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content, "utf-8")
    (task,) = tasks_of(entry, tmp_path, prompts="english.0")
    item = task.items[0]
    assert item.prompt.endswith(expected.prompt)
    assert (item.id, item.language, item.targets) == (expected.id, expected.language, expected.targets)
    if task.kind != "number":
        assert item.source_text == expected.source_text
