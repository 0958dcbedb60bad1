"""What is shown of an answer before its end: always the beginning of the whole, and not much less of it."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as RustTokenizer
from tokenizers import decoders, models

from jaxlingua.generate.stops import StopSearch
from jaxlingua.generate.unfinished import Unfinished
from jaxlingua.tokens import fast
from jaxlingua.tokens.interface import Encoding
from jaxlingua.tokens.tokenizer import Tokenizer
from tests.generate.test_stops import BYTES, RUNS
from tests.tiny import tiny_tokenizer

WORDS = ("▁", "a", "▁b", "é", "ย", "\n", "\n\n", ".")
STOPS = ("\n\n", "a b", "é", "aab", "ยา", ".")


def llama_like() -> Tokenizer:
    """A few pieces, and bytes for all else, decoded as LLaMA's tokenizer.json says."""
    vocabulary = {piece: id for id, piece in enumerate(["<unk>", "<s>", "</s>"])}
    vocabulary |= {f"<0x{byte:02X}>": 3 + byte for byte in range(256)}
    vocabulary |= {word: 259 + number for number, word in enumerate(WORDS)}
    rust = RustTokenizer(models.BPE(vocabulary, [], unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    rust.decoder = decoders.Sequence(steps)
    rust.add_special_tokens(["<unk>", "<s>", "</s>"])
    names = b'{"bos_token": "<s>", "eos_token": "</s>"}'
    return fast.from_files({"tokenizer.json": rust.to_str().encode(), "tokenizer_config.json": names}, "test")


def encoded(texts: list[str], continued: bool) -> list[Encoding]:
    """A byte is a token."""
    ids = [np.frombuffer(text.encode(), np.uint8).astype(np.int32) for text in texts]
    return [Encoding(one, np.zeros((len(one), 2), np.int32)) for one in ids]


LLAMA = llama_like()
LEARNED = tiny_tokenizer()
TOKENIZERS = {
    "llama": (
        LLAMA,
        [*range(3, 259), *range(259, 259 + len(WORDS))] + list(range(259, 259 + len(WORDS))) * 30,
    ),
    "learned": (LEARNED, list(range(3, LEARNED.vocab_size))),
    "bytes": (replace(BYTES, encode_pieces=encoded), list(range(256))),
    "runs": (replace(RUNS, encode_pieces=encoded), list(range(256))),
}
HARD = "né… aaab ยา\n\n x. \ufffd 中文 a b"


def shown_and_whole(tokenizer: Tokenizer, stops: tuple[str, ...], tokens: list[int]) -> tuple[list[str], str]:
    """What is shown after each token, and the text of the answer, as the engine makes them."""
    unfinished, search, shown = Unfinished(tokenizer, stops), StopSearch(tokenizer, stops), []
    for count in range(1, len(tokens) + 1):
        if found := search.find(tokens[:count], is_whole=count == len(tokens)):
            return shown, found[1]
        shown.append(unfinished.text(tokens[:count]))
    return shown, tokenizer.decode(tokens)


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(data=st.data())
def test_what_is_shown_is_never_taken_back(kind, data):
    """Whatever ids follow each other: half characters, bytes that are none, stop strings that break off."""
    tokenizer, ids = TOKENIZERS[kind]
    hard = tokenizer.encode_batch([HARD])[0].ids.tolist()
    begin = data.draw(st.integers(0, len(hard)))
    tokens = hard[begin:] + data.draw(st.lists(st.sampled_from(ids), min_size=1, max_size=12))
    stops = tuple(data.draw(st.sets(st.sampled_from(STOPS), max_size=3)))
    shown, whole = shown_and_whole(tokenizer, stops, tokens)
    for earlier, later in pairwise([*shown, whole]):
        assert later.startswith(earlier)


@pytest.mark.parametrize("kind", ["learned", "bytes"])
def test_little_is_held_back(kind):
    """Less than a character, and of a stop string its beginning alone."""
    tokenizer, _ = TOKENIZERS[kind]
    text = "one ยา two é a\n"
    tokens = tokenizer.encode_batch([text])[0].ids
    shown, _ = shown_and_whole(tokenizer, ("\n\n", "xyz"), tokens.tolist())
    for count, one in enumerate(shown[:-1], 1):
        assert tokenizer.decode(tokens[:count]).rstrip("\ufffd") == one
    assert text == shown[-1] + "\n", "which may be half of the stop string"


def test_a_run_of_bytes_is_shown_when_a_piece_ends_it():
    """One more byte could spoil it, as it would here."""
    run, half, piece = list("né".encode()), [0xC3], 259 + WORDS.index("▁b")
    tokens = [3 + byte for byte in run] + [piece] + [3 + byte for byte in run + half]
    assert LLAMA.decode(tokens) == "né b" + 4 * "\ufffd"
    assert shown_and_whole(LLAMA, (), tokens)[0] == ["", "", "", *["né b"] * 5]
