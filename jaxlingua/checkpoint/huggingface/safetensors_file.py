"""Safetensors files: where each tensor lies in which of them, parts of it read, new ones written.

The safetensors library checks a file. The bytes are read here, by offset, since its slices take three times
as long (0.28 s for 512 MB where this takes 0.09 s) and keep the mapped file in memory; and they are written
here one tensor after the other, where its `save_file` wants all of the file in memory at once.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from jaxlingua.errors import CheckpointError

# Names of types: in a file, in numpy.
DTYPES = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_SHOWN = 5
_ROWS_COMPARED = 8192


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a file, not yet read."""

    file: Path
    shape: tuple[int, ...]
    dtype: str  # as in the file, such as BF16
    start: int  # of its bytes in the file
    size: int  # bytes

    def some_bytes(self) -> bytes:
        """64 bytes of its values at each of eight places, the first and the last among them."""
        last = max(0, self.size - 64)
        with self.file.open("rb") as file:
            found = []
            for place in range(8):
                file.seek(self.start + last * place // 7)
                found.append(file.read(min(64, self.size)))
            return b"".join(found)

    def read_rows(self, first: int, stop: int) -> np.ndarray:
        """Rows `first` to `stop` along the first axis.

        Raises: CheckpointError where the file ends before them.
        """
        dtype = DTYPES[self.dtype]
        row = int(np.prod(self.shape[1:], dtype=np.int64))
        with self.file.open("rb") as file:
            file.seek(self.start + first * row * dtype.itemsize)
            # bfloat16 is no type that numpy reads from files.
            flat = np.fromfile(file, np.dtype(f"u{dtype.itemsize}"), (stop - first) * row)
        if flat.size < (stop - first) * row:
            raise CheckpointError(f"{self.file}: became shorter while it was read; download it again")
        return flat.view(dtype).reshape(stop - first, *self.shape[1:])

    def holds(self, other: "StoredTensor") -> bool:
        """Whether this is `other` bit by bit, or what `other` becomes in this type.

        Cost: reads both, some thousand rows at a time.
        """
        if self.shape != other.shape or {self.dtype, other.dtype} - DTYPES.keys():
            return False
        for first in range(0, self.shape[0], _ROWS_COMPARED):
            stop = min(first + _ROWS_COMPARED, self.shape[0])
            ours, theirs = (tensor.read_rows(first, stop) for tensor in (self, other))
            if ours.tobytes() != theirs.astype(ours.dtype).tobytes():
                return False
        return True


def weight_files(folder: Path) -> list[str]:
    """Names of the files that hold the weights of a folder in which they may not be yet."""
    index = folder / INDEX
    return sorted(set(_read_index(index).values())) if index.is_file() else [SINGLE]


def read_tensors(folder: Path) -> dict[str, StoredTensor]:
    """The tensors of a folder by name: of model.safetensors, or of all shards that its index names.

    Raises: CheckpointError for a shard that is missing, a file that is cut short or damaged, and an index
        that does not agree with its shards.
    Cost: reads headers only.
    """
    if (folder / SINGLE).is_file():
        return read_header(folder / SINGLE)
    if not (folder / INDEX).is_file():
        raise CheckpointError(f"{folder}: holds no {SINGLE} and no {INDEX}; {_what_else(folder)}")
    shard_of = _read_index(folder / INDEX)
    shards = sorted(set(shard_of.values()))
    missing = [name for name in shards if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{folder}: {listed(missing)} of {INDEX} missing, of {len(shards)} shards; all are needed; "
            f"download the rest; nothing was loaded"
        )
    tensors: dict[str, StoredTensor] = {}
    for shard in shards:
        header = read_header(folder / shard)
        wrong = sorted(set(header) ^ {name for name, of in shard_of.items() if of == shard})
        if wrong:
            raise CheckpointError(
                f"{folder / shard}: disagrees with {INDEX} on {listed(wrong)}; files of one download belong "
                f"together; download all again; nothing was loaded"
            )
        tensors |= header
    return tensors


def _read_index(path: Path) -> dict[str, str]:
    try:
        shard_of = json.loads(path.read_text("utf-8"))["weight_map"]
        names = set(shard_of.values())
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CheckpointError(
            f"{path}: damaged; a map of tensors to shards is expected; download it again; nothing was loaded"
        ) from None
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise CheckpointError(f"{path}: '{name}' given as a shard; file names of its folder are allowed")
    return shard_of


def read_header(path: Path) -> dict[str, StoredTensor]:
    """The tensors of one file by name.

    Raises: CheckpointError for a file that is cut short or damaged.
    Cost: reads its header only.
    """
    try:
        with path.open("rb") as file:  # before the library, whose error names no file if it cannot be read
            with safe_open(path, "np"):
                pass  # refuses headers that do not cover the file just once
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
    except (SafetensorError, ValueError) as error:
        if _first_bytes(path).startswith(b"version https://git-lfs"):
            raise CheckpointError(
                f"{path}: a pointer of git LFS given, not the weights; run 'git lfs pull' there; nothing was "
                f"loaded"
            ) from None
        size = path.stat().st_size
        raise CheckpointError(
            f"{path}: cut short or damaged ({size:,} bytes; {error}); download it again; nothing was loaded"
        ) from None
    header.pop("__metadata__", None)
    return {
        name: StoredTensor(path, tuple(info["shape"]), info["dtype"], 8 + length + start, end - start)
        for name, info in header.items()
        for start, end in [info["data_offsets"]]
    }


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(40)


def _what_else(folder: Path) -> str:
    """What to do about a folder without safetensors."""
    if any(folder.glob("consolidated.*.pth")):
        return "it is an original download of Meta's; convert it first (docs/checkpoints.md)"
    if any(folder.glob("*.bin")):
        return (
            "its weights are PyTorch files, which can run code when they are read; write safetensors with "
            "transformers' save_pretrained"
        )
    if any(folder.glob("*.safetensors")):
        return "shards need their index; download it too"
    return "give a whole checkpoint with safetensors; PyTorch's .bin files are not read"


def listed(names: list[str]) -> str:
    """Names in quotes, cut after five with a count."""
    shown = ", ".join(f"'{name}'" for name in names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


# ── writing ───────────────────────────────────────────────────────────────────────────────────────────────


def plan_shards(
    shapes: Mapping[str, tuple[int, ...]], dtype: np.dtype, shard_bytes: int
) -> list[tuple[str, list[str]]]:
    """Files and the tensors of each, in order; a tensor that is larger than a shard has one for itself."""
    shards: list[list[str]] = [[]]
    room = shard_bytes
    for name, shape in shapes.items():
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if size > room and shards[-1]:
            shards.append([])
            room = shard_bytes
        shards[-1].append(name)
        room -= size
    for names in shards:
        names.sort()  # within a file, as the safetensors library lays them
    if len(shards) == 1:
        return [(SINGLE, shards[0])]
    return [
        (f"model-{number:05}-of-{len(shards):05}.safetensors", names)
        for number, names in enumerate(shards, 1)
    ]


def write_file(
    path: Path, shapes: Mapping[str, tuple[int, ...]], dtype: np.dtype, arrays: Iterable[np.ndarray]
) -> None:
    """One file with the tensors of `shapes`; `arrays` gives them one by one, in this order.

    Cost: memory for one of them.
    """
    header: dict = {"__metadata__": {"format": "pt"}}  # transformers refuses a file without it
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        header[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin aligned
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for (name, shape), array in zip(shapes.items(), arrays, strict=True):
            if array.shape != shape or array.dtype != dtype:
                raise ValueError(f"{name} is {array.dtype}{array.shape}, announced as {dtype}{shape}")
            np.ascontiguousarray(array).view(f"u{dtype.itemsize}").tofile(file)


def write_index(path: Path, shards: list[tuple[str, list[str]]], total_bytes: int) -> None:
    """The index of several files."""
    weight_map = {name: file for file, names in shards for name in names}
    content = {"metadata": {"total_size": total_bytes}, "weight_map": weight_map}
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
