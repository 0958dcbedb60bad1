"""The retriever that asks a sentence encoder from the hub, such as LaBSE; it runs on torch."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xxhash
from jaxtyping import Float

from jaxlingua.errors import ConfigError
from jaxlingua.eval.in_context.retrieval.rank import Retriever
from jaxlingua.eval.in_context.retrieval.vectors import KeptVectors, VectorRetriever
from jaxlingua.hub import find_folder

_PATTERNS = ("*.safetensors", "*.json", "*.txt", "*.model")
_WHERE = "eval.in_context.encoder"


def check_encoder(name: str) -> Path:
    """The folder of an encoder, whose weights are not read yet.

    Raises: ConfigError where sentence-transformers is not installed, or for a name that is no encoder's; as
        `find_folder`.
    """
    if importlib.util.find_spec("sentence_transformers") is None:
        raise ConfigError(
            f"{_WHERE}: '{name}' given, sentence-transformers is not installed; "
            f"pip install 'jaxlingua[encoder]', or take 'encoder' out of eval.in_context.retrieval"
        )
    files = find_folder(name, _PATTERNS, _WHERE, ConfigError)
    if not (files / "modules.json").is_file():
        raise ConfigError(
            f"{_WHERE}: '{name}' given, which has no modules.json; an encoder as sentence-transformers saves "
            f"it is needed; give one, such as sentence-transformers/LaBSE"
        )
    return files


def encoder_retriever(name: str, folder: Path | None = None) -> Retriever:
    """Cosine of sentence vectors by sentence-transformers.

    The encoder is read when the first text is not known yet, by torch, which chooses the device.

    Args:
        name: a folder or a hub name; custom code of a repository is not run.
        folder: where vectors are kept, such as one in the folder of the run.
    Raises: as `check_encoder`; ConfigError for files that cannot be read.
    Cost: reading the encoder's files once for a hash that names it.
    """
    files = check_encoder(name)
    encoders: list = []

    def make(texts: Sequence[str]) -> Float[np.ndarray, "texts embed"]:
        if not encoders:
            encoders.append(_opened(name, files))
        return encoders[0].encode(list(texts), show_progress_bar=False).astype(np.float32)

    return VectorRetriever("encoder", KeptVectors(folder, "encoder", _hash_of(files)), make)


def _opened(name: str, files: Path):
    from sentence_transformers import SentenceTransformer

    try:
        return SentenceTransformer(str(files), local_files_only=True)
    except Exception as cause:  # whatever is wrong with files of others
        reason = (str(cause) or type(cause).__name__).splitlines()[0][:200]
        raise ConfigError(
            f"{_WHERE}: '{name}' given, which sentence-transformers cannot read ({reason}); an encoder with "
            f"model.safetensors is needed; give another"
        ) from None


def _hash_of(files: Path) -> str:
    """Of the names and bytes of all files that an encoder is read from."""
    found = xxhash.xxh3_128()
    for path in sorted(path for pattern in _PATTERNS for path in files.rglob(pattern)):
        found.update(f"{path.relative_to(files).as_posix()} {path.stat().st_size}\n".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 24):
                found.update(block)
    return found.hexdigest()
