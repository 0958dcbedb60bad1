"""A tokenizer for the model that writes letters backwards: one letter for each id."""

from jaxlingua.tokens.tokenizer import Tokenizer
from tests.generate.reversing import BOS, EOS, FIRST, PAD, TURN, VOCAB


def _unused(*args: object) -> None:
    raise AssertionError("these tests encode nothing")


LETTERS = Tokenizer(
    vocab_size=VOCAB,
    bos_id=BOS,
    eos_id=EOS,
    pad_id=PAD,
    control_ids=frozenset({PAD, BOS, EOS, TURN}),
    fingerprint="letters",
    encode_pieces=_unused,
    decode_pieces=lambda ids: "".join(chr(ord("a") + id - FIRST) for id in ids),
    write_files=_unused,
)
