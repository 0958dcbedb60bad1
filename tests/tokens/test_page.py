"""The page, the console and the summary: every fact is there, and text is nothing but text."""

import copy
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
from rich.console import Console

from jaxlingua.config import StageConfig
from jaxlingua.data.example import Example
from jaxlingua.data.leaks import Leak, Leaks
from jaxlingua.data.records import Instruction, Text
from jaxlingua.languages import LANGUAGES
from jaxlingua.tokens import describe
from jaxlingua.tokens.describe import ShownDocument
from jaxlingua.tokens.facts import describe_data
from jaxlingua.tokens.page import figure, render_page
from jaxlingua.tokens.show import show
from jaxlingua.tokens.stages import Stage
from jaxlingua.tokens.summary import Summary, summarize
from tests.tiny import TINY_LANGUAGES, tiny_tokenizer, tiny_translations
from tests.tokens.test_describe import stage_of
from tests.tokens.test_repeats import Given

EVIL = "</script><script>alert('x')</script><b onclick=\"x\">&amp; <img src=//evil.example/x>"


class Page(HTMLParser):
    """The tags of a page with their attributes, and its text as a reader sees it."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.is_style = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))
        self.is_style = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self.is_style = False

    def handle_data(self, data: str) -> None:
        self.text += "" if self.is_style else data


def facts_of(stages: list[Stage], **changes: Any) -> dict[str, Any]:
    source = Given([Text(i, "eng_Latn", f"line {i // 2} that is long enough to count") for i in range(6)])
    leaks = Leaks("drop", 4000, (Leak("given", 3, "a text that leaks", "flores", 8),))
    facts = describe_data({"given": source}, leaks, stages, tiny_tokenizer(), "learned")
    return {**facts, **changes}


@pytest.fixture(scope="module")
def stage() -> Stage:
    """200 Thai translations in rows of 64, some too long."""
    return stage_of(tiny_translations(source="tiny"), tiny_tokenizer(), row_length_tokens=40)


def numbers_of(value: Any, key: str = "") -> list[tuple[str, str]]:
    """(path, text) of every number and every text of facts, as the page writes them."""
    if isinstance(value, dict):
        skip = ("fingerprint", "count", "begins with BOS")
        return [(f"{key}.{k}", t) for k, v in value.items() if k not in skip for _, t in numbers_of(v, k)]
    if isinstance(value, ShownDocument):
        tokens = sum(piece.tokens for piece in value.pieces)
        return [
            ("tokens", f"{tokens:,} tokens"),
            *((key, piece.text) for piece in value.pieces if piece.text.strip()),
        ]
    if isinstance(value, list):
        if key == "histogram":
            return []
        return [found for v in value for found in numbers_of(v, key)]
    if isinstance(value, (int, float)):
        return [(key, figure(value, "share" if key == "use" else key))]
    return [(key, value)]


def test_every_fact_is_on_the_page(stage: Stage):
    facts = facts_of([stage])
    facts["stages"][0]["replay"] = [
        {"entry": "tiny", "stratum": "arithmetic", "language": "jav_Latn", "records": 4321}
    ]
    facts["sources"][0] |= {
        "skipped": {"length ratio above 3": 77},
        "skipped examples": {"length ratio above 3": ["xyz"]},
        "faults": [
            {"language": "sun_Latn", "fault": "the same as English", "texts": 345, "looked at": 500}
            | {"share of texts": 0.69, "example": "It is raining."}
        ],
    }
    page = Page(render_page(facts, "small"))
    text = " ".join(page.text.split())
    titles = " ".join(attrs.get("title") or "" for _, attrs in page.tags)
    labels = " ".join(attrs.get("aria-label") or "" for _, attrs in page.tags)
    lost = [
        (path, told)
        for path, told in numbers_of(facts)
        if " ".join(told.split()) not in text
        and told not in titles
        and "_" not in told
        and ".rows" not in path
    ]
    assert lost == []
    for row in facts["stages"][0]["lengths"]:
        assert " ".join(f"{count:,}" for count in row["histogram"]) in labels
    for row in facts["stages"][0]["rows"]:
        for segment in row["segments"]:
            assert f"{segment['positions']:,} positions, {segment['learned']:,} learned" in titles


def test_what_is_on_the_page_is_on_the_console(stage: Stage):
    facts = facts_of([stage])
    console = Console(file=io.StringIO(), width=1000, highlight=False)
    show(console, facts)
    output = console.file.getvalue()
    cells = set(re.split(r"\s{2,}|\n|, ", output))
    told = facts["stages"][0]
    for row in [*told["mixture"], *told["lengths"], *told["left out"], *facts["fertility"]]:
        for key, value in row.items():
            if key not in ("records", "documents seen", "histogram", "left out", "language", "entry"):
                assert figure(value, key) in cells or str(value) in cells, (key, value)
    for line in [*facts["summary"], *facts["warnings"], facts["leaks"]["told"]]:
        assert line in output


def test_markup_in_the_data_is_text():
    text = f"{EVIL}\n{EVIL}"
    example = Example(EVIL, 0, "eng_Latn", text, ((len(EVIL) + 1, len(text)),))
    config = StageConfig.model_validate({"name": "s", "mixture": "x", "epochs": 1})
    stage = replace(stage_of([replace(example, source="x")], tiny_tokenizer(), 1024), config=config)
    facts = facts_of([stage])
    source = facts["sources"][0]
    fault = {"language": EVIL, "fault": EVIL, "texts": 1, "looked at": 1, "share of texts": 1.0}
    source |= {
        "faults": [fault | {"example": EVIL}],
        "skipped": {EVIL: 3},
        "skipped examples": {EVIL: [EVIL]},
        "repeated examples": [EVIL],
        "name": EVIL,
    }
    facts["leaks"] = {"told": EVIL, "count": 1, "examples": [{"source": EVIL, "index": 1, "text": EVIL}]}
    facts["warnings"] = [EVIL]
    facts["stages"][0]["draws"] = [
        {"entry": "x", "slots": 1, "draws": 1, "frequencies": [],
         "samples": [{"record": 0, "draws": [{"objective": "o", "language": EVIL, "parts": [(True, EVIL)]}]}]}
    ]  # fmt: skip
    html = render_page(facts, EVIL)
    page = Page(html)
    assert not {tag for tag, _ in page.tags} & {"script", "img", "link", "iframe", "object"}
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    assert page.text.count("alert('x')") >= 9
    assert "".join(p.text for p in facts["stages"][0]["documents"][0].pieces) == text
    assert EVIL in page.text.replace("⏎", "")


def test_nothing_is_fetched_from_anywhere(stage: Stage):
    page = Page(render_page(facts_of([stage]), "small"))
    links = [value for _, attrs in page.tags for key, value in attrs.items() if key in ("src", "href")]
    assert [link for link in links if not link.startswith("#")] == []
    style = render_page(facts_of([stage]), "small").split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    assert "http" not in style


def test_each_line_has_its_own_direction_and_the_text_its_language():
    stage = stage_of(tiny_translations("eng_Latn-heb_Hebr")[:10], tiny_tokenizer())
    html = render_page(facts_of([stage]), "small")
    tags = Page(html).tags
    assert {attrs["lang"] for tag, attrs in tags if attrs.get("class") == "text tokens"} == {"he"}
    assert "unicode-bidi: plaintext" in html
    assert html.count("<bdi>") >= 1


def test_a_hundred_languages_and_long_tables_stay_whole():
    some = zip(tiny_translations()[:100], LANGUAGES, strict=False)
    examples = [replace(example, language=language) for example, language in some]
    stage = stage_of(examples, tiny_tokenizer())
    facts = facts_of([stage])
    page = Page(render_page(facts, "many"))
    for example in examples:
        assert page.text.count(example.language) >= 3
    (told,) = facts["stages"]
    assert len(told["documents"]) == 24
    assert "76 more are not shown" in page.text
    assert len(summarize(facts).warnings) <= 14
    assert max(map(len, summarize(facts).warnings)) < 400


def test_a_stage_without_any_document_shown_is_told():
    """All of an entry may have been left out; a page of nothing is still a page."""
    stage = stage_of(tiny_translations()[:4], tiny_tokenizer())
    facts = facts_of([stage])
    empty = copy.deepcopy(facts)
    (told,) = empty["stages"]
    told |= {"mixture": [], "lengths": [], "rows": [], "documents": [], "left out": []}
    empty |= {"fertility": [], "sources": [], "shared": []}
    told, warnings = summarize(empty)
    assert "Stage s" in Page(render_page(empty | {"summary": told, "warnings": warnings}, "empty")).text
    show(Console(file=io.StringIO()), empty | {"summary": told, "warnings": warnings})


def test_huge_texts_are_cut_and_so_is_the_page():
    tokenizer = tiny_tokenizer()
    text = "0123456789" * 20_000
    stage = stage_of([Example("x", 0, "eng_Latn", text, ((0, len(text)),))], tokenizer, 65_536)
    source = Given([Instruction(i, "eng_Latn", text, "", text) for i in range(2)])
    facts = describe_data({"given": source}, Leaks("refuse", 2, ()), [stage], tokenizer, "learned")
    html = render_page(facts, "huge")
    assert len(html) < 60_000
    assert f"⟨{65_536 + 1 - 1 - 2 * describe.SHOWN_PIECES:,} tokens⟩" in html
    console = Console(file=io.StringIO(), width=120)
    show(console, facts)
    assert len(console.file.getvalue()) < 20_000


# ── the summary ───────────────────────────────────────────────────────────────────────────────────────────


def clean(stage: Stage) -> dict[str, Any]:
    """Facts in which nothing stands out."""
    facts = facts_of([stage])
    facts["leaks"] = {"told": "leaks: none", "count": 0, "examples": []}
    facts["sources"][0] |= {"repeated": 0, "train": 100}
    facts["stages"][0] |= {"use": 0.95, "left out": []}
    facts["stages"][0]["mixture"][0] |= {"cut": 0, "passes": 2.0}
    facts["fertility"] = [row | {"byte fallback": 0.01} for row in facts["fertility"]]
    return facts


def one_more(facts: dict[str, Any], place: list[Any], **changes: Any) -> Summary:
    changed = copy.deepcopy(facts)
    found: Any = changed
    for step in place:
        found = found[step]
    found.update(changes)
    return summarize(changed)


ROW = ["stages", 0, "mixture", 0]
WARNINGS = [
    (["leaks"], {"count": 2, "told": "leaks: 2 of 9"}, "leaks: 2 of 9"),
    (["sources", 0], {"skipped": {"identical sides": 50}}, "records left out while reading: 33.3 % of given"),
    (["sources", 0], {"repeated": 12}, "records that repeat an earlier one: 12.0 % of given"),
    (ROW, {"cut": 24}, "documents cut at the end of the row: 12.0 % of tiny in Thai"),
    (ROW, {"passes": 40.2}, "the same documents shown often: tiny in Thai 40 times"),
    (ROW, {"documents seen": 0, "tokens seen": 0}, "never shown: tiny in Thai"),
    (ROW, {"target tokens seen": 10}, "little is learned: 0.3 % of the tokens of tiny in Thai"),
    (["stages", 0], {"use": 0.62}, "positions of rows left empty: 38.0 %"),
    (["fertility", 0], {"byte fallback": 0.35}, "tokens that are no whole character: 35.0 % in Thai"),
    (["fertility", 0], {"unknown": 0.02}, "tokens of characters that the tokenizer cannot write: 2.0 % in Thai"),
    (
        ["stages", 0],
        {"left out": [{"entry": "tiny", "language": "tha_Thai", "reason": "too long", "examples": 9, "of": 90}]},
        "examples left out: 10.0 % of tiny in Thai (too long)",
    ),
]  # fmt: skip


def test_nothing_stands_out_where_nothing_does(stage: Stage):
    told, warnings = summarize(clean(stage))
    assert warnings == []
    assert told[0] == "100 training records of 1 source in 1 language, 0 more held out"
    assert len(told) == 3


@pytest.mark.parametrize(("place", "changes", "line"), WARNINGS, ids=[line for *_, line in WARNINGS])
def test_what_stands_out_has_one_line(stage: Stage, place: list, changes: dict, line: str):
    facts = clean(stage)
    facts["stages"][0]["mixture"][0]["tokens seen"] = 3000
    assert one_more(facts, place, **changes).warnings == [line]


def test_sentences_that_are_drawn_anew_may_be_gone_through_more_often(stage: Stage):
    facts = clean(stage)
    facts["stages"][0]["draws"] = [{"entry": "tiny"}]
    assert one_more(facts, ROW, passes=199.0).warnings == []
    line = "sentences gone through often, drawn anew each time: tiny 240 times"
    assert one_more(facts, ROW, passes=240.0).warnings == [line]


def test_replay_that_is_shown_often_has_words_of_its_own(stage: Stage):
    facts = clean(stage)
    row = {"entry": "tiny", "stratum": "none", "language": "eng_Latn", "records": 5000}
    facts["stages"][0]["replay"] = [row, row | {"language": "tha_Thai"}]
    assert one_more(facts, ROW, passes=9.0).warnings == []
    assert one_more(facts, ROW, passes=26.3).warnings == ["replay: 10,000 records shown 26 times (tiny)"]


def test_filters_that_drop_one_in_twenty_are_told(stage: Stage):
    facts = clean(stage)
    place, skipped = ["sources", 0], {"identical sides": 4}
    assert one_more(facts, place, skipped=skipped).warnings == []
    skipped = {"identical sides": 8, "duplicate": 6}
    line = "records left out while reading: 12.3 % of given"
    assert one_more(facts, place, skipped=skipped).warnings == [line]


def test_languages_are_measured_against_english(stage: Stage):
    facts = clean(stage)
    (thai,) = facts["fertility"]
    rates = {"eng_Latn": 0.25, "jav_Latn": 0.775, "tha_Thai": 0.4}
    facts["fertility"] = [thai | {"language": code, "tokens per byte": rate} for code, rate in rates.items()]
    assert summarize(facts).warnings == ["tokens per byte against English: Javanese 3.1 times as many"]


def test_a_language_with_few_of_the_learned_tokens_is_named(stage: Stage):
    facts = clean(stage)
    (row,) = facts["stages"][0]["mixture"]
    shares = dict(zip(TINY_LANGUAGES, (0.6, 0.38, 0.02, 0.0), strict=True))
    facts["stages"][0]["mixture"] = [
        row | {"language": language, "share of target tokens": share} for language, share in shares.items()
    ]
    assert summarize(facts).warnings == ["few of the learned tokens: Hebrew 2.0 %"]


def test_entries_that_share_text_are_named_with_the_larger_share(stage: Stage):
    facts = clean(stage)
    shares = {
        "entry": "web",
        "other entry": "news",
        "texts": 9,
        "share of entry": 0.01,
        "share of other": 0.5,
    }
    facts["shared"] = [shares | {"example": "x"}]
    assert summarize(facts).warnings == ["text learned in several entries: 50.0 % of news is in web"]
