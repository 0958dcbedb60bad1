"""Instruction files in and out again: the same form, records, order and other fields."""

import datetime
import gzip
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from jaxlingua.config import InstructionsSource
from jaxlingua.data.instruction_file import check_ending, read_instruction_file, write_like
from jaxlingua.data.sources import open_source
from jaxlingua.errors import ConfigError, DataError

RECORDS = [
    {"id": 7, "instruction": "Say a", "input": "", "output": "A", "more": {"k": [1, None, 2.5, True]}},
    {"instruction": "Say b", "output": "", "input": None, "\u00e9": "\u2028 stays"},
    {"extra": "first", "output": "C", "instruction": "Say c"},
]


def shouted(path: Path, output: Path) -> Path:
    """The file in capitals."""
    file = read_instruction_file(str(path), "FILE")
    write_like(file, [{name: text.upper() for name, text in one.items()} for one in file.texts()], output)
    return output


EXPECTED = [
    RECORDS[0] | {"instruction": "SAY A"},
    RECORDS[1] | {"instruction": "SAY B"},
    RECORDS[2] | {"instruction": "SAY C"},
]


def test_a_json_array_keeps_records_order_and_other_fields(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("\ufeff" + json.dumps(RECORDS), "utf-8")
    found = json.loads(shouted(path, tmp_path / "b.json").read_text("utf-8"))
    assert found == EXPECTED
    assert [list(one) for one in found] == [list(one) for one in RECORDS]


@pytest.mark.parametrize("is_zipped", [False, True])
def test_json_lines_stay_on_their_lines(tmp_path, is_zipped):
    lines = ["", json.dumps(RECORDS[0]), "  ", *map(json.dumps, RECORDS[1:])]
    content = "\r\n".join(lines).encode()
    path = tmp_path / "a.jsonl"
    path.write_bytes(gzip.compress(content) if is_zipped else content)
    found = shouted(path, tmp_path / "b.jsonl").read_text("utf-8").split("\n")
    assert [bool(line) for line in found] == [False, True, False, True, True, False]
    assert [json.loads(line) for line in found if line] == EXPECTED


def test_half_of_a_surrogate_pair_in_another_field_stays(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"instruction": "a", "output": "b", "raw": "\\ud83d"}\n')
    found = json.loads(shouted(path, tmp_path / "b.jsonl").read_text("utf-8"))
    assert found == {"instruction": "A", "output": "B", "raw": "\ud83d"}


def test_parquet_keeps_types_of_other_columns(tmp_path):
    table = pyarrow.table(
        {
            "when": pyarrow.array([datetime.date(2024, 1, 2), None], pyarrow.date32()),
            "instruction": ["Say a", "Say b"],
            "input": pyarrow.array([None, "x"], pyarrow.large_string()),
            "output": ["a", ""],
            "scores": pyarrow.array([[1], []], pyarrow.list_(pyarrow.int8())),
        }
    ).replace_schema_metadata({"told": "by somebody"})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "a.parquet")  # as a reader finds it
    found = pyarrow.parquet.read_table(shouted(tmp_path / "a.parquet", tmp_path / "b.parquet"))
    assert found.schema.equals(table.schema, check_metadata=True)
    wanted = table.to_pylist()
    for one in wanted:
        one |= {name: one[name] and one[name].upper() for name in ("instruction", "input", "output")}
    assert found.to_pylist() == wanted


def test_what_is_written_is_read_as_instructions_with_the_same_indices(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("\n" + "".join(json.dumps(one) + "\n" for one in RECORDS), "utf-8")
    shouted(path, tmp_path / "b.jsonl")
    before, after = (
        open_source(
            "x", InstructionsSource(kind="instructions", path=name, language="eng_Latn"), str(tmp_path)
        )
        for name in ("a.jsonl", "b.jsonl")
    )
    assert (
        [one.index for one in after.records("all")] == [one.index for one in before.records("all")] == [1, 3]
    )
    assert before.skipped == after.skipped == {"empty output": 1}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"[]", "FILE ({path}): no record in it; one or more is needed; write the file again"),
        (b"", "FILE ({path}): the file is empty; one record or more is needed; write the file again"),
        (
            b'{"output": "a"}',
            "FILE ({path}:1): no field 'instruction'; the record has 'output'; instruction and output are "
            "needed, input may be there; rename the fields to these",
        ),
        (
            b'[{"instruction": "a", "targets": "b"}]',
            "FILE ({path}, record 1): no field 'output'; the record has 'instruction', 'targets'; instruction and "
            "output are needed, input may be there; rename the fields to these",
        ),
        (
            b"\xef\xbb\xbf\r\ninstruction,output\r\na,b\r\n",
            "FILE ({path}): begins with 'instruction,output'; a JSON array of objects, JSON lines or Parquet is "
            "read; convert the file",
        ),
        (
            b'[{"instruction": "a", "output": 3}]',
            "FILE ({path}, record 1): field 'output' is the number 3; text is needed; mend the record",
        ),
        (
            b'{"instruction": "a", "output": "b\xff"}',
            "FILE ({path}:1): byte 0xff at offset 33 is not UTF-8; only UTF-8 is read; convert the file, for "
            "example with iconv",
        ),
        (
            b'{"instruction": "a", "output": "\\ud83d"}',
            "FILE ({path}:1): field 'output' has half of a surrogate pair, U+D83D, at character 0; whole "
            "characters are needed; mend the record",
        ),
    ],
)
def test_files_that_cannot_be_translated_are_refused(tmp_path, content, told):
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError) as refused:
        read_instruction_file(str(path), "FILE").texts()
    assert str(refused.value) == told.format(path=path)


def test_a_name_that_tells_another_form_is_refused():
    for output in ("out.json", "out.jsonl.gz", "out.parquet"):
        with pytest.raises(ConfigError) as refused:
            check_ending(Path(output), "JSON lines", "--output")
        assert str(refused.value) == (
            f"--output: '{output}' given; the file that is read is JSON lines, and what is written has its "
            f"form, not zipped; name it out.jsonl"
        )
    for output in ("out.jsonl", "out.txt", "out"):
        check_ending(Path(output), "JSON lines", "--output")


def test_a_write_that_fails_leaves_no_output(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(RECORDS), "utf-8")
    monkeypatch.setattr("os.fsync", lambda number: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        shouted(path, tmp_path / "b.json")
    assert not (tmp_path / "b.json").exists()
