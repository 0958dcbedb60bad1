"""Sharded parameters to a Hugging Face folder, whole or not at all."""

import functools
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jax import Array
from jax.sharding import Mesh, NamedSharding

from jaxlingua.checkpoint.huggingface.config_json import with_dtype
from jaxlingua.checkpoint.huggingface.model import CONFIG, read_json
from jaxlingua.checkpoint.huggingface.safetensors_file import (
    INDEX,
    listed,
    plan_shards,
    write_file,
    write_index,
)
from jaxlingua.checkpoint.huggingface.tensors import LAYOUTS, Layout, axis_sizes, places
from jaxlingua.errors import CheckpointError, ConfigError
from jaxlingua.model.lora import merged_at, merged_config, parts_of
from jaxlingua.model.presets import LlamaConfig
from jaxlingua.sharding.rules import replicated

MARK = "jaxlingua.json"  # in every folder that was written here, so that it may be written again
MODEL, ADAPTER = "a whole model", "an adapter"  # kinds of what is written
GIB = 2**30


def check_folder(
    folder: Path, kind: str = MODEL, sources: Sequence[Path] = (), where: str = "checkpoint.export.folder"
) -> None:
    """Raises: ConfigError where `folder` holds anything that an earlier export of its kind did not write.

    Args:
        kind: of what is to be written, MODEL or ADAPTER.
        sources: folders that it is made of, which are never written to.
        where: the option that `folder` was given for.
    """
    if not folder.exists():
        return
    if any(source.is_dir() and source.samefile(folder) for source in sources):
        raise ConfigError(
            f"{where}: '{folder}' given, which is read from; a new folder is allowed; choose another"
        )
    there = read_json(folder / MARK).get("kind", MODEL) if (folder / MARK).is_file() else kind
    if there != kind:
        raise ConfigError(
            f"{where}: '{folder}' given, which holds {there}, and {kind} is to be written; "
            f"a new folder is allowed; choose another"
        )
    written = _written(folder) if folder.is_dir() else set()
    foreign = (
        sorted(path.name for path in folder.iterdir() if path.name not in written)
        if folder.is_dir()
        else ["a file"]
    )
    if foreign:
        raise ConfigError(
            f"{where}: '{folder}' given, which holds something else ({listed(foreign)}); a "
            f"new folder, or one with nothing but an earlier export, is allowed; choose another"
        )


def _written(folder: Path) -> set[str]:
    """What an earlier export wrote into `folder`."""
    if not (folder / MARK).is_file():
        return set()
    return {MARK, *read_json(folder / MARK).get("files", [])}


@contextmanager
def whole_folder(folder: Path, facts: Mapping[str, Any]) -> Iterator[Path]:
    """A folder to write into, which becomes `folder` at the end; if writing fails, nothing is left of it.

    Args:
        facts: what is told of the export in jaxlingua.json, beside the names of its files; "kind" is MODEL
            or ADAPTER.
    Raises: ConfigError where `folder` holds anything but an earlier export.
    """
    check_folder(folder, facts.get("kind", MODEL))
    partial, old = (folder.with_name(f".{folder.name}.{what}") for what in ("partial", "old"))
    is_primary = jax.process_index() == 0
    if is_primary:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    try:
        yield partial
        if is_primary:
            files = sorted(path.name for path in partial.iterdir())
            write_json(partial / MARK, {**facts, "files": files})
            if folder.exists():
                os.replace(folder, old)
            os.replace(partial, folder)
            shutil.rmtree(old, ignore_errors=True)
    finally:
        if is_primary:
            shutil.rmtree(partial, ignore_errors=True)


def write_weights(
    folder: Path,
    weights: Any,
    config: LlamaConfig,
    fields: Mapping[str, Any],
    *,
    dtype: str,
    shard_gib: float,
    mesh: Mesh,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """config.json and the weights as safetensors, in files of at most `shard_gib`.

    Adapters are merged into the weights, one tensor of a layer at a time.

    Args:
        weights: sharded over `mesh`.
        fields: config.json, whose vocab_size says how many rows of the padded vocabulary are written.
        dtype: float32, bfloat16 or float16.
        on_progress: called with bytes written and bytes in all.
    Raises: CheckpointError for a weight that is too large for float16.
    Cost: memory for one tensor of a layer, and for the embedding; with several processes each device holds
        one of them whole.
    """
    rows, stored = fields["vocab_size"], np.dtype(jnp.dtype(dtype))
    after = config if config.lora is None else merged_config(config)
    by_name = {place.name: place for place in places(after)}
    sizes = axis_sizes(config, rows)
    shapes = {name: place.layout.shape(sizes) for name, place in by_name.items()}
    size_of = {name: int(np.prod(shape, dtype=np.int64)) * stored.itemsize for name, shape in shapes.items()}
    shards = plan_shards(shapes, stored, max(1, int(shard_gib * GIB)))
    padded = tuple(axis_sizes(config, config.vocab_size).items())
    flat = flatten_dict(weights, sep="/")
    # A process that holds all parts puts them together itself: on eight virtual devices of a CPU, eight whole
    # copies made an export of 1.2 billion weights five times as slow.
    gathered = replicated(mesh) if jax.process_count() > 1 else None
    done, total = 0, sum(size_of.values())

    def arrays(names: list[str]) -> Iterator[np.ndarray]:
        nonlocal done
        for name in names:
            place = by_name[name]
            if config.lora is None:
                tensor = take(flat[place.path], place.layer, place.layout, padded, dtype, gathered)
            else:
                parts = parts_of(flat, place.path, config)
                tensor = _take_merged(parts, place.layer, place.path, config, padded, dtype, gathered)
            array = np.asarray(tensor)
            if "v" in place.layout.ours:
                array = array[:rows]
            _check_finite(name, array, dtype)
            yield array
            done += size_of[name]
            on_progress(done, total)

    for file, names in shards:
        of_file = {name: shapes[name] for name in names}
        if jax.process_index() == 0:
            write_file(folder / file, of_file, stored, arrays(names))
        else:
            for _ in arrays(names):
                pass  # every process takes part in gathering
    if jax.process_index() == 0:
        if len(shards) > 1:
            write_index(folder / INDEX, shards, total)
        tied = {"tie_word_embeddings": False} if config.tie_embeddings and not after.tie_embeddings else {}
        write_json(folder / CONFIG, with_dtype(fields, dtype) | tied)


@functools.partial(jax.jit, static_argnames=("layout", "sizes", "dtype", "sharding"))
def take(
    param: Array,
    layer: int | Array | None,
    layout: Layout,
    sizes: tuple[tuple[str, int], ...],
    dtype: str,
    sharding: NamedSharding | None,
) -> Array:
    """A tensor of the file out of a parameter; None leaves it spread as it is."""
    one = param if layer is None else jax.lax.dynamic_index_in_dim(param, layer, 0, keepdims=False)
    tensor = layout.to_file(one, dict(sizes)).astype(dtype)
    return tensor if sharding is None else jax.lax.with_sharding_constraint(tensor, sharding)


@functools.partial(jax.jit, static_argnames=("path", "config", "sizes", "dtype", "sharding"))
def _take_merged(
    parts: dict[str, Array],
    layer: int | Array | None,
    path: str,
    config: LlamaConfig,
    sizes: tuple[tuple[str, int], ...],
    dtype: str,
    sharding: NamedSharding | None,
) -> Array:
    """The same of a model whose adapters are merged."""
    return take(merged_at(parts, path, config, layer), None, LAYOUTS[path], sizes, dtype, sharding)


def _check_finite(name: str, array: np.ndarray, dtype: str) -> None:
    if dtype == "float16" and not np.isfinite(array).all():
        raise CheckpointError(
            f"{name}: a weight is too large for checkpoint.export.dtype=float16; use bfloat16 or float32"
        )


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """As Hugging Face writes its files."""
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8", newline="\n")
