"""Files to rows: encodings, line ends, gzip, JSON, Parquet, and every error word by word."""

import gzip
import json

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxlingua.data.readers import (
    find_file,
    read_json,
    read_lines,
    read_rows,
    read_squad,
    read_text,
    sha256_of,
)
from jaxlingua.errors import DataError

WHERE = "data.sources.news"
ROWS = [{"text": "Ann\u2028sings.\u0085"}, {"text": "\u00e9\U0001f600"}, {"text": ""}]


def jsonl(rows) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def parquet(rows) -> bytes:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
    return sink.getvalue().to_pybytes()


def error_of(read, path, *arguments) -> str:
    """The message of the DataError, with the folder's name taken out."""
    with pytest.raises(DataError) as caught:
        list(read(path, WHERE, *arguments))
    return str(caught.value).replace(f"{path.parent}/", "")


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"], ids=["plain", "bom"])
@pytest.mark.parametrize("zip", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize(
    "content",
    [
        jsonl(ROWS),
        jsonl(ROWS).replace(b"\n", b"\r\n"),
        jsonl(ROWS).rstrip(b"\n"),
        json.dumps(ROWS, ensure_ascii=False).encode(),
        json.dumps(ROWS, indent=2).encode(),
    ],
    ids=["jsonl", "crlf", "no last newline", "array", "indented array"],
)
def test_rows_are_the_same_in_every_form_of_json(tmp_path, content, zip, bom):
    """The name says nothing: a gzipped array may be called .jsonl."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(zip(bom + content))
    rows = list(read_rows(path, WHERE))
    assert [row.fields for row in rows] == ROWS
    assert [row.index for row in rows] == [0, 1, 2]


@pytest.mark.parametrize("zip", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_parquet_gives_the_rows_of_json(tmp_path, zip):
    path = tmp_path / "rows.json"
    path.write_bytes(zip(parquet(ROWS)))
    rows = list(read_rows(path, WHERE))
    assert [row.fields for row in rows] == ROWS
    assert rows[2].place == f"{WHERE} ({path}, record 3)"


def test_parquet_of_several_batches_numbers_its_records_through(tmp_path):
    path = tmp_path / "rows.parquet"
    path.write_bytes(parquet([{"n": number} for number in range(3000)]))
    rows = list(read_rows(path, WHERE))
    assert [row.index for row in rows] == [row.fields["n"] for row in rows] == list(range(3000))


def test_blank_lines_are_no_rows_but_keep_later_ones_at_their_line_number(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\n{"text": "a"}\n  \n{"text": "b"}\n')
    rows = list(read_rows(path, WHERE))
    assert [(row.index, row.place) for row in rows] == [
        (1, f"{WHERE} ({path}:2)"),
        (3, f"{WHERE} ({path}:4)"),
    ]


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    lines=st.lists(st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"])), min_size=1),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_any_text_comes_back_line_by_line(tmp_path, lines, end):
    """Only \\n and \\r\\n end a line; a byte order mark at the very start is not text, anywhere else it is."""
    path = tmp_path / "lines.txt"
    lines = [line.rstrip("\r") for line in lines]
    path.write_bytes(b"\xef\xbb\xbf" + "".join(line + end for line in lines).encode())
    assert list(read_lines(path, WHERE)) == lines


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    rows=st.lists(
        st.fixed_dictionaries({"text": st.text(st.characters(exclude_categories=["Cs"]))}), min_size=1
    )
)
def test_any_text_comes_back_from_json_lines(tmp_path, rows):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(jsonl(rows))
    assert [row.fields for row in read_rows(path, WHERE)] == rows


def test_a_huge_single_line_is_one_row(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(jsonl([{"text": "é" * 5_000_000}]))
    (row,) = read_rows(path, WHERE)
    assert len(row.fields["text"]) == 5_000_000


def test_a_file_is_read_whole_with_its_line_ends_and_without_its_byte_order_mark(tmp_path):
    path = tmp_path / "page.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\n")
    assert read_text(path, WHERE) == "one\r\ntwo\n"


# ── errors of files ──────────────────────────────────────────────────────────────────────────────────────────────


def find(path, where):
    return [find_file(path.name, str(path.parent), where)]


def test_a_missing_file_names_the_nearest_one_of_its_folder(tmp_path):
    (tmp_path / "alpaca_en.json").write_text("[]")
    (tmp_path / "news.txt").write_text("a")
    assert error_of(find, tmp_path / "alpca_en.json") == (
        "data.sources.news.path: 'alpca_en.json' does not exist; did you mean 'alpaca_en.json'?"
    )
    assert error_of(find, tmp_path / "zzz") == (
        "data.sources.news.path: 'zzz' does not exist; the folder has alpaca_en.json, news.txt"
    )
    assert error_of(find, tmp_path / "zzz.json").endswith("the folder has alpaca_en.json, news.txt")


def test_many_names_are_cut_after_five_with_a_count(tmp_path):
    for number in range(7):
        (tmp_path / f"{number}.txt").write_text("a")
    assert error_of(find, tmp_path / "news").endswith(
        "the folder has 0.txt, 1.txt, 2.txt, 3.txt, 4.txt and 2 more"
    )


def test_a_missing_folder_says_what_paths_are_relative_to(tmp_path):
    with pytest.raises(DataError) as caught:
        find_file("corpora/news.txt", str(tmp_path), WHERE)
    assert str(caught.value) == (
        f"data.sources.news.path: '{tmp_path}/corpora/news.txt' given; there is no folder '{tmp_path}/corpora'; "
        f"write an absolute path or one relative to data.folder='{tmp_path}'"
    )


def test_a_folder_in_place_of_a_file_is_refused(tmp_path):
    (tmp_path / "news").mkdir()
    (tmp_path / "news" / "a.txt").write_text("a")
    assert error_of(find, tmp_path / "news") == (
        f"data.sources.news.path: '{tmp_path / 'news'}' is a folder; a file is needed; name one of 'a.txt'"
    ).replace(f"{tmp_path}/", "")


def test_an_empty_folder_in_place_of_a_file_is_refused(tmp_path):
    (tmp_path / "news").mkdir()
    assert error_of(find, tmp_path / "news") == (
        "data.sources.news.path: 'news' is an empty folder; a file is needed; name another"
    )
    assert error_of(find, tmp_path / "news" / "a") == (
        "data.sources.news.path: 'a' does not exist; its folder is empty"
    )


def test_a_device_in_place_of_a_file_is_refused():
    with pytest.raises(DataError) as caught:
        find_file("/dev/null", ".", WHERE)
    assert str(caught.value) == (
        "data.sources.news.path: '/dev/null' is a device; a file is needed; write what it gives to one"
    )


def test_a_file_in_place_of_the_folder_is_named_as_one(tmp_path):
    (tmp_path / "text.txt").write_text("a")
    with pytest.raises(DataError) as caught:
        find_file("news.txt", str(tmp_path / "text.txt"), WHERE)
    assert f"'{tmp_path}/text.txt' is a file, no folder; write an absolute path" in str(caught.value)


@pytest.mark.parametrize("call", ["is_file", "iterdir", "open"])
def test_what_may_not_be_read_is_refused(tmp_path, monkeypatch, call):
    """A folder without permission fails where the file is looked for or names are listed."""

    def refuse(path, *_):
        raise PermissionError(13, "Permission denied", str(path))

    path = tmp_path / "a.txt"
    if call == "open":
        path.write_text("a")
    monkeypatch.setattr(type(path), call, refuse)
    message = error_of(find, path)
    if call == "open":
        assert message == "data.sources.news (a.txt): no permission to read it; allow it with chmod a+r"
    else:
        inside = {"is_file": "a.txt", "iterdir": str(tmp_path)}[call]
        assert message == (
            f"data.sources.news.path: 'a.txt' given, no permission to look into '{inside}'; "
            "a file that can be read is needed; allow it with chmod a+rx on its folders"
        )


@pytest.mark.parametrize("zip", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
            "the file is a Git LFS pointer; data is needed; fetch the file itself with git lfs pull",
        ),
        (
            b"\n<!DOCTYPE html>\n<html>",
            "the file is an HTML page; data is needed; download the file itself again",
        ),
        (
            b"\xef\xbb\xbf<html lang='en'>",
            "the file is an HTML page; data is needed; download the file itself again",
        ),
        (
            b"PK\x03\x04\x14\x00\x06\x00",
            "the file is a ZIP archive or a spreadsheet; data is needed; unpack it, or save the sheet as CSV or TSV",
        ),
        (
            b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\x00",
            "the file is a spreadsheet; data is needed; save it as CSV or TSV",
        ),
    ],
    ids=["pointer", "page", "page without type", "xlsx", "xls"],
)
def test_what_came_in_place_of_the_data_is_named(tmp_path, content, expected, zip):
    path = tmp_path / "a.json"
    path.write_bytes(zip(content))
    assert error_of(find, path) == f"data.sources.news (a.json): {expected}"


def test_an_absolute_path_needs_no_folder(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    assert find_file(str(tmp_path / "a.txt"), "elsewhere", WHERE) == tmp_path / "a.txt"


EMPTY = "data.sources.news (a.json): the file is empty; one record or more is needed; write the file again"


@pytest.mark.parametrize(
    "content",
    [b"", b"\n \r\n", b"\xef\xbb\xbf", b"\n" * 9999, gzip.compress(b""), parquet([{"a": 1}][:0])],
    ids=len,
)
def test_an_empty_file_is_refused(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    assert error_of(read_rows, path) == EMPTY
    if not content:
        assert error_of(find, path) == EMPTY


def test_an_empty_json_file_is_refused(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b" \n")
    assert error_of(read_json, path) == EMPTY


@pytest.mark.parametrize("zip", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize(
    ("content", "line", "offset"),
    [
        (b"\xff", 1, 0),
        ("é\n".encode() * 2 + b"ab\xffc\n", 3, 8),
        (b"\xef\xbb\xbfa\xff", 1, 4),
        (b"a\nb\xc3", 2, 3),
    ],
    ids=["first byte", "third line", "after a byte order mark", "cut in a character"],
)
def test_bytes_that_are_not_utf8_are_named_by_line_and_offset(tmp_path, content, line, offset, zip):
    path = tmp_path / "a.txt"
    path.write_bytes(zip(content))
    expected = (
        f"data.sources.news (a.txt:{line}): byte 0x{content[offset]:02x} at offset {offset} is not UTF-8; "
        f"only UTF-8 is read; convert the file, for example with iconv"
    )
    assert error_of(read_lines, path) == expected
    assert error_of(read_text, path) == expected


def test_a_truncated_gzip_is_refused(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(gzip.compress(jsonl(ROWS * 999))[:-20])
    assert error_of(read_rows, path) == (
        "data.sources.news (a.jsonl): damaged gzip, Compressed file ended before the end-of-stream marker was reached; "
        "a whole file is needed; copy it again"
    )


def test_a_damaged_gzip_is_refused(tmp_path):
    content = bytearray(gzip.compress(jsonl(ROWS * 999)))
    content[-8] ^= 0xFF  # the checksum
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    assert "a.jsonl): damaged gzip, CRC check failed" in error_of(read_rows, path)


def test_a_truncated_parquet_is_refused(tmp_path):
    path = tmp_path / "a.parquet"
    path.write_bytes(parquet(ROWS)[:-10])
    message = error_of(read_rows, path)
    assert message.startswith("data.sources.news (a.parquet): damaged Parquet, ")
    assert message.endswith("; write the file again")


# ── errors of JSON ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            b'{"text": "a"}\n{"text": "b\n',
            "data.sources.news (a.jsonl:2): broken JSON at column 10, Unterminated string starting at; "
            "one JSON object per line is needed; mend or remove the line",
        ),
        (
            b'{"text": "a"}\n{"text": "b"} {"text": "c"}\n',
            "data.sources.news (a.jsonl:2): broken JSON at column 15, Extra data; "
            "one JSON object per line is needed; mend or remove the line",
        ),
        (
            b'[{"text": "a"},\n {"text": "b"\n',
            "data.sources.news (a.jsonl:3): broken JSON at column 1, Expecting ',' delimiter; "
            "one whole JSON value is needed; mend that line or write the file again",
        ),
        (
            b'{"text": "a"}\n["b"]\n',
            "data.sources.news (a.jsonl:2): a list given; a JSON object is needed; write the record as an object",
        ),
        (
            b'[{"text": "a"}, null]',
            "data.sources.news (a.jsonl, record 2): null given; a JSON object is needed; write the record as an object",
        ),
        (
            b'{"text": ' + b"9" * 5000 + b"}\n",
            "data.sources.news (a.jsonl:1): JSON that cannot be read, Exceeds the limit (4300 digits) for integer string "
            "conversion: value has 5000 digits; use sys.set_int_max_str_digits() to increase the limit; "
            "mend or remove the line",
        ),
    ],
    ids=["truncated line", "two in a line", "truncated array", "a list", "null", "huge number"],
)
def test_broken_json_is_named_by_line(tmp_path, content, expected):
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    assert error_of(read_rows, path) == expected


def test_json_nested_too_deep_is_an_error_of_the_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n")
    assert error_of(read_rows, path).startswith("data.sources.news (a.jsonl:2): JSON that cannot be read, ")


# ── SQuAD ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_squad_gives_each_question_its_context(tmp_path):
    path = tmp_path / "a.json"
    paragraphs = [
        {"context": "A.", "qas": [{"id": "1"}, {"id": "2"}]},
        {"context": "B.", "qas": [{"id": "3"}]},
    ]
    path.write_text(json.dumps({"data": [{"paragraphs": paragraphs[:1]}, {"paragraphs": paragraphs[1:]}]}))
    rows = list(read_squad(path, WHERE))
    assert [row.fields for row in rows] == [
        {"id": "1", "context": "A."},
        {"id": "2", "context": "A."},
        {"id": "3", "context": "B."},
    ]
    assert [row.index for row in rows] == [0, 1, 2]
    assert rows[2].place == f"data.sources.news ({path}, data[1].paragraphs[0].qas[0])"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            {"version": 1, "rows": []},
            "data.sources.news (a.json): no 'data' among 'version', 'rows'; data[].paragraphs[].qas[] is needed, "
            "as in SQuAD; convert the file",
        ),
        (
            [{"question": "?"}],
            "data.sources.news (a.json): a list given; data[].paragraphs[].qas[] is needed, as in SQuAD; "
            "convert the file",
        ),
        (
            {"data": [{"paragraphs": [{"context": "A.", "qas": None}]}]},
            "data.sources.news (a.json, data[0].paragraphs[0]): 'qas' is null; "
            "data[].paragraphs[].qas[] is needed, as in SQuAD; convert the file",
        ),
        (
            {"data": [{"paragraphs": [{"context": "A.", "qas": [3]}]}]},
            "data.sources.news (a.json, data[0].paragraphs[0].qas[0]): the number 3 given; an object is needed; mend it",
        ),
    ],
    ids=["another object", "a list", "no questions", "a number"],
)
def test_json_of_another_form_than_squad_is_refused(tmp_path, content, expected):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    assert error_of(read_squad, path) == expected


# ── fingerprint ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_hash_of_files_goes_by_their_content_and_order_and_not_by_gzip(tmp_path):
    a, b, zipped = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    a.write_bytes(b"one")
    b.write_bytes(b"two")
    zipped.write_bytes(gzip.compress(b"one"))
    assert sha256_of([a, b], WHERE) == sha256_of([zipped, b], WHERE)
    assert len({sha256_of(files, WHERE) for files in ([a, b], [b, a], [a], [a, a])}) == 4
