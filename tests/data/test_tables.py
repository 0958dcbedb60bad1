"""Tables of parallel text: columns by header or number, quotes in CSV, and every error word by word."""

import csv
import gzip
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxlingua.data.readers import Row
from jaxlingua.data.tables import read_csv, read_tsv
from jaxlingua.errors import ConfigError, DataError

WHERE = "data.sources.news"


def error_of(read, path, *arguments) -> str:
    """The message of the DataError, with the folder's name taken out."""
    with pytest.raises(DataError) as caught:
        list(read(path, WHERE, *arguments))
    return str(caught.value).replace(f"{path.parent}/", "")


# ── tab-separated ────────────────────────────────────────────────────────────────────────────────────────────────

EN_DE = ["eng_Latn", "deu_Latn"]


@pytest.mark.parametrize(
    ("content", "columns", "expected"),
    [
        ('a "q\tb\n', {}, [(0, 'a "q', "b")]),
        ("a\tb\n\nc\td", {}, [(0, "a", "b"), (1, "", ""), (2, "c", "d")]),
        ("a\tb\tc\n", {"eng_Latn": "3", "deu_Latn": "1"}, [(0, "c", "a")]),
        ("id\tde\ten\n1\tb\ta\n", {"eng_Latn": "en", "deu_Latn": "de"}, [(1, "a", "b")]),
        ("id\tdeu_Latn\teng_Latn\n1\tb\ta\n", {}, [(1, "a", "b")]),
        ("deu_Latn\tenglish\nb\ta\n", {"eng_Latn": "english"}, [(1, "a", "b")]),
    ],
    ids=["in order", "blank line", "numbers", "header", "codes as header", "one name given"],
)
def test_columns_are_found_by_number_or_header(tmp_path, content, columns, expected):
    """Quotes are text: a csv reader would swallow the rest of the file after one."""
    path = tmp_path / "a.tsv"
    path.write_text(content)
    rows = read_tsv(path, WHERE, EN_DE, columns)
    assert [(row.index, row.fields["eng_Latn"], row.fields["deu_Latn"]) for row in rows] == expected


@pytest.mark.parametrize(
    ("content", "columns", "expected"),
    [
        (
            "en\tfr\na\tb\n",
            {"eng_Latn": "en", "deu_Latn": "de"},
            "data.sources.news (a.tsv:1): no column 'de'; the header has 'en', 'fr'; "
            "name the columns in data.sources.news.columns",
        ),
        (
            "a\tb\nc\n",
            {},
            "data.sources.news (a.tsv:2): 1 columns given; 2 are needed; "
            "part columns by one tab and have no tab in a text",
        ),
        (
            "a\tb\tc\n\nd\te\n",
            {"eng_Latn": "3", "deu_Latn": "1"},
            "data.sources.news (a.tsv:3): 2 columns given; 3 or more are needed; "
            "part columns by one tab and have no tab in a text",
        ),
        (
            "a\tb\nc\td\te\n",
            {},
            "data.sources.news (a.tsv:2): 3 columns given; 2 are needed; "
            "part columns by one tab and have no tab in a text",
        ),
        (
            "7\tone\t" + "e" * 41 + "\n",
            {},
            "data.sources.news (a.tsv:1): 3 columns given, '7', 'one', '"
            + "e" * 40
            + "…', for 2 languages; one of "
            "each is needed; say which by number, such as columns: {eng_Latn: 1, deu_Latn: 2}, or by name if line 1 "
            "is a header",
        ),
        (
            "en\tde\na\tb\tc\n",
            {"eng_Latn": "en", "deu_Latn": "de"},
            "data.sources.news (a.tsv:2): 3 columns given; 2 are needed; "
            "part columns by one tab and have no tab in a text",
        ),
    ],
    ids=[
        "header lacks a column",
        "too few",
        "too few for a number",
        "too many",
        "more than languages",
        "a tab in a text",
    ],
)
def test_a_line_with_other_columns_is_refused(tmp_path, content, columns, expected):
    path = tmp_path / "a.tsv"
    path.write_text(content)
    assert error_of(read_tsv, path, EN_DE, columns) == expected


@pytest.mark.parametrize("columns", [{}, {"eng_Latn": "1", "deu_Latn": "2"}], ids=["in order", "numbers"])
@pytest.mark.parametrize(
    "header", ["English\tGerman", "en\tde", "eng\tDEU", "eng_latn\tdeu_Latn", "Source \ttarget", "src\ttgt"]
)
def test_a_header_is_not_learned_as_a_sentence(tmp_path, header, columns):
    path = tmp_path / "a.tsv"
    path.write_text(f"{header}\na\tb\n")
    first, second = (name.strip() for name in header.split("\t"))
    assert error_of(read_tsv, path, EN_DE, columns) == (
        f"data.sources.news (a.tsv:1): '{first}', '{second}' given, which reads like a header; line 1 is a sentence "
        "unless columns are named; write columns: {eng_Latn: NAME, deu_Latn: NAME}, or remove the line"
    )


def test_a_sentence_that_is_the_name_of_a_language_is_no_header(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("German\tDeutsch\n")
    assert [row.fields for row in read_tsv(path, WHERE, EN_DE, {})] == [
        {"eng_Latn": "German", "deu_Latn": "Deutsch"}
    ]


@pytest.mark.parametrize("number", ["0", "-1"])
def test_columns_are_counted_from_1(tmp_path, number):
    """Column 0 was the last one."""
    path = tmp_path / "a.tsv"
    path.write_text("a\tb\n")
    with pytest.raises(ConfigError) as caught:
        list(read_tsv(path, WHERE, EN_DE, {"eng_Latn": "2", "deu_Latn": number}))
    assert str(caught.value) == (
        f"data.sources.news.columns: eng_Latn: 2, deu_Latn: {number} given; columns are counted from 1; "
        "mend data.sources.news.columns"
    )


def test_a_csv_in_place_of_a_tsv_is_named(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("English,Wolof\nYes,Waaw\n")
    hint = "the line has no tab but commas; part columns by one tab, or set data.sources.news.format=csv"
    assert error_of(read_tsv, path, EN_DE, {"eng_Latn": "English", "deu_Latn": "Wolof"}) == (
        f"data.sources.news (a.tsv:1): no column 'English'; the header has 'English,Wolof'; {hint}"
    )
    assert error_of(read_tsv, path, EN_DE, {"eng_Latn": "1", "deu_Latn": "2"}) == (
        f"data.sources.news (a.tsv:1): 1 columns given; 2 or more are needed; {hint}"
    )


# ── CSV ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("zip", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize(
    ("content", "columns", "expected"),
    [
        ("a,b\nc,d", {}, [(0, "a", "b"), (1, "c", "d")]),
        ('"a, ""q""",b\n', {}, [(0, 'a, "q"', "b")]),
        ('a "q",b\n', {}, [(0, 'a "q"', "b")]),
        ("a\u2028\u0085,\tb \n", {}, [(0, "a\u2028\u0085", "\tb ")]),
        ("a,b\n\nc,d", {}, [(0, "a", "b"), (1, "", ""), (2, "c", "d")]),
        ("a,,b\n", {"eng_Latn": "3", "deu_Latn": "1"}, [(0, "b", "a")]),
        ('id,"de",en\n1,b,a\n', {"eng_Latn": "en", "deu_Latn": "de"}, [(1, "a", "b")]),
        ("deu_Latn,eng_Latn\nb,a\n", {}, [(1, "a", "b")]),
    ],
    ids=[
        "in order",
        "comma and quotes",
        "quotes inside",
        "other white space",
        "blank line",
        "numbers",
        "header",
        "codes as header",
    ],
)
def test_csv_has_its_columns_by_number_or_header(tmp_path, content, columns, expected, zip, end):
    path = tmp_path / "a.csv"
    path.write_bytes(zip(b"\xef\xbb\xbf" + content.replace("\n", end).encode()))
    rows = read_csv(path, WHERE, EN_DE, columns)
    assert [(row.index, row.fields["eng_Latn"], row.fields["deu_Latn"]) for row in rows] == expected


def test_a_line_break_in_quotes_belongs_to_the_text_and_lines_are_still_counted(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'en,de\r\n"a\nb\r\nc",d\r\ne,f\r\n')
    assert list(read_csv(path, WHERE, EN_DE, {"eng_Latn": "en", "deu_Latn": "de"})) == [
        Row(f"{WHERE} ({path}:2)", 1, {"eng_Latn": "a\nb\r\nc", "deu_Latn": "d"}),
        Row(f"{WHERE} ({path}:5)", 4, {"eng_Latn": "e", "deu_Latn": "f"}),
    ]


@given(st.lists(st.tuples(*[st.text(st.characters(exclude_categories=["Cs"]), min_size=1)] * 2), min_size=1))
def test_what_the_csv_module_writes_is_read_as_it_was(tmp_path_factory, pairs):
    written = io.StringIO(newline="")
    csv.writer(written, quoting=csv.QUOTE_ALL).writerows([("en", "de"), *pairs])
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    path.write_bytes(written.getvalue().encode())
    rows = read_csv(path, WHERE, EN_DE, {"eng_Latn": "en", "deu_Latn": "de"})
    assert [(row.fields["eng_Latn"], row.fields["deu_Latn"]) for row in rows] == pairs


@pytest.mark.parametrize(
    ("content", "columns", "expected"),
    [
        (
            "English,Wolof\na,b\n",
            {"eng_Latn": "English", "deu_Latn": "German"},
            "1): no column 'German'; the header has 'English', 'Wolof'; name the columns in "
            "data.sources.news.columns",
        ),
        (
            'a,"b\nb"\n\nc\n',
            {},
            "4): 1 columns given; 2 are needed; part columns by one comma and quote a text that holds one",
        ),
        (
            "en,de\na, and so on,b\n",
            {"eng_Latn": "en", "deu_Latn": "de"},
            "2): 3 columns given; 2 are needed; part columns by one comma and quote a text that holds one",
        ),
        (
            "a,b\n",
            {"eng_Latn": "3", "deu_Latn": "1"},
            "1): 2 columns given; 3 or more are needed; part columns by one comma and quote a text that holds one",
        ),
        (
            "en;de\na;b\n",
            {"eng_Latn": "en", "deu_Latn": "de"},
            "1): no column 'en'; the header has 'en;de'; the line has no comma but semicolons; "
            "part columns by commas",
        ),
        (
            "a\tb\n",
            {},
            "1): 1 columns given; 2 are needed; the line has no comma but tabs; "
            "set data.sources.news.format=tsv",
        ),
        (
            'a,b\n"c\nd"e,f\n',
            {},
            "2): broken CSV, ',' expected after '\"'; quotes in pairs, doubled inside of a text, are needed; "
            "mend the record that begins there",
        ),
        (
            'a,b\n"c,d\ne,f\n',
            {},
            "2): broken CSV, unexpected end of data; quotes in pairs, doubled inside of a text, are needed; "
            "mend the record that begins there",
        ),
        (
            "English,German\na,b\n",
            {},
            "1): 'English', 'German' given, which reads like a header; line 1 is a sentence unless columns are "
            "named; write columns: {eng_Latn: NAME, deu_Latn: NAME}, or remove the line",
        ),
    ],
    ids=[
        "header lacks a column",
        "short row",
        "long row",
        "too few for a number",
        "semicolons",
        "tabs",
        "quote in the middle",
        "quote that does not end",
        "header",
    ],
)
def test_a_csv_that_cannot_be_read_is_named_by_line(tmp_path, content, columns, expected):
    path = tmp_path / "a.csv"
    path.write_text(content)
    assert error_of(read_csv, path, EN_DE, columns) == f"data.sources.news (a.csv:{expected}"
