"""Vectors of texts, kept in a folder so that a model reads each text once, and how near they are."""

import contextlib
import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from jaxlingua.eval.in_context.retrieval.rank import Role

TEXTS_TOGETHER = 256  # written in one file; what a cut-off evaluation may lose

# The last digits depend on what else was in the batch.
_DECIMALS = 6

Make = Callable[[Sequence[str]], Float[np.ndarray, "texts embed"]]


class KeptVectors:
    """Vectors of texts by one retriever and one model, in memory and on disk.

        FOLDER/<hash of retriever and model>/<hash of texts>.npz    texts: [texts 32] uint8; vectors: float32

    A file is there whole or not at all, and never changed. One that is damaged counts as absent.

    Args:
        folder: none keeps them in memory only.
        whose: all that a vector depends on beside its text, such as the retriever's name and the weights'
            fingerprint.
    """

    def __init__(self, folder: Path | None, *whose: str | int):
        self._folder = folder and folder / hashlib.sha256(json.dumps(whose).encode()).hexdigest()[:20]
        self._known: dict[bytes, Float[np.ndarray, " embed"]] = {}
        for path in sorted(self._folder.glob("*.npz")) if self._folder else ():
            with contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
                with np.load(path) as content:
                    names, vectors = content["texts"], content["vectors"]
                self._known |= {name.tobytes(): vector for name, vector in zip(names, vectors, strict=True)}

    def of(self, texts: Sequence[str], make: Make) -> Float[np.ndarray, "texts embed"]:
        """The vectors of texts; those that are not known are made, some hundred together, and written."""
        named = {_name(text): text for text in texts}
        missing = sorted(named.keys() - self._known.keys(), key=lambda name: (len(named[name]), name))
        for start in range(0, len(missing), TEXTS_TOGETHER):
            names = missing[start : start + TEXTS_TOGETHER]
            vectors = make([named[name] for name in names])
            if self._folder:
                _write(self._folder, names, vectors)
            self._known |= dict(zip(names, vectors, strict=True))
        return np.stack([self._known[_name(text)] for text in texts])


class VectorRetriever:
    """Cosine of the vectors that a function makes of texts."""

    def __init__(self, name: str, kept: KeptVectors, make: Make):
        self.name = name
        self._kept, self._make = kept, make

    def scores(
        self, queries: Sequence[str], pool: Sequence[str], role: Role = "exemplars"
    ) -> Float[np.ndarray, "queries pool"]:
        together = self._kept.of([*queries, *pool], self._make)
        return cosines(together[: len(queries)], together[len(queries) :])


def cosines(
    queries: Float[np.ndarray, "queries embed"], pool: Float[np.ndarray, "pool embed"]
) -> Float[np.ndarray, "queries pool"]:
    """float64; a vector of length 0 is near to nothing."""
    return (_normalized(queries) @ _normalized(pool).T).round(_DECIMALS)


def _write(folder: Path, names: Sequence[bytes], vectors: Float[np.ndarray, "texts embed"]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(prefix=".", suffix=".partial", dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            texts = np.frombuffer(b"".join(names), np.uint8).reshape(len(names), -1)
            np.savez(file, texts=texts, vectors=vectors)
        os.replace(beside, folder / f"{hashlib.sha256(b''.join(names)).hexdigest()[:20]}.npz")
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


def _name(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _normalized(vectors: Float[np.ndarray, "texts embed"]) -> Float[np.ndarray, "texts embed"]:
    vectors = vectors.astype(np.float64)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)
