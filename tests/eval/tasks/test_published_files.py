"""Task files on the published files: every language, every record, offsets, and the first prompt of each.

Expected prompts are written out here; the texts in them are read from the files by the test itself.
"""

import csv
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from jaxlingua.config import Config
from jaxlingua.data.leaks import find_leaks
from jaxlingua.data.records import Pair, Question
from jaxlingua.errors import DataError
from jaxlingua.eval.tasks.entry import languages_there
from jaxlingua.eval.tasks.item import Task
from jaxlingua.eval.tasks.library import read_task_file
from jaxlingua.eval.tasks.make import make_tasks

Asking = Callable[..., list[Task]]
# Of each task how many languages have a file of the splits; of translation, beside the one in all pairs.
LANGUAGES = {
    "xquad": {"test": 10},
    "mlqa": {"dev": 4},
    "tydiqa": {"valid": 2, "train": 2},
    "afriqa": {"test": 3, "dev": 2, "train": 3},
    "xcopa": {"test": 8, "val": 8},
    "mgsm": {"test": 8},
    "nusax_sentiment": {"test": 10, "valid": 10, "train": 10},
    "nusatranslation_sentiment": {"test": 5, "valid": 5, "train": 5},
    "nusaparagraph_topic": {"test": 2, "valid": 2, "train": 2},
    "flores": {"devtest": 17},
    "tatoeba": {"test": 40},
    "tico19": {"test": 6},
    "nusax_translation": {"test": 9, "valid": 9, "train": 9},
    "nusatranslation": {"test": 4, "valid": 4, "train": 4},
}
PIVOTS = {"flores": "eng_Latn", "tatoeba": "eng_Latn", "tico19": "eng_Latn"}
PIVOTS |= {"nusax_translation": "ind_Latn", "nusatranslation": "ind_Latn"}


@pytest.fixture(scope="module")
def asking(shared_data: Path) -> Asking:
    """The tasks of an entry on the published files."""

    def tasks(entry: str, *, template: str = "raw", **options: object) -> list[Task]:
        options |= {"tasks": [entry], "data_folder": str(shared_data)}
        return make_tasks(Config.model_validate({"data": {"template": template}, "eval": options}), {})

    return tasks


def entries(name: str, split: str, folder: Path) -> list[str]:
    """An entry for each language that has a file."""
    pivot = PIVOTS.get(name, "")
    languages = languages_there(read_task_file(name, ""), split, str(folder))
    return [f"{name}.{split}.{pivot}{'-' if pivot else ''}{code}" for code in languages if code != pivot]


@pytest.mark.parametrize("name", LANGUAGES)
def test_every_record_of_every_language_becomes_an_item(asking, shared_data, name):
    """The manifest counted the records of each file apart from us; answers of SQuAD stand where it says."""
    manifest = json.loads((shared_data / "manifest.json").read_text("utf-8"))
    for split in read_task_file(name, "").splits:
        asked = entries(name, split, shared_data)
        assert len(asked) == LANGUAGES[name].get(split, 0)
        for entry in asked:
            (task,) = asking(entry, items=50)
            assert {manifest[file]["rows"] for file in task.files} == {task.available}, entry
            assert task.left_out == {}
            assert len({item.id for item in task.items}) == len(task.items) == min(50, task.available)
            assert all(item.targets and all(map(str.strip, item.targets)) for item in task.items)
            if task.kind == "choice":
                assert {label for item in task.items for label in item.targets} <= set(task.labels)
                assert all(len(set(item.choices)) == len(task.labels) for item in task.items)
            if task.kind == "qa":
                answers_stand_where_they_say(task)


def answers_stand_where_they_say(task: Task) -> None:
    """Offsets count code points of contexts with invisible characters, which no step may strip."""
    for item, record in zip(task.items, task.records, strict=True):
        assert isinstance(record, Question)
        assert record.context[record.answer_start :][: len(item.targets[0])] == item.targets[0]
        assert record.context in item.prompt
        assert item.source_text == record.context


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("mgsm", 1), ("xcopa", 1), ("nusax_sentiment", 1), ("nusatranslation_sentiment", 1),
        ("nusaparagraph_topic", 0.9),
    ],
)  # fmt: skip
def test_an_id_of_a_parallel_set_has_one_target_in_all_languages(asking, shared_data, name, same):
    """Where it is none, as in NusaParagraph, ids coincide and name other texts."""
    tasks = [asking(entry)[0] for entry in entries(name, read_task_file(name, "").splits[0], shared_data)]
    targets = [{item.id: item.targets for item in task.items} for task in tasks]
    pairs = [
        (one[key], other[key])
        for one, other in itertools.combinations(targets, 2)
        for key in one.keys() & other.keys()
    ]
    assert len(pairs) > 100
    share = sum(one == other for one, other in pairs) / len(pairs)
    assert share == 1 if same == 1 else share < same
    assert {task.is_parallel for task in tasks} == {same == 1}


def test_xquad_asks_the_same_1190_questions_in_every_language(asking, shared_data):
    tasks = [asking(entry)[0] for entry in entries("xquad", "test", shared_data)]
    english, *others = [[item.id for item in task.items] for task in tasks]
    assert len(set(english)) == 1190
    assert all(other == english for other in others)
    assert {len(task.items) for task in tasks} == {1190}
    sample, other = (
        [item.id for item in asking(name, items=50)[0].items] for name in ("xquad.eng_Latn", "xquad.zho_Hans")
    )
    assert len(sample) == 50
    assert sample == other


def mlqa(folder: Path, code: str) -> dict[str, tuple[str, str, list[str]]]:
    """Context, question and answers of each id, read without jaxlingua."""
    content = json.loads((folder / f"mlqa/dev-context-{code}-question-{code}.json").read_text("utf-8"))
    return {
        asked["id"]: (
            paragraph["context"],
            asked["question"],
            [answer["text"] for answer in asked["answers"]],
        )
        for article in content["data"]
        for paragraph in article["paragraphs"]
        for asked in paragraph["qas"]
    }


@pytest.mark.parametrize(
    ("entry", "codes", "items"),
    [
        ("mlqa.dev.zho_Hans-vie_Latn", ("zh", "vi"), 184),
        ("mlqa.dev.arb_Arab-eng_Latn", ("ar", "en"), 517),
        ("mlqa.dev.eng_Latn-zho_Hans", ("en", "zh"), 504),
    ],
)
def test_mlqa_asks_in_one_language_about_a_context_in_another(asking, shared_data, entry, codes, items):
    """The official files of such pairs were made by joining on the id as well."""
    (task,) = asking(entry)
    contexts, questions = (mlqa(shared_data, code) for code in codes)
    assert len(task.items) == items
    assert [item.id for item in task.items] == [each for each in contexts if each in questions]
    for item in task.items:
        context, _, answers = contexts[item.id]
        assert item.prompt.endswith(f"Context: {context}\nQuestion: {questions[item.id][1]}\n")
        assert list(item.targets) == answers
    context_language, question_language = entry.rpartition(".")[2].split("-")
    assert (task.language, task.source_language) == (context_language, question_language)
    left = {f"only in {context_language}": len(contexts) - items}
    left |= {f"only in {question_language}": len(questions) - items}
    assert task.left_out == {reason: count for reason, count in left.items() if count}


def squad_record(path: Path) -> dict[str, str]:
    paragraph = json.loads(path.read_text("utf-8"))["data"][0]["paragraphs"][0]
    return {"context": paragraph["context"], "question": paragraph["qas"][0]["question"]}


def json_record(path: Path) -> dict[str, str]:
    with path.open(encoding="utf-8") as file:
        return json.loads(next(file))


def csv_record(path: Path) -> dict[str, str]:
    with path.open(encoding="utf-8", newline="") as file:
        return next(csv.DictReader(file))


def mgsm_record(path: Path) -> dict[str, str]:
    return dict(zip(("question", "answer"), path.read_text("utf-8").split("\n")[0].split("\t"), strict=True))


QUESTION = (
    "Answer the question with words taken from the context.\n\nContext: {context}\nQuestion: {question}\n"
)
TRANSLATE = "Translate the following text from"
# Entry, prompt, file, how it is read, the prompt with slots of the file's own names.
FIRST_PROMPTS = [
    ("xquad.ell_Grek", "english.0", "xquad/xquad.el.json", squad_record, QUESTION),
    ("mlqa.dev.arb_Arab", "english.0", "mlqa/dev-context-ar-question-ar.json", squad_record, QUESTION),
    ("tydiqa.valid.swh_Latn", "english.0", "tydiqa_goldp/tydiqa.goldp.sw.valid.json", squad_record, QUESTION),
    ("afriqa.hau_Latn", "english.0", "afriqa/afriqa.hau.test.json", squad_record, QUESTION),
    (
        "xquad.zho_Hans", "native.0", "xquad/xquad.zh.json", squad_record,
        "请用文中的词语回答问题。\n\n文章：{context}\n问题：{question}\n",
    ),
    (
        "flores.ace_Latn-bug_Latn", "english.0", "flores200/ace_Latn.jsonl", json_record,
        TRANSLATE + " Acehnese into Buginese.\n\n{text}\n",
    ),
    (
        "tatoeba.fra_Latn-eng_Latn", "english.0", "tatoeba/v1/fra.jsonl", json_record,
        TRANSLATE + " French into English.\n\n{tgt}\n",
    ),
    (
        "tico19.eng_Latn-zho_Hans", "english.0", "tico19/zh.jsonl", json_record,
        TRANSLATE + " English into Chinese.\n\n{src}\n",
    ),
    (
        "nusax_translation.min_Latn-mad_Latn", "english.0", "nusax/mt/test.csv", csv_record,
        TRANSLATE + " Minangkabau into Madurese.\n\n{minangkabau}\n",
    ),
    (
        "nusatranslation.rej_Latn-ind_Latn", "english.0", "nusawrites/nusa_kalimat-mt-rej-test.csv", csv_record,
        TRANSLATE + " Rejang into Indonesian.\n\n{tgt_text}\n",
    ),
    (
        "nusax_sentiment.bug_Latn", "english.0", "nusax/sentiment/buginese/test.csv", csv_record,
        "Is the sentiment of the text negative, neutral or positive?\n\n{text}\n",
    ),
    (
        "nusax_sentiment.ind_Latn", "native.0", "nusax/sentiment/indonesian/test.csv", csv_record,
        "Apakah sentimen teks ini negatif, netral, atau positif?\n\n{text}\n",
    ),
    (
        "nusatranslation_sentiment.abs_Latn", "english.0", "nusawrites/nusa_kalimat-senti-abs-test.csv", csv_record,
        "Is the sentiment of the text negative or positive?\n\n{text}\n",
    ),
    (
        "nusaparagraph_topic.rej_Latn", "english.0", "nusawrites/nusa_alinea-topic-rej-test.csv", csv_record,
        "What is the text about: food and drink, leisure, sports, technology, religion, culture and heritage, "
        "everyday life or business?\n\n{text}\n",
    ),
    (
        "xcopa.est_Latn", "english.0", "xcopa/et/test.et.jsonl", json_record,
        "Which answer is more likely?\n\n{premise}\nWhat made this happen?\n- {choice1}\n- {choice2}\n",
    ),
    (
        "xcopa.val.est_Latn", "native.0", "xcopa/et/val.et.jsonl", json_record,
        "Kumb vastus on tõenäolisem?\n\n{premise}\nMis oli selle tagajärg?\n- {choice1}\n- {choice2}\n",
    ),
    (
        "mgsm.jpn_Jpan", "english.0", "mgsm/mgsm_ja.tsv", mgsm_record,
        "Solve the problem step by step. Write the answer, a number, on the last line.\n\n{question}\n",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("entry", "prompt", "file", "read", "expected"), FIRST_PROMPTS)
def test_the_first_prompt_is_the_one_written_here(asking, shared_data, entry, prompt, file, read, expected):
    (task,) = asking(entry, prompts=[prompt])
    record = read(shared_data / file)
    assert task.items[0].prompt == expected.format(**record)
    assert (task.prompt, file in task.files) == (prompt, True)


def test_the_frame_of_the_template_goes_around_a_prompt(asking, shared_data):
    record = squad_record(shared_data / "xquad/xquad.hi.json")
    (alpaca,) = asking("xquad.hin_Deva", template="alpaca")
    assert alpaca.items[0].prompt == (
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n### Instruction:\n"
        "Answer the question with words taken from the context.\n\n### Input:\n"
        f"Context: {record['context']}\nQuestion: {record['question']}\n\n### Response:"
    )
    (short,) = asking("xquad.hin_Deva", template="short")
    assert short.items[0].prompt == f"{record['context']}\n{record['question']}\n"


def test_a_split_or_language_that_this_copy_lacks_is_refused(asking):
    with pytest.raises(DataError, match="split 'dev' is there; write 'mlqa.dev.zho_Hans'"):
        asking("mlqa.zho_Hans")
    with pytest.raises(
        DataError, match="'test' is there for arb_Arab, fra_Latn, hin_Deva, ind_Latn, swh_Latn,"
    ):
        asking("tico19.eng_Latn-por_Latn")


def test_sentences_of_sentiment_are_found_in_the_training_text_of_translation(asking, shared_data):
    """Most of the 1,200 Minangkabau ones are there under the same id; 23 are shorter than a leak."""
    (task,) = asking("nusatranslation_sentiment.min_Latn")
    with (shared_data / "nusawrites/nusa_kalimat-mt-min-train.csv").open(
        encoding="utf-8", newline=""
    ) as file:
        rows = list(csv.DictReader(file))
    shared = {row["id"] for row in rows} & {item.id for item in task.items}
    assert len(shared) == 829
    training = [
        Pair(n, {"ind_Latn": row["ind_text"], "min_Latn": row["tgt_text"]}) for n, row in enumerate(rows)
    ]
    leaks = find_leaks({"mt": training}, {task.name: task.records})
    assert len(shared & {rows[leak.index]["id"] for leak in leaks}) == 806
