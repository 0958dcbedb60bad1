"""Tokens per word, character and byte, and tokens that are only bytes, against what is counted by hand."""

import re

import pytest

from jaxlingua.tokens import fertility
from jaxlingua.tokens.fertility import byte_pieces, describe_fertility
from jaxlingua.tokens.interface import Tokenizer
from jaxlingua.words import segment
from tests.tiny import TINY_LANGUAGES, tiny_parallel, tiny_tokenizer
from tests.tokens.test_describe import llama_like  # noqa: F401 — a fixture

# GPT-2's letters for bytes: what a piece of a byte-level BPE is called when it is "a", 0xC4 or a space.
_PRINTED = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_BYTES = {chr(byte): byte for byte in _PRINTED} | {
    chr(0x100 + place): byte for place, byte in enumerate(sorted(set(range(256)) - set(_PRINTED)))
}


def is_whole(name: str) -> bool:
    """Whether the bytes of a byte-level piece are whole characters, by Python's decoder."""
    try:
        bytes(_BYTES[letter] for letter in name).decode()
    except UnicodeDecodeError:
        return False
    return True


def test_words_characters_and_bytes_are_those_of_a_plain_count():
    tokenizer = tiny_tokenizer()
    texts = {language: list(tiny_parallel()[language][:50]) for language in TINY_LANGUAGES}
    rows = describe_fertility(texts, tokenizer)
    assert [row["language"] for row in rows] == sorted(TINY_LANGUAGES)
    for row in rows:
        lines = texts[row["language"]]
        tokens = sum(len(tokenizer.encode_batch([line])[0].ids) for line in lines)
        characters, size = len("".join(lines)), len("".join(lines).encode())
        words = sum(len(segment(line).words) for line in lines)
        if row["language"] != "tha_Thai":  # which writes no spaces
            assert words == sum(len(line.split()) for line in lines)
        assert (row["texts"], row["words"], row["tokens"]) == (50, words, tokens)
        assert row["tokens per word"] == pytest.approx(tokens / words)
        assert row["tokens per character"] == pytest.approx(tokens / characters)
        assert row["tokens per byte"] == pytest.approx(tokens / size)
        assert row["unknown"] == 0


def test_bytes_of_characters_are_counted_in_a_byte_level_bpe():
    """𝄞 and я were never seen: four bytes and two, each a token; what was seen is whole."""
    tokenizer = tiny_tokenizer()
    rows = describe_fertility({"eng_Latn": ["dog𝄞", "я"], "ell_Grek": ["dog"]}, tokenizer)
    assert rows[0]["byte fallback"] == 0
    dog = len(tokenizer.encode_batch(["dog"])[0].ids)
    assert rows[1]["tokens"] == dog + 6
    assert rows[1]["byte fallback"] == pytest.approx(6 / (dog + 6))


def test_every_piece_of_the_vocabulary_is_whole_or_not_as_its_bytes_are():
    tokenizer = tiny_tokenizer()
    is_byte_piece = byte_pieces(tokenizer)
    pieces = [number for number in range(tokenizer.vocab_size) if number not in tokenizer.control_ids]
    expected = [not is_whole(tokenizer.name_piece(number)) for number in pieces]
    assert [is_byte_piece(number) for number in pieces] == expected
    assert 100 < sum(expected) < len(pieces) - 100


def test_byte_pieces_of_llama_count_also_where_they_are_ascii(llama_like: Tokenizer):  # noqa: F811
    """A line break and a digit that LLaMA has no piece for are bytes too, though each is a whole character."""
    text = "dog\n7𝄞"
    ids = llama_like.encode_batch([text], continuation=True)[0].ids
    names = [llama_like.name_piece(int(number)) for number in ids]
    by_hand = sum(re.fullmatch("<0x..>", name) is not None for name in names)
    assert by_hand == 6
    (row,) = describe_fertility({"eng_Latn": [text]}, llama_like)
    assert row["byte fallback"] == pytest.approx(by_hand / len(names))


def test_of_many_texts_so_many_are_taken_at_equal_distances(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fertility, "FERTILITY_TEXTS", 7)
    lines = tiny_parallel()["tha_Thai"][:40]
    (row,) = describe_fertility({"tha_Thai": lines}, tiny_tokenizer())
    assert (row["texts"], row["characters"]) == (7, sum(map(len, lines[::6])))


def test_of_a_book_only_the_beginning_is_read():
    (row,) = describe_fertility({"eng_Latn": ["the dog " * 100_000, "cat"]}, tiny_tokenizer())
    assert row["characters"] == fertility.FERTILITY_CHARACTERS + 3


def test_text_without_words_divides_by_nothing():
    (row,) = describe_fertility({"eng_Latn": []}, tiny_tokenizer())
    assert {row[key] for key in row if key != "language"} == {0}
