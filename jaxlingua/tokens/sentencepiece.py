"""SentencePiece models through tensorflow-text; TensorFlow is imported only when one is loaded."""

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import numpy as np

from jaxlingua.errors import TokenizerError
from jaxlingua.tokens.interface import Encoding, Tokenizer, cover, find_files

CONTROL = 3  # ModelProto.SentencePiece.Type


def load(path: str) -> Tokenizer:
    """A tokenizer from a `tokenizer.model`, or from the folder or hub name that holds one.

    `SentencepieceTokenizer` only: the Fast one takes BPE models without an error and gives other ids.

    Raises: TokenizerError if tensorflow-text is not installed, the file is no SentencePiece model or has no
        end token, or the folder adds tokens that the file does not know.
    Same as: sentencepiece's own ids, for every text.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        file = find_files(path, ["tokenizer.model", "added_tokens.json"]) / "tokenizer.model"
        if not file.is_file():
            raise TokenizerError(
                f"{path}: no tokenizer.model there; give its path, or use tokens.kind=huggingface"
            )
        added = file.with_name("added_tokens.json")
        if added.is_file() and json.loads(added.read_bytes()):
            raise TokenizerError(
                f"{added}: adds tokens that tokenizer.model does not know; use tokens.kind=huggingface, or "
                f"give the path of tokenizer.model itself to go without them"
            )
    content = file.read_bytes()
    proto = _parse(content, str(file))
    special = proto.trainer_spec
    if special.eos_id < 0:
        raise TokenizerError(
            f"{file}: has no end token (eos_id is -1); every answer ends with one; train it with one"
        )
    with _silent_stderr():
        text = _tensorflow_text()
        tokenizer = text.SentencepieceTokenizer(model=content)
        has_prefix = proto.normalizer_spec.add_dummy_prefix
        proto.normalizer_spec.add_dummy_prefix = False
        continuation = text.SentencepieceTokenizer(model=proto.SerializeToString())
    control = {i for i, piece in enumerate(proto.pieces) if piece.type == CONTROL}

    def encode(texts: list[str], continued: bool) -> list[Encoding]:
        if not texts:
            return []
        raw = [text.encode() for text in texts]
        pieces, starts, ends = (continuation if continued else tokenizer).tokenize_with_offsets(raw)
        ids, splits = pieces.flat_values.numpy().astype(np.int32), pieces.row_splits.numpy()
        offsets = np.stack([starts.flat_values.numpy(), ends.flat_values.numpy()], axis=1)
        offsets = _code_points(raw, offsets, np.diff(splits))
        return [Encoding(ids[a:b], cover(offsets[a:b])) for a, b in pairwise(splits)]

    def decode(ids: list[int]) -> str:
        if not ids:
            return ""
        text = continuation.detokenize(np.array(ids, np.int32)).numpy().decode(errors="replace")
        return text.removeprefix(" ") if has_prefix else text  # the other tokenizer would remove all spaces

    def write(folder: Path) -> None:
        (folder / "tokenizer.model").write_bytes(content)
        config = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": special.bos_id >= 0}
        for role, number in (("bos", special.bos_id), ("eos", special.eos_id), ("unk", special.unk_id)):
            config[f"{role}_token"] = proto.pieces[number].piece if number >= 0 else None
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2))

    return Tokenizer(
        vocab_size=len(proto.pieces),
        bos_id=special.bos_id if special.bos_id >= 0 else None,
        eos_id=special.eos_id,
        pad_id=special.pad_id if special.pad_id >= 0 else special.eos_id,
        control_ids=frozenset(control),
        fingerprint=hashlib.sha256(content).hexdigest(),
        encode_pieces=encode,
        decode_pieces=decode,
        write_files=write,
        name_piece=lambda number: proto.pieces[number].piece,
    )


def _code_points(texts: list[bytes], offsets: np.ndarray, pieces: np.ndarray) -> np.ndarray:
    """Byte offsets within each text to code points, int32 [pieces, 2]."""
    everything = np.frombuffer(b"".join(texts), np.uint8)
    before = np.concatenate(
        [[0], np.cumsum((everything & 0xC0) != 0x80)]
    )  # characters that begin before a byte
    begin = np.cumsum([0, *map(len, texts)])[:-1]
    begin = np.repeat(begin, pieces)[:, None]
    return (before[offsets + begin] - before[begin]).astype(np.int32)


def _parse(content: bytes, where: str):
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()
    try:
        proto.ParseFromString(content)
    except DecodeError as error:
        raise TokenizerError(f"{where}: not a SentencePiece model ({error}); download it again") from error
    if not proto.pieces:
        raise TokenizerError(f"{where}: a SentencePiece model without pieces; download it again")
    return proto


def _tensorflow_text() -> ModuleType:
    """tensorflow_text, without its messages and without the accelerators that JAX is to have."""
    try:
        import tensorflow
        import tensorflow_text
    except ImportError as error:
        raise TokenizerError(
            f"tokens.kind=sentencepiece: tensorflow-text cannot be imported ({error}); "
            f'it is an extra: pip install "jaxlingua[text]"'
        ) from error
    for kind in ("GPU", "TPU"):
        tensorflow.config.set_visible_devices([], kind)
    return tensorflow_text


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Stderr closed at the level of the process: TensorFlow's C++ writes there before any setting is read."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
