"""The tokenizer that is extended: what its files say, or why no piece can be added to them."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Tokenizer as RustTokenizer
from tokenizers import models

from jaxlingua.errors import TokenizerError
from jaxlingua.tokens import fast
from jaxlingua.tokens.extend.words import SPACE

NORMAL, CONTROL, USER_DEFINED = 1, 3, 4  # ModelProto.SentencePiece.Type
_MODEL_TYPES = {1: "Unigram", 3: "word", 4: "character"}  # TrainerSpec.ModelType but for BPE
_LEARN_ANEW = "only BPE can be extended; learn a tokenizer of its own with tokens.kind=learned"


@dataclass(frozen=True)
class Base:
    """A tokenizer as far as it matters to new pieces.

    Attributes:
        files: of its folder, by name.
        where: the folder, for errors.
        is_bytes: whether it is byte-level; else it is SentencePiece-style.
        rules: its tokenizer.json, None where there is none.
        proto: its tokenizer.model, None where there is none.
        ids: of all pieces, added tokens too.
        model: cuts a part of a text into pieces.
        places: of a SentencePiece-style one: when a piece is made of any two, the smaller the sooner.
        cut: a text to the parts that no new piece goes across, in the tokenizer's alphabet.
    """

    files: dict[str, bytes]
    where: str
    is_bytes: bool
    rules: dict[str, Any] | None
    proto: Any | None
    ids: dict[str, int]
    model: models.BPE
    places: dict[str, int]
    cut: Callable[[str], list[str]]

    @cached_property
    def first_id(self) -> int:
        """Of the pieces to come."""
        return max(self.ids.values()) + 1

    @property
    def has_bytes(self) -> bool:
        """Whether a SentencePiece-style one writes characters that it does not have as bytes."""
        return bool(self.model.byte_fallback)


def read_base(folder: Path) -> Base:
    """The tokenizer of a folder.

    Raises: TokenizerError where it is no BPE of a known kind, or its two files contradict each other.
    """
    names = [name for name in (*fast.FILES, *fast.KEPT) if (folder / name).is_file()]
    files = {name: (folder / name).read_bytes() for name in names}
    if "tokenizer.json" not in files and "tokenizer.model" not in files:
        raise TokenizerError(
            f"{folder}: no tokenizer.json and no tokenizer.model there; pieces are added to one of these; "
            f"write a tokenizer.json with save_pretrained of transformers"
        )
    proto = _read_proto(files["tokenizer.model"], str(folder)) if "tokenizer.model" in files else None
    if "tokenizer.json" not in files:
        return _of_proto(files, proto, str(folder))
    return _of_rules(files, proto, str(folder))


def readers(files: dict[str, bytes], where: str) -> list[Callable[[Sequence[str]], list[list[str]]]]:
    """What cuts texts into pieces: each file that is there, at the beginning of a document and within one."""
    found = []
    if "tokenizer.json" in files:
        tokenizer = fast.from_files(files, where)
        for continuation in (False, True):

            def read(texts: Sequence[str], continuation: bool = continuation) -> list[list[str]]:
                encodings = tokenizer.encode_batch(texts, continuation=continuation)
                return [[tokenizer.name_piece(i) for i in encoding.ids.tolist()] for encoding in encodings]

            found.append(read)
    if "tokenizer.model" in files:
        proto = _read_proto(files["tokenizer.model"], where)
        for has_prefix in dict.fromkeys((proto.normalizer_spec.add_dummy_prefix, False)):
            proto.normalizer_spec.add_dummy_prefix = has_prefix
            processor = sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())
            found.append(lambda texts, own=processor: own.encode(list(texts), out_type=str))
    return found


# ── tokenizer.json ───────────────────────────────────────────────────────────
def _of_rules(files: dict[str, bytes], proto: Any | None, where: str) -> Base:
    path = f"{where}/tokenizer.json"
    fast.from_files(files, where)  # refuses what cannot be read or has no end token
    rules = json.loads(files["tokenizer.json"])
    model = rules["model"]
    kind = model.get("type") or ("BPE" if "merges" in model else "Unigram or WordPiece")
    if kind != "BPE":
        raise TokenizerError(f"{path}: a {kind} model; {_LEARN_ANEW}")
    types = {part.get("type") for part in _parts(rules)}
    is_bytes = "ByteLevel" in types
    writes_spaces = any(
        part.get("type") == "Metaspace" or SPACE in (part.get("content"), part.get("prepend"))
        for part in _parts(rules)
    )
    if not (is_bytes or writes_spaces) or any(
        model.get(name) for name in ("continuing_subword_prefix", "end_of_word_suffix")
    ):
        raise TokenizerError(
            f"{path}: a BPE that is neither byte-level nor SentencePiece-style; pieces can be added to "
            f"these; take a model with such a tokenizer, or learn one with tokens.kind=learned"
        )
    rust = RustTokenizer.from_str(json.dumps({**rules, "truncation": None, "padding": None}))
    ids = rust.get_vocab(with_added_tokens=True)
    merges = [tuple(merge) for merge in read_merges(model["merges"])]
    places: dict[str, int] = {}
    if not is_bytes:
        for place, (left, right) in enumerate(merges):
            places.setdefault(left + right, place)
    if proto is not None:
        _refuse_contradiction(proto, ids, where)
        places = _places(proto)
    return Base(
        files=files,
        where=where,
        is_bytes=is_bytes,
        rules=rules,
        proto=proto,
        ids=ids,
        model=rust.model,
        places=places,
        cut=_cut_by(rust, is_bytes),
    )


def read_merges(merges: list[str] | list[list[str]]) -> Iterator[tuple[str, str]]:
    """Pairs, which older files write as one text with a space in between."""
    for merge in merges:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        yield left, right


def _parts(rules: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The normalizers and pre-tokenizers, those within sequences too."""
    waiting = [rules.get("normalizer"), rules.get("pre_tokenizer")]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            yield part
            waiting += part.get("normalizers", []) + part.get("pretokenizers", [])


def _cut_by(rust: RustTokenizer, is_bytes: bool) -> Callable[[str], list[str]]:
    def cut(text: str) -> list[str]:
        normal = rust.normalizer.normalize_str(text) if rust.normalizer else text
        parts = (
            [part for part, _ in rust.pre_tokenizer.pre_tokenize_str(normal)]
            if rust.pre_tokenizer
            else [normal]
        )
        return parts if is_bytes else [piece for part in parts for piece in _before_spaces(part)]

    return cut


def _before_spaces(text: str) -> list[str]:
    return [part for part in re.split(f"(?={SPACE})", text) if part]


# ── tokenizer.model ──────────────────────────────────────────────────────────
def _read_proto(content: bytes, where: str) -> Any:
    from google.protobuf.message import DecodeError

    proto = sentencepiece_model_pb2.ModelProto()
    try:
        proto.ParseFromString(content)
    except DecodeError as error:
        raise TokenizerError(
            f"{where}/tokenizer.model: not a SentencePiece model ({error}); download it again"
        ) from error
    if not proto.pieces:
        raise TokenizerError(
            f"{where}/tokenizer.model: a SentencePiece model without pieces; download it again"
        )
    if proto.trainer_spec.model_type in _MODEL_TYPES:
        kind = _MODEL_TYPES[proto.trainer_spec.model_type]
        raise TokenizerError(f"{where}/tokenizer.model: a {kind} model; {_LEARN_ANEW}")
    return proto


def _of_proto(files: dict[str, bytes], proto: Any, where: str) -> Base:
    ids = {piece.piece: i for i, piece in enumerate(proto.pieces)}
    places = _places(proto)
    unknown = next((piece.piece for piece in proto.pieces if piece.type == 2), None)
    model = models.BPE(
        ids,
        splits(sorted(places, key=places.__getitem__), ids, places),
        unk_token=unknown,
        fuse_unk=True,
        byte_fallback=proto.trainer_spec.byte_fallback,
    )
    processor = sentencepiece.SentencePieceProcessor(model_proto=files["tokenizer.model"])
    return Base(
        files=files,
        where=where,
        is_bytes=False,
        rules=None,
        proto=proto,
        ids=ids,
        model=model,
        places=places,
        cut=lambda text: _before_spaces(processor.normalize(text)),
    )


def _places(proto: Any) -> dict[str, int]:
    normal = [(-piece.score, i) for i, piece in enumerate(proto.pieces) if piece.type == NORMAL]
    return {proto.pieces[i].piece: place for place, (_, i) in enumerate(sorted(normal))}


def splits(pieces: Sequence[str], ids: dict[str, int], symbols: object) -> list[tuple[str, str]]:
    """Every pair of `symbols` that makes up a piece, in the order of the pieces and then of ids.

    SentencePiece joins any two neighbors that are a piece together; a tokenizer.json must name them.
    """
    pairs = []
    for piece in pieces:
        halves = [(piece[:at], piece[at:]) for at in range(1, len(piece))]
        own = [(left, right) for left, right in halves if left in symbols and right in symbols]
        pairs += sorted(own, key=lambda pair: (ids[pair[0]], ids[pair[1]]))
    return pairs


def _refuse_contradiction(proto: Any, ids: dict[str, int], where: str) -> None:
    for number, piece in enumerate(proto.pieces):
        if piece.type == NORMAL and ids.get(piece.piece) != number:
            raise TokenizerError(
                f"{where}: '{piece.piece}' is {number} in tokenizer.model and "
                f"{ids.get(piece.piece, 'absent')} in tokenizer.json; they must have the same ids; remove "
                f"the one that the model was not trained with"
            )
    if len(proto.pieces) > max(ids.values()) + 1:
        raise TokenizerError(
            f"{where}: {len(proto.pieces)} pieces in tokenizer.model and ids up to {max(ids.values())} in "
            f"tokenizer.json; they must have the same ids; remove the one that the model was not trained with"
        )
