"""New pieces into the files of a tokenizer, behind all that is there."""

import json
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from jaxlingua.tokens.extend.base import CONTROL, NORMAL, USER_DEFINED, Base, read_merges, splits
from jaxlingua.tokens.extend.learning import Key


def merge(base: Base, characters: Sequence[str], joined: Sequence[Key]) -> dict[str, bytes]:
    """The files of the extended tokenizer; new pieces have the ids that follow the greatest one.

    All old pairs come before the new ones, and old pieces keep their ids. The other files of the folder stay
    as they are.

    Args:
        characters: new pieces that no two others make up.
        joined: what `learn` found.
    """
    pieces = [*characters, *(key if isinstance(key, str) else "".join(key) for key in joined)]
    ids = {piece: base.first_id + i for i, piece in enumerate(pieces)}
    files = dict(base.files)
    if base.rules is not None:
        old = list(read_merges(base.rules["model"]["merges"]))
        merges = [*old, *joined] if base.is_bytes else _with_splits(base, old, ids)
        files["tokenizer.json"] = _write_rules(base, ids, merges)
        if "vocab.json" in files:  # what slow tokenizers of transformers once read
            vocabulary = json.loads(files["vocab.json"])
            files["vocab.json"] = json.dumps(vocabulary | ids, ensure_ascii=False).encode()
        if "merges.txt" in files:
            added = merges[len(old) :] if base.is_bytes else merges
            begun = files["merges.txt"].rstrip(b"\n") if base.is_bytes else b"#version: 0.2"
            files["merges.txt"] = b"\n".join([begun, *(" ".join(pair).encode() for pair in added), b""])
    if base.proto is not None:
        files["tokenizer.model"] = _write_proto(base, pieces)
    return files


def _write_rules(base: Base, new: dict[str, int], merges: list[tuple[str, str]]) -> bytes:
    """tokenizer.json with added tokens among the model's own pieces.

    The tokenizers library gives an added token that is not among them the number that follows them, whatever
    the file says.
    """
    rules: dict[str, Any] = dict(base.rules)
    as_text = all(isinstance(pair, str) for pair in rules["model"]["merges"])
    ids = dict(sorted((base.ids | new).items(), key=lambda item: item[1]))
    rules["model"] = {
        **rules["model"],
        "vocab": ids,
        "merges": [" ".join(pair) for pair in merges] if as_text else [list(pair) for pair in merges],
    }
    return (json.dumps(rules, ensure_ascii=False, indent=2) + "\n").encode()


def _with_splits(base: Base, merges: list[tuple[str, str]], new: dict[str, int]) -> list[tuple[str, str]]:
    """The merges of tokenizer.json with those that new pieces make possible, for old pieces too.

    A new pair of an old piece stands behind the last old pair of that piece, as it has the piece's score in
    SentencePiece; where the file had none, behind those of all pieces that come before.
    """
    ids = base.ids | new
    single = {piece for piece in ids if len(piece) == 1}
    symbols = {*base.places, *single, *new}
    old = [piece for piece in base.places if len(piece) > 1]
    possible = [pair for pair in splits(old, ids, symbols) if pair[0] in new or pair[1] in new]
    last = {left + right: at for at, (left, right) in enumerate(merges)}
    reached = list(accumulate((base.places.get(left + right, 0) for left, right in merges), max))
    behind = defaultdict(list)
    for left, right in possible:
        piece = left + right
        at = last[piece] if piece in last else bisect_right(reached, base.places[piece]) - 1
        behind[at].append((left, right))
    ordered = behind[-1]
    for at, pair in enumerate(merges):
        ordered += [pair, *behind.get(at, ())]
    return ordered + splits(list(new), ids, symbols)


def _write_proto(base: Base, pieces: Sequence[str]) -> bytes:
    """tokenizer.model with pieces that have lower scores than all others.

    Numbers that only tokenizer.json has, those of added tokens, get pieces of these names: control pieces are
    never found in a text, the others are as in tokenizer.json.
    """
    proto = type(base.proto)()
    proto.CopyFrom(base.proto)
    names = {number: piece for piece, number in base.ids.items()}
    control = {token["content"] for token in (base.rules or {}).get("added_tokens", []) if token["special"]}
    for number in range(len(proto.pieces), base.first_id):
        name = names.get(number, f"<unused {number}>")
        is_found = number in names and name not in control
        proto.pieces.add(piece=name, score=0, type=USER_DEFINED if is_found else CONTROL)
    lowest = min(0.0, *(piece.score for piece in base.proto.pieces))
    step = max(1.0, -lowest / 2**20)  # scores are float32
    for i, piece in enumerate(pieces, start=1):
        proto.pieces.add(piece=piece, score=lowest - i * step, type=NORMAL)
    proto.trainer_spec.vocab_size = len(proto.pieces)
    return proto.SerializeToString()
