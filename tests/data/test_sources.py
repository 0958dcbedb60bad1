"""Sources by configuration: every kind to records, splits, fingerprints, skipped records, real data, errors."""

import gzip
import json
import subprocess
import sys

import pyarrow
import pyarrow.parquet
import pytest

from jaxlingua.config import (
    ChatSource,
    CldrSource,
    HuggingFaceSource,
    InstructionsSource,
    ParallelSource,
    QASource,
    TextSource,
)
from jaxlingua.data.records import Conversation, Instruction, Pair, Question, Text
from jaxlingua.data.sources import open_source
from jaxlingua.errors import ConfigError, DataError, MachineError

EN, DE = "eng_Latn", "deu_Latn"
LINES = {EN: ["one\u2028more", "two", "", "four\u0085"], DE: ["eins\u2028mehr", "zwei", "drei", "vier"]}
PAIRS = [Pair(i, {language: LINES[language][i] for language in (EN, DE)}) for i in (0, 1, 3)]
ALPACA = [{"instruction": f"Say {word}.", "input": "", "output": word} for word in ("one", "two", "three")]
INSTRUCTIONS = [
    Instruction(i, EN, f"Say {word}.", "", word) for i, word in enumerate(("one", "two", "three"))
]


@pytest.fixture
def write(tmp_path):
    """Writes a file into the data folder: text and bytes as they are, a list of objects as JSONL."""

    def write(name: str, content: str | bytes | list) -> None:
        if isinstance(content, list):
            content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return write


@pytest.fixture
def records(tmp_path):
    """All records of a source."""
    return lambda config: open_source("news", config, str(tmp_path)).records("all")


@pytest.fixture
def error_of(tmp_path):
    """The message of the error that opening a source ends with, without the folder's name."""

    def error_of(config, error=DataError) -> str:
        with pytest.raises(error) as caught:
            open_source("news", config, str(tmp_path))
        return str(caught.value).replace(f"{tmp_path}/", "")

    return error_of


# ── each kind ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_instructions(write, records, tmp_path):
    write("a.jsonl", ALPACA)
    write("a.json", json.dumps(ALPACA))
    write("a.json.gz", gzip.compress(json.dumps(ALPACA).encode()))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ALPACA), tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.json", "a.json.gz", "a.parquet"):
        assert records(InstructionsSource(path=name, language=EN)) == INSTRUCTIONS


def test_instructions_under_other_names(write, records):
    write("a.jsonl", [{"q": row["instruction"], "a": row["output"]} for row in ALPACA])
    columns = {"instruction": "q", "output": "a"}
    assert records(InstructionsSource(path="a.jsonl", language=EN, columns=columns)) == INSTRUCTIONS


def test_chat(write, records):
    write(
        "a.jsonl",
        [{"messages": [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]}],
    )
    write(
        "b.json",
        json.dumps(
            [{"conversations": [{"from": "human", "value": "Hi."}, {"from": "gpt", "value": "Hello."}]}]
        ),
    )
    expected = [Conversation(0, DE, (("user", "Hi."), ("assistant", "Hello.")))]
    assert (
        records(ChatSource(path="a.jsonl", language=DE))
        == records(ChatSource(path="b.json", language=DE))
        == expected
    )


def test_qa(write, records):
    context = "\ufeff\U0001f600 Ann is  at home."
    question = {"id": "q1", "question": "Where?", "answers": [{"text": "at home", "answer_start": 11}]}
    write("a.json", json.dumps({"data": [{"paragraphs": [{"context": context, "qas": [question]}]}]}))
    expected = [Question(0, "q1", EN, context, "Where?", ("at home",), 11)]
    assert records(QASource(path="a.json", language=EN)) == expected
    assert context[11:].startswith("at home")


def test_parallel_lines(write, records):
    for language, lines in LINES.items():
        write(f"news.{language}.txt", "\n".join(lines) + "\n")
        write(f"zipped.{language}.gz", gzip.compress("\r\n".join(lines).encode()))
    assert records(ParallelSource(path="news.{language}.txt", languages=[EN, DE])) == PAIRS
    assert records(ParallelSource(path="zipped.{language}.gz", languages=[EN, DE])) == PAIRS


def test_parallel_lines_with_other_codes_in_their_names(write, records):
    write("train.en", "\n".join(LINES[EN]))
    write("train.de", "\n".join(LINES[DE]))
    config = ParallelSource(path="train.{language}", languages=[EN, DE], columns={EN: "en", DE: "de"})
    assert records(config) == PAIRS


def test_parallel_tsv(write, records):
    rows = "".join(f"{first}\t{second}\n" for first, second in zip(LINES[EN], LINES[DE], strict=True))
    write("a.tsv", rows)
    write("b.txt", f"en\tde\n{rows}")
    assert records(ParallelSource(path="a.tsv", languages=[EN, DE])) == PAIRS
    swapped = records(ParallelSource(path="a.tsv", languages=[DE, EN], columns={EN: 1, DE: 2}))
    assert swapped == PAIRS
    assert list(swapped[0].texts) == [DE, EN]
    with_header = ParallelSource(path="b.txt", languages=[EN, DE], format="tsv", columns={EN: "en", DE: "de"})
    assert [pair.texts for pair in records(with_header)] == [pair.texts for pair in PAIRS]


def test_parallel_csv(write, records):
    rows = "".join(f'"{first}","{second}"\n' for first, second in zip(LINES[EN], LINES[DE], strict=True))
    write("a.csv", f"\ufeffEnglish,German\n{rows}")
    config = ParallelSource(path="a.csv", languages=[EN, DE], columns={EN: "English", DE: "German"})
    assert [pair.texts for pair in records(config)] == [pair.texts for pair in PAIRS]


def test_parallel_jsonl(write, records):
    rows = [
        {"en": first, "translation": {"de": second}}
        for first, second in zip(LINES[EN], LINES[DE], strict=True)
    ]
    write("a.jsonl", rows)
    config = ParallelSource(path="a.jsonl", languages=[EN, DE], columns={EN: "en", DE: "translation.de"})
    assert records(config) == PAIRS


def test_parallel_jsonl_with_a_file_per_language(write, records):
    for language, lines in LINES.items():
        write(f"{language}.jsonl", [{"text": line} for line in lines])
    write("eng_Latn.jsonl", [{"english": line} for line in LINES[EN]])
    assert (
        records(ParallelSource(path="{language}.jsonl", languages=[EN, DE], columns={EN: "english"})) == PAIRS
    )


def test_text_by_line_and_by_file(write, records):
    write("a.txt", b"\xef\xbb\xbfone\r\n\ntwo\xe2\x80\xa8three\n")
    assert records(TextSource(path="a.txt", language=EN)) == [
        Text(0, EN, "one"),
        Text(2, EN, "two\u2028three"),
    ]
    whole = records(TextSource(path="a.txt", language=EN, unit="file"))
    assert whole == [Text(0, EN, "one\r\n\ntwo\u2028three\n")]


def test_cldr_is_opened_by_its_own_module():
    source = open_source("cldr", CldrSource(languages=[EN, DE], records=100), ".")
    assert list(source.languages) == [EN, DE]
    assert all(isinstance(pair, Pair) for pair in source.records("held_out"))
    assert not source.skipped


# ── Hugging Face ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def datasets(tmp_path, monkeypatch):
    """The datasets library with its cache in the test's own folder."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return datasets


def test_a_folder_of_json_lines_by_the_datasets_library(datasets, write, records, tmp_path):
    (tmp_path / "set").mkdir()
    write("set/train.jsonl", [{"q": row["instruction"], "a": row["output"]} for row in ALPACA])
    config = HuggingFaceSource(
        path="set", yields="instruction", language=EN, columns={"instruction": "q", "output": "a"}
    )
    assert records(config) == INSTRUCTIONS


@pytest.mark.parametrize(
    ("row", "options", "expected"),
    [
        (
            {"translation": {"en": "one", "de": "eins"}},
            {
                "yields": "translation",
                "languages": [EN, DE],
                "columns": {EN: "translation.en", DE: "translation.de"},
            },
            Pair(0, {EN: "one", DE: "eins"}),
        ),
        (
            {
                "id": "q",
                "context": "\U0001f600 Ann",
                "question": "Who?",
                "answers": {"text": ["Ann"], "answer_start": [2]},
            },
            {"yields": "qa", "language": EN},
            Question(0, "q", EN, "\U0001f600 Ann", "Who?", ("Ann",), 2),
        ),
        (
            {"body": "one"},
            {"yields": "text", "language": EN, "columns": {"text": "body"}},
            Text(0, EN, "one"),
        ),
        (
            {"chat": [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]},
            {"yields": "chat", "language": EN, "columns": {"messages": "chat"}},
            Conversation(0, EN, (("user", "Hi."), ("assistant", "Hello."))),
        ),
    ],
    ids=["translation", "qa", "text", "chat"],
)
@pytest.mark.parametrize("is_dict", [True, False], ids=["splits", "one split"])
def test_a_dataset_saved_to_disk(datasets, records, tmp_path, row, options, expected, is_dict):
    dataset = datasets.Dataset.from_list([row])
    (datasets.DatasetDict({"train": dataset}) if is_dict else dataset).save_to_disk(str(tmp_path / "set"))
    assert records(HuggingFaceSource(path="set", **options)) == [expected]


def test_a_split_that_is_not_there_names_those_that_are(datasets, error_of, tmp_path):
    dataset = datasets.Dataset.from_list([{"text": "a"}])
    datasets.DatasetDict({"train": dataset, "dev": dataset}).save_to_disk(str(tmp_path / "set"))
    assert error_of(HuggingFaceSource(path="set", yields="text", language=EN, split="test")) == (
        "data.sources.news.split: 'test' given; set has 'train', 'dev'; choose one of them"
    )


def test_a_column_that_a_dataset_lacks_names_those_it_has(datasets, error_of, tmp_path):
    datasets.Dataset.from_list([{"body": "a"}]).save_to_disk(str(tmp_path / "set"))
    assert error_of(HuggingFaceSource(path="set", yields="text", language=EN)) == (
        "data.sources.news (set, train record 1): no field 'text'; the record has 'body'; "
        "add it, or name the right one in the source's columns"
    )


def test_a_dataset_that_cannot_be_loaded_tells_the_cause(datasets, write, error_of, tmp_path):
    (tmp_path / "set").mkdir()
    write("set/train.jsonl", '{"text": "a"}\n{"text": \n')
    message = error_of(HuggingFaceSource(path="set", yields="text", language=EN))
    assert message.startswith("data.sources.news (set): split 'train' cannot be loaded, ")
    assert "JSON" in message
    assert message.endswith(
        "; a dataset without loading script is needed; mend data.sources.news.path, name or split"
    )


@pytest.mark.parametrize("path", ["./set", "/corpora/news/set", "a/b/set", "../set", __file__])
def test_a_missing_folder_is_not_looked_for_on_the_hub(path):
    """Else a misspelt path would end as a failure of the network, which a scheduler tries again."""
    with pytest.raises(DataError) as caught:
        open_source("news", HuggingFaceSource(path=path, yields="text", language=EN), "data")
    local = path if path.startswith("/") else f"data/{path.removeprefix('./')}"
    assert str(caught.value) == (
        f"data.sources.news.path: '{local}' is not a folder here; "
        "a folder, or a name on the hub such as owner/name, is needed; name the folder, not a file in it"
    )


def test_a_hub_that_cannot_be_reached_is_the_machines_fault(datasets, monkeypatch, tmp_path):
    def unreachable(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(MachineError) as caught:
        open_source("news", HuggingFaceSource(path="some/set", yields="text", language=EN), "data")
    assert str(caught.value) == (
        "data.sources.news.path: 'some/set' is no folder in 'data', and the hub cannot be reached, no route; "
        "connect to it, or name a local folder"
    )


# ── streams ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def folder_of_lines(datasets, write, tmp_path):
    """3,000 records in the shape of xP3 (inputs, targets, language, task) in two files."""
    (tmp_path / "xp3").mkdir()
    rows = [
        {"inputs": f"Ask {i}.", "targets": f"{i}", "language": "en", "task": f"task {i % 3}"}
        for i in range(3000)
    ]
    write("xp3/a.jsonl", rows[:2000])
    write("xp3/b.jsonl", rows[2000:])
    return tmp_path


def xp3(**options) -> HuggingFaceSource:
    columns = {"instruction": "inputs", "output": "targets"}
    return HuggingFaceSource(path="xp3", yields="instruction", language=EN, columns=columns, **options)


def test_a_dataset_of_inputs_and_targets_is_read_as_instructions_without_input(folder_of_lines, records):
    assert records(xp3()) == [Instruction(i, EN, f"Ask {i}.", "", f"{i}") for i in range(3000)]


def test_a_stream_gives_the_first_of_what_the_datasets_library_shuffles(
    datasets, folder_of_lines, records, tmp_path
):
    stream = datasets.load_dataset(str(tmp_path / "xp3"), split="train", streaming=True)
    expected = list(stream.shuffle(seed=42, buffer_size=1000).take(100))
    assert records(xp3(stream_records=100, stream_seed=42)) == [
        Instruction(i, EN, row["inputs"], "", row["targets"]) for i, row in enumerate(expected)
    ]


def test_a_stream_is_the_same_each_time_and_another_for_each_seed(folder_of_lines):
    def opened(seed):
        return open_source("news", xp3(stream_records=50, stream_seed=seed), str(folder_of_lines))

    first, again, other = opened(1), opened(1), opened(2)
    assert first.records("all") == again.records("all")
    assert first.fingerprint == again.fingerprint != other.fingerprint
    taken = [[record.instruction for record in source.records("all")] for source in (first, other)]
    assert len(set(taken[0])) == 50
    assert len(set(taken[0]) & set(taken[1])) < 25


def test_the_fingerprint_of_a_stream_goes_by_what_was_taken_from_it(folder_of_lines, write):
    def fingerprint():
        return open_source("news", xp3(stream_records=3000), str(folder_of_lines)).fingerprint

    before = fingerprint()
    write("xp3/b.jsonl", [{"inputs": "Ask.", "targets": "", "language": "en", "task": ""}] * 1000)
    assert fingerprint() != before


def test_a_stream_that_ends_early_is_refused_with_both_counts(folder_of_lines, error_of):
    assert error_of(xp3(stream_records=10_000)) == (
        "data.sources.news.stream_records: 10,000 given; xp3 has 3,000 in split 'train'; "
        "give that many or fewer, or leave it out to read all"
    )


def test_what_was_saved_to_disk_is_not_streamed(datasets, error_of, tmp_path):
    datasets.Dataset.from_list([{"inputs": "a", "targets": "b"}]).save_to_disk(str(tmp_path / "xp3"))
    assert error_of(xp3(stream_records=1), ConfigError) == (
        "data.sources.news.stream_records: 1 given; 'xp3' was saved by save_to_disk, and only the hub and "
        "folders of files are streamed; leave stream_records out"
    )


def test_a_stream_that_breaks_tells_the_cause(datasets, write, error_of, tmp_path):
    (tmp_path / "xp3").mkdir()
    write("xp3/train.jsonl", '{"inputs": "a", "targets": "b"}\n{"inputs": \n')
    message = error_of(xp3(stream_records=2))
    assert message.startswith("data.sources.news (xp3): split 'train' cannot be loaded, ")
    assert "JSON" in message


def test_a_split_that_a_stream_lacks_is_refused(folder_of_lines, error_of):
    message = error_of(xp3(stream_records=2, split="dev"))
    assert message.startswith("data.sources.news (xp3): split 'dev' cannot be loaded, ")


def test_records_have_the_stratum_that_their_column_says(folder_of_lines, write, records):
    columns = {"instruction": "inputs", "output": "targets", "stratum": "task"}
    strata = [f"task {i % 3}" for i in range(3000)]
    dataset = HuggingFaceSource(path="xp3", yields="instruction", language=EN, columns=columns)
    assert [record.stratum for record in records(dataset)] == strata
    file = InstructionsSource(path="xp3/a.jsonl", language=EN, columns=columns)
    assert [record.stratum for record in records(file)] == strata[:2000]
    text = HuggingFaceSource(
        path="xp3", yields="text", language=EN, columns={"text": "inputs", "stratum": "task"}
    )
    assert [record.stratum for record in records(text)] == strata
    assert {record.stratum for record in records(xp3())} == {""}


# ── splits, counts, fingerprint ──────────────────────────────────────────────────────────────────────────────────


def test_the_splits_part_the_records_and_keep_their_order(write, tmp_path):
    write("a.txt", "".join(f"line {number}\n" for number in range(300)))
    source = open_source("news", TextSource(path="a.txt", language=EN), str(tmp_path))
    train, held_out = source.records("train"), source.records("held_out")
    assert len(held_out) == 3
    assert sorted(train + held_out, key=lambda record: record.index) == source.records("all")
    assert [record.index for record in train] == sorted(record.index for record in train)


def test_the_same_records_are_held_out_whatever_languages_are_read(write, tmp_path):
    rows = [{"en": f"one {i}", "de": f"eins {i}", "fr": f"un {i}"} for i in range(200)]
    write("a.jsonl", rows)
    codes = {EN: "en", DE: "de", "fra_Latn": "fr"}
    chosen = []
    for languages in ([EN, DE], ["fra_Latn", EN], [EN, DE, "fra_Latn"]):
        columns = {language: codes[language] for language in languages}
        config = ParallelSource(path="a.jsonl", languages=languages, columns=columns, held_out_records=20)
        source = open_source("news", config, str(tmp_path))
        chosen.append([record.index for record in source.records("held_out")])
    assert len(chosen[0]) == 20
    assert chosen[0] == chosen[1] == chosen[2]


def test_what_is_skipped_is_counted_by_reason_and_told(write, tmp_path):
    write(
        "a.jsonl",
        [
            *ALPACA,
            {"instruction": "", "output": "a"},
            {"instruction": "b", "output": " "},
            ALPACA[0] | {"output": ""},
        ],
    )
    source = open_source(
        "news", InstructionsSource(path="a.jsonl", language=EN, held_out_records=1), str(tmp_path)
    )
    assert source.skipped == {"empty instruction": 1, "empty output": 2}
    assert (len(source.records("train")), len(source.records("held_out"))) == (2, 1)


def test_the_fingerprint_goes_by_content_and_options_and_not_by_place(write, tmp_path):
    write("a.jsonl", ALPACA)
    write("b.jsonl", gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    write("c.jsonl", ALPACA[:2])

    def fingerprint(path, name="news", **options):
        return open_source(
            name, InstructionsSource(path=path, language=EN, **options), str(tmp_path)
        ).fingerprint

    same = fingerprint("a.jsonl")
    assert len(same) == 64
    assert fingerprint("b.jsonl") == fingerprint(str(tmp_path / "a.jsonl")) == same
    others = [
        fingerprint("c.jsonl"),
        fingerprint("a.jsonl", held_out_records=2),
        fingerprint("a.jsonl", columns={"input": "output"}),
        fingerprint("a.jsonl", name="web"),
    ]
    assert len({same, *others}) == 5


def test_the_fingerprint_of_a_dataset_goes_by_its_records(datasets, tmp_path):
    def fingerprint(*texts):
        datasets.Dataset.from_list([{"text": text} for text in texts]).save_to_disk(
            str(tmp_path / "-".join(texts))
        )
        config = HuggingFaceSource(path="-".join(texts), yields="text", language=EN)
        return open_source("news", config, str(tmp_path)).fingerprint

    assert fingerprint("a", "b") == fingerprint("a", "b") != fingerprint("a", "c")


# ── errors ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_files_of_different_length_are_refused_with_both_counts(write, error_of):
    write("a.eng_Latn", "one\ntwo\n")
    write("a.deu_Latn", "eins\nzwei\ndrei\n")
    assert error_of(ParallelSource(path="a.{language}", languages=[EN, DE])) == (
        "data.sources.news: a.eng_Latn has 2 lines, a.deu_Latn has 3; "
        "line n of each file must be the same sentence; align the files again"
    )


def test_a_missing_language_file_names_the_nearest(write, error_of):
    write("a.eng_Latn", "one\n")
    write("a.deu_Lat", "eins\n")
    assert error_of(ParallelSource(path="a.{language}", languages=[EN, DE])) == (
        "data.sources.news.path: 'a.deu_Latn' does not exist; did you mean 'a.deu_Lat'?"
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"path": "a.txt"},
            "data.sources.news.format: auto given, which the name 'a.txt' does not tell; "
            "lines, tsv, csv or jsonl is allowed; set data.sources.news.format",
        ),
        (
            {"path": "a.{language}.tsv"},
            "data.sources.news.path: 'a.{language}.tsv' given with format=tsv, which has all languages in one file; "
            "remove {language} or set data.sources.news.format=lines",
        ),
        (
            {"path": "a.{language}.csv.gz"},
            "data.sources.news.path: 'a.{language}.csv.gz' given with format=csv, which has all languages in one "
            "file; remove {language} or set data.sources.news.format=lines",
        ),
        (
            {"path": "a.XLSX"},
            "data.sources.news.path: 'a.XLSX' given, a spreadsheet; lines, tsv, csv or jsonl is allowed; "
            "save it as CSV or TSV",
        ),
        (
            {"path": "a.txt", "format": "lines"},
            "data.sources.news.path: 'a.txt' given with format=lines, which has one file per language; "
            "write {language} where their names differ",
        ),
        (
            {"path": "a.tsv", "columns": {"deu_Latin": "2"}},
            "data.sources.news.columns: unknown field 'deu_Latin'; did you mean 'deu_Latn'?",
        ),
    ],
    ids=[
        "unknown format",
        "tsv per language",
        "csv per language",
        "spreadsheet",
        "lines in one file",
        "columns",
    ],
)
def test_parallel_options_that_exclude_each_other_are_refused(error_of, options, expected):
    assert error_of(ParallelSource(languages=[EN, DE], **options), ConfigError) == expected


def test_columns_of_no_field_are_refused_with_the_nearest(error_of):
    config = InstructionsSource(path="a.jsonl", language=EN, columns={"instructions": "q"})
    assert error_of(config, ConfigError) == (
        "data.sources.news.columns: unknown field 'instructions'; did you mean 'instruction'?"
    )


@pytest.mark.parametrize(
    ("path", "columns", "shared"),
    [
        ("a.tsv", {EN: 1, DE: 1}, "1"),
        ("a.jsonl", {EN: DE}, DE),
        ("a.{language}", {EN: "en", DE: "en"}, "en"),
    ],
    ids=["tsv", "jsonl", "lines"],
)
def test_two_languages_of_one_column_are_refused(error_of, path, columns, shared):
    """They would be a translation of each sentence into itself."""
    config = ParallelSource(path=path, languages=[EN, DE], columns=columns)
    assert error_of(config, ConfigError) == (
        f"data.sources.news.columns: '{shared}' given for eng_Latn and for deu_Latn; each language needs its own; "
        "mend data.sources.news.columns"
    )


def test_a_file_without_records_is_refused(write, error_of):
    write("a.json", b"[]")
    assert error_of(InstructionsSource(path="a.json", language=EN)) == (
        "data.sources.news (a.json): no record in it; one or more is needed; mend the file or remove the source"
    )


def test_a_file_of_which_nothing_is_left_is_refused_with_the_reasons(write, error_of):
    write("a.jsonl", [{"instruction": "", "output": "a"}, {"instruction": "a", "output": ""}])
    assert error_of(InstructionsSource(path="a.jsonl", language=EN)) == (
        "data.sources.news (a.jsonl): no record that can be used, skipped: empty instruction (1), empty output (1); "
        "one or more is needed; mend the file or remove the source"
    )


@pytest.mark.parametrize(
    "config",
    [
        InstructionsSource(path="a", language=EN),
        ChatSource(path="a", language=EN),
        QASource(path="a", language=EN),
        TextSource(path="a", language=EN),
        ParallelSource(path="a", languages=[EN, DE], format="tsv"),
        ParallelSource(path="{language}", languages=[EN, DE], columns={EN: "a", DE: "b"}, format="lines"),
    ],
    ids=lambda config: config.kind,
)
def test_an_empty_file_of_any_kind_is_refused(write, error_of, config):
    write("a", b"")
    assert error_of(config) == (
        "data.sources.news (a): the file is empty; one record or more is needed; write the file again"
    )


def test_reading_data_imports_no_jax_and_no_datasets_library():
    code = (
        "import sys, jaxlingua.data.sources; print(sorted({'jax', 'datasets', 'pyarrow'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


# ── real data ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_multi30k_has_its_29000_triples(shared_data):
    columns = {EN: "en", DE: "de", "fra_Latn": "fr"}
    config = ParallelSource(path="multi30k/train.jsonl", languages=list(columns), columns=columns)
    source = open_source("multi30k", config, str(shared_data))
    assert (len(source.records("train")), len(source.records("held_out"))) == (28_744, 256)
    assert (
        source.records("all")[0].texts["fra_Latn"]
        == "Deux jeunes hommes blancs sont dehors près de buissons."
    )
    trained = {text for record in source.records("train") for text in record.texts.values()}
    assert not any(text in trained for record in source.records("held_out") for text in record.texts.values())


@pytest.mark.parametrize("code", ["ar", "es", "hi", "ru", "zh"])
def test_xquad_has_1190_questions_whose_answers_are_where_they_say(shared_data, code):
    """Contexts begin with a byte order mark or a space, and hold doubled spaces: nothing may be stripped."""
    source = open_source("xquad", QASource(path=f"xquad/xquad.{code}.json", language=EN), str(shared_data))
    questions = source.records("all")
    assert len(questions) == 1190
    assert source.skipped == {}
    for question in questions:
        assert question.context[question.answer_start :].startswith(question.answers[0])
    contexts = {question.context for question in source.records("train")}
    assert not any(question.context in contexts for question in source.records("held_out"))


@pytest.mark.parametrize(
    ("path", "columns", "count"),
    [
        ("alpaca_en", {}, 3678),
        ("alpaca_zh", {}, 3824),
        ("alpaca_parallel_en_zh", {name: f"zh.{name}" for name in ("instruction", "input", "output")}, 1815),
        ("seed_tasks_fr", {name: f"instances.0.{name}" for name in ("input", "output")}, 150),
    ],
)
def test_instruction_files_have_the_rows_that_their_readme_counts(shared_data, path, columns, count):
    config = InstructionsSource(path=f"instructions/{path}.jsonl", language="zho_Hans", columns=columns)
    source = open_source(path, config, str(shared_data))
    assert len(source.records("all")) + sum(source.skipped.values()) == count


def test_flores_is_read_with_a_file_per_language(shared_data):
    config = ParallelSource(path="flores200/{language}.jsonl", languages=[EN, "zho_Hans", "ind_Latn"])
    assert len(open_source("flores", config, str(shared_data)).records("all")) == 702


def test_mgsm_is_tab_separated_without_quoting(shared_data):
    config = ParallelSource(path="mgsm/mgsm_en.tsv", languages=[EN, "zho_Hans"])
    assert len(open_source("mgsm", config, str(shared_data)).records("all")) == 250
