"""A public checkpoint with a larger vocabulary: new rows of embedding and head, all else as it was."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float

from jaxlingua.checkpoint.huggingface.config_json import with_dtype
from jaxlingua.checkpoint.huggingface.export import GIB, write_json
from jaxlingua.checkpoint.huggingface.model import CONFIG, GENERATION_CONFIG, PublicModel
from jaxlingua.checkpoint.huggingface.safetensors_file import (
    DTYPES,
    INDEX,
    StoredTensor,
    plan_shards,
    write_file,
    write_index,
)
from jaxlingua.checkpoint.huggingface.tensors import LAYOUTS, axis_sizes, places

EMBEDDING, HEAD = (LAYOUTS[path].name for path in ("embed/embedding", "head/kernel"))
_ROWS_AT_ONCE = 8192


@dataclass(frozen=True)
class NewRows:
    """How the vocabulary of a model grows.

    Attributes:
        old_ids: of every new piece, by its id, what the old tokenizer writes in its place; none of them new.
        first_id: rows below it are those that the old tokenizer uses, and stay as they are.
        rows: in all, with those that make it a multiple.
        begin: whether a new row is the mean of all old rows, or of those of its `old_ids`.
    """

    old_ids: Mapping[int, Sequence[int]]
    first_id: int
    rows: int
    begin: Literal["mean", "pieces"]


def rows_of(pieces: int, file_rows: int, multiple: int) -> int:
    """Rows of a vocabulary: one for every piece and none less than in the file, as many as make a multiple.

    Example:
        >>> rows_of(40_001, 32_000, 64), rows_of(151_700, 151_936, 64)
        (40064, 151936)
    """
    return -(-max(pieces, file_rows) // multiple) * multiple


def first_rows(tensor: StoredTensor, new: NewRows) -> Float[np.ndarray, "pieces embed"]:
    """Rows of the new pieces as they begin, float32, by ascending ids.

    A piece that the old tokenizer writes with nothing begins with the mean of all old rows.

    Cost: reads the old rows, some thousand at a time. Sums are float64, rounded once.
    """
    mean = _mean_row(tensor, new.first_id)
    if new.begin == "mean":
        return np.repeat(mean[None], len(new.old_ids), 0).astype(np.float32)
    old = [new.old_ids[number] for number in sorted(new.old_ids)]
    of_piece = np.repeat(np.arange(len(old)), [len(ids) for ids in old])
    used = np.concatenate([np.asarray(ids, np.int64) for ids in old])
    sums = np.zeros((len(old), tensor.shape[1]))
    for first, block in _blocks(tensor, new.first_id):
        here = (used >= first) & (used < first + len(block))
        np.add.at(sums, of_piece[here], block[used[here] - first].astype(np.float64))
    counts = np.bincount(of_piece, minlength=len(old))[:, None]
    return np.where(counts > 0, sums / np.maximum(counts, 1), mean).astype(np.float32)


def _mean_row(tensor: StoredTensor, rows: int) -> Float[np.ndarray, " embed"]:
    """Mean of the first `rows`, float64."""
    return sum(block.sum(0, np.float64) for _, block in _blocks(tensor, rows)) / rows


def _blocks(tensor: StoredTensor, rows: int) -> Iterator[tuple[int, np.ndarray]]:
    """The first `rows` in parts, each with the number of its first one, float32."""
    for first in range(0, rows, _ROWS_AT_ONCE):
        yield first, tensor.read_rows(first, min(first + _ROWS_AT_ONCE, rows)).astype(np.float32)


def grown(
    tensor: StoredTensor, new: NewRows, given: Float[np.ndarray, "pieces embed"] | None = None
) -> np.ndarray:
    """An embedding or a head with its new rows, in the type of the file.

    Rows that the file has beyond the old tokenizer are overwritten where a new piece needs them; those that
    no piece has and the file has not are the mean of all old rows.

    Args:
        given: rows of the new pieces that were learned, in place of those they begin with.
    """
    dtype, (file_rows, width) = DTYPES[tensor.dtype], tensor.shape
    matrix = np.empty((new.rows, width), dtype)
    matrix[:file_rows] = tensor.read_rows(0, file_rows)
    matrix[file_rows:] = _mean_row(tensor, new.first_id).astype(np.float32).astype(dtype)
    matrix[sorted(new.old_ids)] = (first_rows(tensor, new) if given is None else given).astype(dtype)
    return matrix


def write_model(
    folder: Path,
    public: PublicModel,
    new: NewRows,
    *,
    shard_gib: float,
    embedding: Float[np.ndarray, "pieces embed"] | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """config.json, generation_config.json and the weights as safetensors, in files of at most `shard_gib`.

    Tensors keep their type, and become float32, which holds the same numbers, where the file mixes types. A
    tied head that the file has a second time, and tensors that follow from config.json, are left out.

    Args:
        embedding: rows of the embedding for the new pieces that were learned; those of an untied head begin
            as `new` says.
        on_progress: called with bytes written and bytes in all.
    Cost: memory for the embedding.
    """
    sizes = axis_sizes(public.config, new.rows)
    shapes = {place.name: place.layout.shape(sizes) for place in places(public.config)}
    kinds = {public.tensors[name].dtype for name in shapes}
    dtype = DTYPES[kinds.pop() if len(kinds) == 1 else "F32"]
    size_of = {name: int(np.prod(shape, dtype=np.int64)) * dtype.itemsize for name, shape in shapes.items()}
    shards = plan_shards(shapes, dtype, max(1, int(shard_gib * GIB)))
    done, total = 0, sum(size_of.values())

    def arrays(names: Sequence[str]) -> Iterator[np.ndarray]:
        nonlocal done
        for name in names:
            tensor = public.tensors[name]
            if name in (EMBEDDING, HEAD):
                array = grown(tensor, new, embedding if name == EMBEDDING else None)
            else:
                array = tensor.read_rows(0, tensor.shape[0])
            yield array.astype(dtype, copy=False)
            done += size_of[name]
            on_progress(done, total)

    for file, names in shards:
        write_file(folder / file, {name: shapes[name] for name in names}, dtype, arrays(names))
    if len(shards) > 1:
        write_index(folder / INDEX, shards, total)
    fields = {name: value for name, value in public.fields.items() if name != "_name_or_path"}
    write_json(folder / CONFIG, with_dtype(fields, str(dtype)) | {"vocab_size": new.rows})
    if public.generation is not None:
        write_json(folder / GENERATION_CONFIG, public.generation)
