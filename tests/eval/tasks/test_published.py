"""Task files on small files of our own: every format and layout, and what is refused."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from jaxlingua.config import Config, DataConfig
from jaxlingua.data.leaks import find_leaks
from jaxlingua.data.records import Pair, Question
from jaxlingua.data.records import Text as PlainText
from jaxlingua.data.templates import render
from jaxlingua.data.wordings import load_wording
from jaxlingua.errors import ConfigError, DataError
from jaxlingua.eval.tasks.item import Task
from jaxlingua.eval.tasks.make import make_tasks

ABOUT = {"about": "x", "citation": "y", "license": "CC0", "version": 3, "checked_on": "made-up files"}
TWO = {"eng_Latn": "en", "deu_Latn": "de"}
Asking = Callable[..., list[Task]]


@pytest.fixture
def asking(tmp_path: Path) -> Asking:
    """Writes a task file `mine` and data files, and gives the tasks of an entry."""

    def tasks(
        entry: str, task: dict, files: dict[str, str | bytes] | None = None, **options: object
    ) -> list[Task]:
        (tmp_path / "tasks").mkdir(exist_ok=True)
        content = yaml.safe_dump(ABOUT | {"splits": ["test"], "languages": TWO} | task, sort_keys=False)
        (tmp_path / "tasks" / "mine.yaml").write_text(content, "utf-8")
        for name, text in (files or {}).items():
            path = tmp_path / "data" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        template = options.pop("template", "short")
        folders = {"data_folder": str(tmp_path / "data"), "task_folder": str(tmp_path / "tasks")}
        data = {"template": template, **options.pop("data", {})}
        config = {"data": data, "eval": {"tasks": [entry], **folders, **options}}
        return make_tasks(Config.model_validate(config), {})

    return tasks


def squad(context: str, questions: dict[str, tuple[str, str]], **further: str) -> str:
    """SQuAD's JSON: of each id the question and the answer, which stands in the context."""
    asked = [
        {"id": name, "question": question, "answers": [{"text": text, "answer_start": context.find(text)}]}
        | further
        for name, (question, text) in questions.items()
    ]
    return json.dumps({"data": [{"paragraphs": [{"context": context, "qas": asked}]}]}, ensure_ascii=False)


def lines(*records: dict) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def layout(format: str, fields: dict | None = None, test: object = "{code}.txt", **further: object) -> dict:
    return {"data": [{"format": format, "files": {"test": test}, "fields": fields or {}, **further}]}


QA = {"kind": "qa", **layout("squad", test="{code}.json")}
ENGLISH = squad("The Nile is long.", {"a": ("Which river?", "Nile"), "b": ("How is it?", "long")})
GERMAN = squad("Der Nil\ufeff ist lang.", {"b": ("Wie ist er?", "lang"), "c": ("Was?", "Der Nil")})
MOOD = {"kind": "choice", "labels": ["good", "bad"]}
SENTENCES = {"kind": "translation", **layout("lines")}


# ── questions ───────────────────────────────────────────────────────────────────────────────────────────────


def test_questions_keep_their_offsets_ids_and_context(asking):
    """The German context has an invisible character in front of the answer, which stripping would shift."""
    (task,) = asking("mine.deu_Latn", QA, {"de.json": GERMAN})
    item = task.items[0]
    assert (item.id, item.targets, item.language) == ("b", ("lang",), "deu_Latn")
    assert item.prompt == "Der Nil\ufeff ist lang.\nWie ist er?\n"
    record = task.records[0]
    assert isinstance(record, Question)
    assert record.context[record.answer_start :][:4] == "lang"
    assert (task.kind, task.split, task.version, task.checked_on) == ("qa", "test", 3, "made-up files")
    assert (task.language, task.source_language, task.files) == ("deu_Latn", "deu_Latn", ("de.json",))
    assert dict(item.fields)["question"] == "Wie ist er?"


def test_context_in_one_language_and_question_in_another_are_joined_by_id(asking):
    files = {"en.json": ENGLISH, "de.json": GERMAN}
    (task,) = asking("mine.deu_Latn-eng_Latn", QA | {"is_parallel": True}, files)
    (item,) = task.items
    assert item.prompt == "Der Nil\ufeff ist lang.\nHow is it?\n"
    assert (item.id, item.targets, item.language) == ("b", ("lang",), "deu_Latn")
    assert (task.language, task.source_language) == ("deu_Latn", "eng_Latn")
    assert task.left_out == {"only in deu_Latn": 1, "only in eng_Latn": 1}
    assert task.records[0].question == "How is it?"
    assert task.files == ("de.json", "en.json")


def test_ids_that_repeat_name_no_question_in_several_languages(asking):
    task = layout("jsonl", test="{code}.jsonl", fields={"id": "id", "text": "text", "label": "label"})
    task |= {"kind": "choice", "labels": ["yes", "no"], "is_parallel": True, "prompts": "sentiment"}
    once, twice = (lines(*({"id": of, "text": "so", "label": "no"} for of in ids)) for ids in ("ab", "aa"))
    assert asking("mine.eng_Latn", task, {"en.jsonl": once})[0].is_parallel
    assert not asking("mine.eng_Latn", task, {"en.jsonl": twice})[0].is_parallel
    assert not asking("mine.eng_Latn", task | {"is_parallel": False}, {"en.jsonl": once})[0].is_parallel
    with pytest.raises(ConfigError, match="two languages given; 'mine' is asked in one"):
        asking("mine.eng_Latn-deu_Latn", task, {"en.jsonl": once})


def test_a_published_file_of_context_and_question_goes_before_the_join(asking):
    task = QA | layout("squad", test="{code}-{question_code}.json") | {"is_parallel": True}
    same = {"en-en.json": ENGLISH, "de-de.json": GERMAN}
    assert asking("mine.deu_Latn-eng_Latn", task, same)[0].files == ("de-de.json", "en-en.json")
    crossed = squad("Der Nil ist lang.", {"b": ("How is it, then?", "lang")})
    (task,) = asking("mine.deu_Latn-eng_Latn", task, {"de-en.json": crossed})
    assert task.files == ("de-en.json",)
    assert task.items[0].prompt == "Der Nil ist lang.\nHow is it, then?\n"


def test_answers_may_be_in_another_language_than_the_question(asking):
    fields = {"question_en": "question_en"}
    task = {"kind": "qa", "answer_language": "eng_Latn", "languages": {"hau_Latn": "ha"}}
    task |= layout("squad", fields, test="{code}.json")
    text = squad("The Nile is long.", {"a": ("Wane kogi?", "Nile")}, question_en="Which river?")
    (made,) = asking("mine.hau_Latn", task, {"ha.json": text})
    assert (made.language, made.source_language, made.items[0].language) == (
        "eng_Latn",
        "hau_Latn",
        "eng_Latn",
    )
    assert dict(made.items[0].fields)["question_en"] == "Which river?"


def test_answers_of_json_lines_may_be_texts(asking):
    """Without a place in the context, or with no context at all."""
    task = {"kind": "qa", **layout("jsonl", {"question": "q", "answers": "a"})}
    task["prompts"] = {"english": [{"instruction": "{question}"}]}
    files = {"en.txt": lines({"q": "Which?", "a": ["Nile", "The Nile"]}, {"q": "How?", "a": ""})}
    (made,) = asking("mine.eng_Latn", task, files)
    assert made.items[0].targets == ("Nile", "The Nile")
    assert made.left_out == {"question without an answer": 1}


def test_questions_without_a_context_or_an_answer_are_left_out_and_counted(asking):
    """AfriQA's files have null contexts, and NaN where pandas found no answer."""
    task = {"kind": "qa", **layout("jsonl", {"context": "c", "question": "q", "answers": "a"})}
    nan = float("nan")
    content = lines(
        {"c": "red", "q": "1?", "a": ["red"]}, {"c": None, "q": "2?", "a": ["red"]},
        {"c": " ", "q": "3?", "a": ["red"]}, {"c": None, "q": "4?", "a": [nan]}, {"c": "red", "q": "5?", "a": [None, "red"]},
    )  # fmt: skip
    (told,) = asking("mine.eng_Latn", task, {"en.txt": content})
    assert [item.targets for item in told.items] == [("red",), ("red",)]
    assert dict(told.left_out) == {"empty context": 2, "question without an answer": 1}


def test_ids_that_repeat_become_numbers_and_are_told(asking):
    """As in TyDi QA's files, where they count within an article."""
    twice = json.loads(ENGLISH)
    twice["data"] *= 2
    (task,) = asking("mine.eng_Latn", QA, {"en.json": json.dumps(twice)})
    assert [item.id for item in task.items] == ["0", "1", "2", "3"]
    assert task.describe().endswith("; ids repeat, so items are numbered")
    with pytest.raises(DataError, match=r"qas\[0\]\): id 'a' given twice; each record needs its own"):
        asking("mine.eng_Latn", QA | {"is_parallel": True})


# ── translation ─────────────────────────────────────────────────────────────────────────────────────────────


def test_files_of_two_languages_are_joined_by_id(asking):
    task = {"kind": "translation", **layout("jsonl", {"id": "id", "text": "text"})}
    english = lines({"id": 7, "text": "one"}, {"id": 8, "text": "two"}, {"id": 9, "text": "three"})
    german = lines({"id": 9, "text": "drei"}, {"id": 7, "text": "eins"}, {"id": 5, "text": "fünf"})
    (made,) = asking("mine.eng_Latn-deu_Latn", task, {"en.txt": english, "de.txt": german})
    assert [(item.id, item.source_text, item.targets) for item in made.items] == [
        ("7", "one", ("eins",)),
        ("9", "three", ("drei",)),
    ]
    assert made.left_out == {"only in deu_Latn": 1, "only in eng_Latn": 1}
    assert made.items[0].prompt == "English to German\none\n"
    assert made.records[0] == Pair(0, {"eng_Latn": "one", "deu_Latn": "eins"})


def test_files_of_two_languages_are_joined_by_line(asking):
    """A line ends at a line feed alone; an empty one is left out with its translation."""
    files = {"en.txt": "one\u2028two\n\nthree\n", "de.txt": "eins zwei\nnichts\ndrei\n"}
    (made,) = asking("mine.deu_Latn-eng_Latn", SENTENCES, files)
    assert [(item.id, item.targets[0]) for item in made.items] == [("0", "one\u2028two"), ("2", "three")]
    assert made.left_out == {"no text in eng_Latn": 1}
    files["de.txt"] = "eins\nzwei\n"
    with pytest.raises(DataError, match="de.txt has 2 records, .*en.txt has 3; record n of each must be the"):
        asking("mine.deu_Latn-eng_Latn", SENTENCES, files)


def test_a_file_per_pair_gives_both_directions(asking):
    task = {"kind": "translation", **layout("jsonl", {"pivot": "src", "text": "tgt"}, pivot="eng_Latn")}
    files = {"de.txt": lines({"src": "one", "tgt": "eins"})}
    (there,) = asking("mine.eng_Latn-deu_Latn", task, files)
    (back,) = asking("mine.deu_Latn-eng_Latn", task)
    assert (there.items[0].source_text, there.items[0].targets) == ("one", ("eins",))
    assert (back.items[0].source_text, back.items[0].targets) == ("eins", ("one",))
    assert (back.language, back.source_language) == ("eng_Latn", "deu_Latn")
    languages = TWO | {"fra_Latn": "fr"}
    with pytest.raises(ConfigError, match="'mine' has pairs with eng_Latn only; let it be one of both"):
        asking("mine.fra_Latn-deu_Latn", task | {"languages": languages})


def test_a_pair_may_have_a_file_for_each_side(asking):
    task = {"kind": "translation", **layout("lines", test="{code}-{other}.{side}", pivot="eng_Latn")}
    files = {"de-en.de": "eins\n", "de-en.en": "one\n"}
    (made,) = asking("mine.eng_Latn-deu_Latn", task, files)
    assert (made.items[0].source_text, made.items[0].targets) == ("one", ("eins",))
    assert made.files == ("de-en.en", "de-en.de")


def test_a_table_may_have_a_column_for_each_language(asking):
    """Fields hold commas, quotes and line breaks."""
    task = {"kind": "translation", **layout("csv", {"id": "id", "text": "{code}"}, test="all.csv")}
    task["languages"] = TWO | {"fra_Latn": "fr"}
    table = 'id,de,en\n4,"eins,\n""zwei""","one,\ntwo"\n9,drei,three\n'
    (made,) = asking("mine.deu_Latn-eng_Latn", task, {"all.csv": table})
    first = made.items[0]
    assert (first.id, first.source_text, first.targets) == ("4", 'eins,\n"zwei"', ("one,\ntwo",))
    with pytest.raises(
        DataError, match="no column 'fr' in '.*all.csv', which has eng_Latn, deu_Latn; choose"
    ):
        asking("mine.eng_Latn-fra_Latn", task)


# ── choices, numbers, instructions ──────────────────────────────────────────────────────────────────────────


def test_labels_go_by_what_the_file_says_for_them(asking):
    task = MOOD | {"labels": {"good": [1, "fine"], "bad": 0}} | layout("tsv", {"text": "t", "label": "l"})
    files = {"en.txt": 'l\tt\n1\tI "like it\n0\tMeh.\nfine\tFine.\n\tNo idea.\n1\t \n'}
    prompts = {"english": [{"instruction": "Mood?", "input": "{text}", "choices": {"bad": "awful"}}]}
    (made,) = asking("mine.eng_Latn", task | {"prompts": prompts}, files)
    assert [item.targets for item in made.items] == [("good",), ("bad",), ("good",)]
    assert made.items[0].prompt == 'Mood?\nI "like it\n'
    assert made.items[0].choices == ("good", "awful")
    assert made.labels == ("good", "bad")
    assert made.left_out == {"no label": 1, "empty text": 1}


def test_an_unknown_label_is_refused_with_its_line(asking):
    task = MOOD | layout("csv", {"text": "text", "label": "label"}) | {"prompts": "sentiment"}
    with pytest.raises(DataError, match=r"en.txt:3\): label 'godo' given; did you mean 'good'\?"):
        asking("mine.eng_Latn", task, {"en.txt": "text,label\na,good\nb,godo\n"})


def test_choices_may_be_texts_of_the_item_and_words_go_by_a_field(asking):
    """XCOPA's form: the connective goes by the type of the question."""
    task = {
        "kind": "choice",
        "labels": {"1": 0, "2": 1},
        "choices": ["{choice1|lower_first}", "{choice2|lower_first}"],
        "prompts": {
            "english": [
                {
                    "instruction": "Go on.",
                    "input": "{premise|no_period} {connective}",
                    "words": {"connective": {"question": {"cause": "because", "effect": "so"}}},
                }
            ]
        },
        **layout("jsonl", {name: name for name in ("premise", "choice1", "choice2", "question", "label")}),
    }
    record = {
        "premise": "It {rains}.",
        "choice1": "Wet.",
        "choice2": "Dry.",
        "question": "effect",
        "label": 0,
    }
    (made,) = asking("mine.eng_Latn", task, {"en.txt": lines(record)})
    assert made.items[0].prompt == "Go on.\nIt {rains} so\n"
    assert (made.items[0].choices, made.items[0].targets) == (("wet.", "dry."), ("1",))
    with pytest.raises(
        DataError, match=r"en.txt:1\): question 'why' given, which the prompt has no connective"
    ):
        asking("mine.eng_Latn", task, {"en.txt": lines(record | {"question": "why"})})


def test_rows_of_a_language_are_read_from_a_file_of_all(asking):
    """XNLI's form."""
    task = MOOD | layout("tsv", {"text": "text", "label": "label"}, "all.tsv", rows={"language": "{code}"})
    files = {"all.tsv": "language\tlabel\ttext\nen\tgood\tYes\nde\tbad\tNein\nen\tbad\tNo\n"}
    (made,) = asking("mine.eng_Latn", task | {"prompts": "sentiment"}, files)
    assert [item.source_text for item in made.items] == ["Yes", "No"]
    assert [item.id for item in made.items] == ["0", "2"]


def test_a_table_without_header_has_columns_by_number(asking):
    """MGSM's form: tabs, and quotes that are text."""
    task = {
        "kind": "number",
        **layout("tsv", {"question": 1, "answer": 2}),
        "stop": ["\n\n"],
        "max_new_tokens": 9,
    }
    (made,) = asking("mine.eng_Latn", task, {"en.txt": 'He said "two. How many?\t2\nAnd?\t1,000\n'})
    assert [item.targets for item in made.items] == [("2",), ("1,000",)]
    assert 'He said "two. How many?' in made.items[0].prompt
    assert (made.stop, made.max_new_tokens) == (("\n\n",), 9)
    with pytest.raises(
        DataError, match=r"en.txt:2\): 1 columns given; 2 or more are needed; part columns by"
    ):
        asking("mine.eng_Latn", task, {"en.txt": "a\t1\nb 2\n"})


def test_instructions_need_no_gold_answer(asking):
    fields = {"id": "id", "instruction": "instruction", "input": "input"}
    task = {"kind": "open", **layout("json", fields)}
    task["prompts"] = {"english": [{"instruction": "{instruction}", "input": "{input}"}]}
    records = [
        {"id": 1, "instruction": "Sing.", "input": None},
        {"id": 2, "instruction": "Add.", "input": "1"},
    ]
    (made,) = asking("mine.eng_Latn", task, {"en.txt": json.dumps(records)})
    assert [item.prompt for item in made.items] == ["Sing.\n", "Add.\n1\n"]
    assert [item.targets for item in made.items] == [(), ()]


# ── files, splits, languages ────────────────────────────────────────────────────────────────────────────────


def test_the_first_layout_that_is_there_is_read_and_told(asking):
    task = {"kind": "translation", "data": [SENTENCES["data"][0] | {"files": {"test": "published/{code}"}}]}
    task["data"].append(
        {"format": "jsonl", "fields": {"text": "t"}, "files": {"test": ["a/{code}", "{code}"]}}
    )
    (flat,) = asking("mine.eng_Latn-deu_Latn", task, {"en": lines({"t": "one"}), "de": lines({"t": "eins"})})
    published = {"published/en": "one\n", "published/de": "eins\n"}
    (first,) = asking("mine.eng_Latn-deu_Latn", task, published)
    assert flat.describe() == "mine.eng_Latn-deu_Latn: 1 of 1 items (test); from en, de"
    assert first.files == ("published/en", "published/de")
    assert first.items == flat.items


def test_a_split_that_is_not_there_is_refused_and_one_that_is_named(asking):
    """Another split in its place would be another score."""
    task = {"kind": "qa", "splits": ["test", "dev"]}
    task["data"] = [{"format": "squad", "files": {"test": "test.{code}.json", "dev": "dev.{code}.json"}}]
    with pytest.raises(
        DataError, match=r"no file 'test.en.json' in .*; split 'dev' is there; write 'mine.dev.eng_"
    ):
        asking("mine.eng_Latn", task, {"dev.en.json": ENGLISH})
    (made,) = asking("mine.dev.eng_Latn", task)
    assert (made.split, made.name, len(made.items)) == ("dev", "mine.dev.eng_Latn", 2)
    with pytest.raises(ConfigError, match="no split 'devs'; did you mean 'dev'?"):
        asking("mine.devs.eng_Latn", task)


def test_a_language_without_files_is_refused_and_those_with_files_are_named(asking):
    with pytest.raises(ConfigError, match="no language 'fra_Latn'; files are there for deu_Latn; choose one"):
        asking("mine.fra_Latn", QA, {"de.json": GERMAN})
    with pytest.raises(
        DataError, match="no file 'en.json' in eval.data_folder=.*'test' is there for deu_Latn;"
    ):
        asking("mine.eng_Latn", QA)
    ours = {"kind": "qa", "languages": "same"} | layout("squad", test="{code}/{code}.json")
    with pytest.raises(
        DataError, match="no file 'eng_Latn/eng_Latn.json' .*; split 'test' is there for deu_Latn, zho_Hans;"
    ):
        asking(
            "mine.eng_Latn",
            ours,
            {f"{code}/{code}.json": GERMAN for code in ("zho_Hans", "deu_Latn", "readme")},
        )


def test_nothing_there_tells_where_to_get_it(asking):
    with pytest.raises(
        DataError, match="nothing of 'mine' is there; set eval.data_folder, or get the files: y$"
    ):
        asking("mine.eng_Latn", QA)


@pytest.mark.parametrize(
    ("entry", "task", "message"),
    [
        ("mine.eng_Latn-deu_Latn", QA, "two languages given; 'mine' is asked in one; write mine.LANGUAGE"),
        (
            "mine.eng_Latn",
            SENTENCES,
            "one language given; 'mine' is translation; write mine.LANGUAGE-LANGUAGE",
        ),
        ("mein.eng_Latn", QA, "unknown source or task file 'mein'; did you mean 'mine'?"),
        ("mine.eng", QA, "unknown language 'eng'; write 'eng_Latn'"),
        ("mine.eng_Latn", QA | {"prompts": "qaa"}, "no prompts 'qaa'; did you mean 'qa'?"),
    ],
)
def test_an_entry_that_cannot_be_asked_is_refused(asking, entry, task, message):
    with pytest.raises(ConfigError, match=message):
        asking(entry, task, {"en.json": ENGLISH, "de.json": GERMAN})


DAMAGED = [
    (QA, {"en.json": ""}, r"en.json\): the file is empty"),
    (QA, {"en.json": ENGLISH[:50]}, r"en.json:1\): broken JSON at column"),
    (QA, {"en.json": ENGLISH.encode("utf-16")}, r"en.json:1\): byte 0xff at offset 0 is not UTF-8"),
    (
        QA,
        {"en.json": ENGLISH.replace("Nile is", "Rhine is")},
        r"qas\[0\]\): answer 'Nile' with answer_start 4",
    ),
    (QA, {"en.json": "version https://git-lfs.github.com/spec/v1"}, "the file is a Git LFS pointer"),
    (QA, {"en.json": '{"data": []}'}, r"eval.tasks: 'mine.eng_Latn' \('.*en.json'\): no record; one or more"),
    (
        QA,
        {"en.json": squad("c", {"a": ("", "c"), "b": (" ", "c")})},
        "none of its 2 records can be asked: empty question 2; one or more is needed",
    ),
    (QA, {"en.json": ENGLISH.replace("answers", "answer")}, "no field 'answers'; the record has"),
    (
        MOOD | {"prompts": "sentiment"} | layout("csv", {"text": "text", "label": "label"}),
        {"en.txt": 'text,label\na,good\n"b\nc'},
        r"en.txt:3\): broken CSV, unexpected end of data; whole lines",
    ),
    (
        MOOD | {"prompts": "sentiment"} | layout("csv", {"text": "text", "label": "label"}),
        {"en.txt": 'text,label\n"a\nb",good\n"c\nd"\n'},
        r"en.txt:4\): 1 columns given; the header has 2, 'text', 'label'; quote a field that holds a comma",
    ),
    (
        MOOD | {"prompts": "sentiment"} | layout("csv", {"text": "text", "label": "label"}),
        {"en.txt": "text,text\na,b\n"},
        "column 'text' given twice; each has its own name",
    ),
    (
        MOOD | {"prompts": "sentiment"} | layout("jsonl", {"text": "text", "label": "label"}),
        {"en.txt": lines({"text": ["a"], "label": "good"})},
        r"en.txt:1\): field 'text' is a list; text or a number is needed",
    ),
]


@pytest.mark.parametrize(("task", "files", "message"), DAMAGED)
def test_damaged_files_are_refused_with_file_and_line(asking, task, files, message):
    with pytest.raises(DataError, match=message):
        asking("mine.eng_Latn", task, files)


# ── samples, signatures, leaks, prompts of one's own ────────────────────────────────────────────────────────


def test_a_sample_is_the_same_in_every_language_and_prompt(asking):
    files = {
        f"{code}.json": squad("all", {f"q{number}": (f"{code} {number}?", "all") for number in range(40)})
        for code in ("en", "de")
    }
    english = asking("mine.eng_Latn", QA, files, items=10, prompts=["english"])
    (german,) = asking("mine.deu_Latn", QA, files, items=10)
    assert len(english) > 1
    ids = [[item.id for item in task.items] for task in (*english, german)]
    assert all(each == ids[0] for each in ids)
    assert len(ids[0]) == 10
    assert "items:10of40" in german.signature
    assert len({task.key for task in english}) == len(english)


def test_the_signature_tells_prompt_split_items_and_files(asking):
    (before,) = asking("mine.eng_Latn", QA, {"en.json": ENGLISH})
    (again,) = asking("mine.eng_Latn", QA, {"en.json": gzip.compress(ENGLISH.encode())})
    (after,) = asking("mine.eng_Latn", QA, {"en.json": ENGLISH + "\n"})
    assert len(before.fingerprint) == 64
    assert again.signature == before.signature
    assert before.signature.startswith("task:qa3|prompt:short.english.0|split:test|items:2of2|data:")
    assert after.signature.rpartition("|files:")[0] == before.signature.rpartition("|files:")[0]
    assert after.signature != before.signature


def test_training_on_what_is_asked_is_found(asking):
    """Whatever kind the task has."""
    sentence = "The hotel was far from the station, and dirty."
    mood = MOOD | {"prompts": "sentiment"} | layout("csv", {"text": "text", "label": "label"})
    (task,) = asking("mine.eng_Latn", mood, {"en.txt": f'text,label\n"{sentence}",bad\n'})
    web = [PlainText(0, "eng_Latn", "Unrelated words in a sentence."), PlainText(1, "eng_Latn", sentence)]
    assert [leak.index for leak in find_leaks({"web": web}, {task.name: task.records})] == [1]
    (pairs,) = asking("mine.eng_Latn-deu_Latn", SENTENCES, {"en.txt": f"{sentence}\n", "de.txt": "Ja\n"})
    assert [leak.index for leak in find_leaks({"web": web}, {pairs.name: pairs.records})] == [1]
    (asked,) = asking("mine.eng_Latn", QA, {"en.json": ENGLISH})
    learned = {"qa": [asked.records[1]]}
    assert [leak.evaluation_index for leak in find_leaks(learned, {asked.name: asked.records})] == [1]


def test_prompts_of_ones_own_lie_beside_the_task_file(asking, tmp_path):
    folder = tmp_path / "tasks" / "prompts"
    folder.mkdir(parents=True)
    (folder / "riddle.yaml").write_text('english: [{instruction: "{question} {context}"}]', "utf-8")
    (task,) = asking("mine.eng_Latn", QA | {"prompts": "riddle"}, {"en.json": ENGLISH})
    assert task.items[0].prompt == "Which river? The Nile is long.\n"
    assert task.prompt_text == "{question} {context}\n"
    (folder / "qa.yaml").write_text('english: [{instruction: "{question}"}]', "utf-8")
    with pytest.raises(ConfigError, match=r"prompts 'qa' are in '.*' and '.*qa.yaml'; rename the second$"):
        asking("mine.eng_Latn", QA)


def test_native_prompts_are_in_the_language_that_is_not_english(asking):
    """Of a translation, the language that the model is adapted to; its names of languages are in it as well."""
    native = {"deu_Latn": [{"instruction": "{source_language} – {target_language}:", "input": "{text}"}]}
    task = SENTENCES | {"prompts": {"english": [{"instruction": "{text}"}], "native": native}}
    files = {"en.txt": "one\n", "de.txt": "eins\n"}
    (there,) = asking("mine.eng_Latn-deu_Latn", task, files, prompts=["native.0"])
    (back,) = asking("mine.deu_Latn-eng_Latn", task, files, prompts=["native"])
    assert there.items[0].prompt == "Englisch – Deutsch:\none\n"
    assert back.items[0].prompt == "Deutsch – Englisch:\neins\n"
    assert (there.key, back.prompt) == ("mine.eng_Latn-deu_Latn@native.0", "native.0")
    assert there.prompt_text == "{source_language} – {target_language}:\n{text}\n"
    every = asking("mine.eng_Latn-deu_Latn", task, files, prompts=["all"])
    assert [(made.prompt, made.note) for made in every] == [("english.0", ""), ("native.0", "")]


def test_a_language_without_native_prompts_is_refused_or_told(asking):
    """A crossed question is asked in the language of the question."""
    prompts = {
        "english": [{"instruction": "{question}"}],
        "native": {"deu_Latn": [{"instruction": "{question}!"}]},
    }
    task = QA | {"prompts": prompts, "is_parallel": True}
    files = {"en.json": ENGLISH, "de.json": GERMAN}
    assert (
        asking("mine.eng_Latn-deu_Latn", task, files, prompts=["native"])[0].items[0].prompt
        == "Wie ist er?!\n"
    )
    with pytest.raises(
        ConfigError, match="eval.tasks: 'mine.deu_Latn-eng_Latn' has no prompt in eng_Latn; deu_Latn"
    ):
        asking("mine.deu_Latn-eng_Latn", task, prompts=["native"])
    (made,) = asking("mine.eng_Latn", task, prompts=["all"])
    assert made.describe().endswith("; no native prompt in eng_Latn")


# ── as in training ──────────────────────────────────────────────────────────────────────────────────────────


def learned(record: Pair | Question, data: dict, direction: tuple[str, str] | None = None) -> str:
    """The prompt of a record that is trained on, in the first wording."""
    wording = load_wording(DataConfig(**data))
    return render(record, wording, source="x", training=True, direction=direction).prompt


@pytest.mark.parametrize("template", ["alpaca", "short", "raw"])
@pytest.mark.parametrize("language", ["deu_Latn", "jav_Latn"])
def test_with_localized_frames_a_translation_is_asked_for_as_it_was_learned(asking, template, language):
    """In native.0, also in Javanese, which the prompts do not have; short has one frame for all, its own."""
    data = {"template": template, "frames": "localized"}
    task = SENTENCES | {"languages": {"eng_Latn": "en", language: "xx"}}
    files = {"en.txt": "one\n", "xx.txt": "x\n"}
    name = "english.0" if template == "short" else "native.0"
    (made,) = asking(f"mine.eng_Latn-{language}", task, files, prompts=[name], data=data)
    expected = learned(Pair(0, {"eng_Latn": "one", language: "x"}), data, ("eng_Latn", language))
    assert made.items[0].prompt == expected
    assert "English" not in expected


@pytest.mark.parametrize("template", ["alpaca", "raw"])
def test_with_localized_frames_a_question_is_asked_as_it_was_learned(asking, template):
    data = {"template": template, "frames": "localized"}
    (made,) = asking("mine.deu_Latn", QA, {"de.json": GERMAN}, prompts=["native"], data=data)
    assert made.items[0].prompt == learned(made.records[0], data)
    assert "Frage: Wie ist er?" in made.items[0].prompt


def test_wording_of_ones_own_is_the_first_prompt(asking, tmp_path):
    folder = tmp_path / "wording"
    folder.mkdir()
    (folder / "translation.yaml").write_text('- "Mine, {target_language}:"', "utf-8")
    data = {"template": "raw", "wording_folder": str(folder)}
    files = {"en.txt": "one\n", "de.txt": "eins\n"}
    made = asking("mine.eng_Latn-deu_Latn", SENTENCES, files, prompts=["english"], data=data)
    assert made[0].items[0].prompt == "Mine, German:\n\none\n"
    assert made[1].items[0].prompt.startswith("Say in German what"), "the others are not of training"


def test_the_frame_of_a_choice_is_in_the_language_of_its_prompt(asking):
    """Its answers are; those of a question are in the language of the context."""
    prompts = {
        "english": [{"instruction": "Mood of {text}?"}],
        "native": {"deu_Latn": [{"instruction": "Laune von {text}?"}]},
    }
    task = (
        MOOD | layout("jsonl", {"text": "text", "label": "label"}, test="{code}.jsonl") | {"prompts": prompts}
    )
    files = {"de.jsonl": lines({"text": "Ja", "label": "good"})}
    data = {"template": "alpaca", "frames": "localized"}
    english, native = asking("mine.deu_Latn", task, files, prompts=["all"], data=data)
    assert english.items[0].prompt.endswith("### Instruction:\nMood of Ja?\n\n### Response:")
    assert native.items[0].prompt.endswith("### Anweisung:\nLaune von Ja?\n\n### Antwort:")


def test_a_task_in_a_language_without_frames_is_refused(asking):
    task = SENTENCES | {"languages": {"eng_Latn": "en", "tam_Taml": "ta"}}
    files = {"en.txt": "one\n", "ta.txt": "x\n"}
    with pytest.raises(ConfigError, match="has no frames for answers in tam_Taml"):
        asking("mine.eng_Latn-tam_Taml", task, files, data={"template": "alpaca", "frames": "localized"})


def test_gold_answers_are_no_slots(asking):
    """A prompt that shows the answer would be asked nothing."""
    task = QA | {"prompts": {"english": [{"instruction": "{question} {answers}"}]}}
    with pytest.raises(
        ConfigError, match="english.0: unknown slot '{answers}'; known: context, question, source_l"
    ):
        asking("mine.eng_Latn", task, {"en.json": ENGLISH})
