"""A public checkpoint, from the hub or a folder, tensor by tensor into sharded parameters."""

import functools
import hashlib
import json
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float

from jaxlingua.checkpoint.huggingface.config_json import read_config
from jaxlingua.checkpoint.huggingface.safetensors_file import (
    DTYPES,
    StoredTensor,
    listed,
    read_tensors,
    weight_files,
)
from jaxlingua.checkpoint.huggingface.tensors import DERIVED, Layout, Place, axis_sizes, places
from jaxlingua.errors import CheckpointError
from jaxlingua.hub import find_folder
from jaxlingua.model.llama import Llama
from jaxlingua.model.presets import LlamaConfig
from jaxlingua.model.quantized import quantize
from jaxlingua.sharding.rules import abstract_sharded_params

CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
_TIED_HEAD = "lm_head.weight"
# Tensors that are read, and turned, while one goes to the devices: 5.9 s for the 1.2 billion weights of
# benchmarks/public_weights.py where one ahead takes 7.5 s, with 0.15 GiB more.
_AHEAD = 3


@dataclass(frozen=True)
class PublicModel:
    """A checkpoint in which every field and tensor is understood; no tensor of it is read yet."""

    path: str  # as it was given
    folder: Path
    fields: Mapping[str, Any]  # of config.json
    generation: Mapping[str, Any] | None  # of generation_config.json
    config: LlamaConfig  # vocab_size is the number of rows in the file
    tensors: Mapping[str, StoredTensor]

    @property
    def dtype(self) -> str:
        """The type that holds all weights as they are: that of the file, float32 where it mixes several."""
        kinds = {tensor.dtype for name, tensor in self.tensors.items() if not DERIVED.fullmatch(name)}
        return str(DTYPES[kinds.pop() if len(kinds) == 1 else "F32"])

    @property
    def fingerprint(self) -> str:
        """SHA-256 of config.json, of every tensor's name, type and shape, and of its first bytes.

        Cost: reads 64 bytes of each tensor.
        """
        return fingerprint(self.fields, self.tensors)

    @property
    def file_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.size for tensor in self.tensors.values())


def open_model(path: str) -> PublicModel:
    """The checkpoint in a Hugging Face folder or of a hub name, checked against its config.json.

    From the hub config.json is fetched and understood before the weights are downloaded.

    Raises: CheckpointError naming the field, the file or the tensor that is in the way; see also
        `hub.find_folder`.
    Cost: reads headers only.
    """
    find = functools.partial(find_folder, path, where="model.path", error=CheckpointError)
    folder = find(["*.json"])
    fields = read_json(folder / CONFIG)
    config = read_config(fields, str(folder))
    # Not all that the repository may have: some hold the same weights a second time, in other files.
    folder = find(["*.json", *weight_files(folder)])
    tensors = read_tensors(folder)
    _check_tensors(folder, tensors, config)
    generation = folder / GENERATION_CONFIG
    return PublicModel(
        path, folder, fields, read_json(generation) if generation.is_file() else None, config, tensors
    )


def fingerprint(fields: Mapping[str, Any], tensors: Mapping[str, StoredTensor]) -> str:
    """SHA-256 of `fields`, and of every tensor's name, type, shape and first bytes."""
    digest = hashlib.sha256(json.dumps(dict(fields), sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tensor.shape}".encode() + tensor.some_bytes())
    return digest.hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises: CheckpointError where the file is missing or is none."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(
            f"{path.parent}: holds no {path.name}; a Hugging Face folder has one; give such a folder"
        ) from None
    except ValueError as error:
        raise CheckpointError(f"{path}: not valid JSON ({error}); download it again") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: a JSON object is expected; download it again")
    return content


def _check_tensors(folder: Path, tensors: Mapping[str, StoredTensor], config: LlamaConfig) -> None:
    """Each tensor that config.json asks for is there with its shape, and no other."""
    sizes = axis_sizes(config, config.vocab_size)
    wanted = {place.name: place.layout.shape(sizes) for place in places(config)}
    given = {name for name in tensors if not DERIVED.fullmatch(name)}
    if config.tie_embeddings and _TIED_HEAD in given:
        _check_tied(folder, tensors)
        given -= {_TIED_HEAD}
    if missing := [name for name in wanted if name not in given]:
        raise CheckpointError(
            f"{folder}: tensor {listed(missing)} not there, {len(missing)} of {len(wanted)} that config.json "
            f"asks for; all are needed; give a whole checkpoint of a language model; nothing was loaded"
        )
    if extra := sorted(given - wanted.keys()):
        raise CheckpointError(
            f"{folder}: tensor {listed(extra)} there, which config.json does not ask for; a model with parts "
            f"that are not known would be another function; nothing was loaded"
        )
    for name, shape in wanted.items():
        tensor = tensors[name]
        if tensor.shape != shape:
            raise CheckpointError(
                f"{tensor.file}: tensor '{name}' has shape {list(tensor.shape)}, config.json asks for "
                f"{list(shape)}; one of them is of another model; nothing was loaded"
            )
        if tensor.dtype not in DTYPES:
            raise CheckpointError(
                f"{tensor.file}: tensor '{name}' has type {tensor.dtype}; {', '.join(DTYPES)} are allowed; "
                f"save it in one of them; nothing was loaded"
            )


def _check_tied(folder: Path, tensors: Mapping[str, StoredTensor]) -> None:
    """Some programs write a tied head a second time. Another one would be a model that is not tied."""
    head, embedding = tensors[_TIED_HEAD], tensors.get("model.embed_tokens.weight")
    is_same = embedding is not None and head.dtype == embedding.dtype and head.holds(embedding)
    if not is_same:
        raise CheckpointError(
            f"{folder}: config.json says tie_word_embeddings=true, but '{_TIED_HEAD}' is not the embedding; "
            f"set it to false if the head is its own; nothing was loaded"
        )


# ── reading ───────────────────────────────────────────────────────────────────────────────────────────────


def load_params(
    public: PublicModel,
    model: Llama,
    mesh: Mesh,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict:
    """The parameters in the types in which the model keeps them, sharded over `mesh`.

    Tensors are read in the order in which they lie on disk, each by the rows that this process needs, and go
    to their devices in the type of the file. Rows of embedding and head beyond the file's are the mean of
    those in the file; 0 in an embedding that DoRA adapts, whose norm is over the rows.

    Args:
        model: with the sizes of the checkpoint, and a vocabulary of as many rows or more.
        on_progress: called with bytes read and bytes in all.
    Cost: in memory, the parameters and some five tensors of a layer; the whole embedding once in the type of
        the file and once more while it is cast.
    Paper: arXiv:2308.04948, mean of the rows for new tokens.
    """
    config = model.config
    stored = flatten_dict(abstract_sharded_params(model, mesh), sep="/")
    shardings = {path: leaf.sharding for path, leaf in stored.items()}
    sizes = axis_sizes(config, config.vocab_size)
    in_order = sorted(places(config), key=lambda place: _on_disk(public.tensors[place.name]))
    total, done = sum(public.tensors[place.name].size for place in in_order), 0
    has_dora = config.lora is not None and config.lora.dora and "embed" in config.lora.targets

    def read(place: Place) -> Array:
        return _spread(public.tensors[place.name], place.layout, sizes, shardings[place.path])

    params: dict[str, Array] = {}
    with ThreadPoolExecutor(_AHEAD) as reader:
        ahead = deque(reader.submit(read, place) for place in in_order[:_AHEAD])
        for number, place in enumerate(in_order, _AHEAD):
            array = ahead.popleft().result()
            if number < len(in_order):
                ahead.append(reader.submit(read, in_order[number]))
            path, sharding = place.path, shardings[place.path]
            if place.layer is None:
                axes = place.layout.ours.split()
                has_mean_rows = "v" in axes and not (path == "embed/embedding" and has_dora)
                along = axes.index("v") if has_mean_rows else None
                params[path] = _whole(array, public.config.vocab_size, along, sharding, stored[path].dtype)
            else:
                parts = {path: array}
                if f"{path}_scale" in stored:
                    last_input = len(place.layout.theirs.split()[1]) - 1
                    parts[path], parts[f"{path}_scale"] = _quantized(array, config.lora.base, last_input)
                for name, part in parts.items():
                    if name not in params:
                        params[name] = _empty(stored[name].shape, shardings[name], stored[name].dtype)
                    params[name] = _put(params[name], part, place.layer, shardings[name])
                del parts
            params[path].block_until_ready()  # so that what was read can be let go
            del array
            done += public.tensors[place.name].size
            on_progress(done, total)
    return unflatten_dict(params, sep="/")


def _on_disk(tensor: StoredTensor) -> tuple[str, int]:
    return tensor.file.name, tensor.start


def _spread(tensor: StoredTensor, layout: Layout, sizes: Mapping[str, int], sharding: NamedSharding) -> Array:
    """A tensor with our axes in the type of the file, each device with its part; further rows are 0.

    Axes are turned as a view, which the copy to a device follows: three times as fast on CPUs as a program
    that turns them there.

    Args:
        sharding: of the parameter; where it is stacked, its first axis is that of the layers.
    """
    spec = sharding.spec[1:] if layout.is_stacked else sharding.spec
    sharding = NamedSharding(sharding.mesh, PartitionSpec(*spec))
    axes = layout.ours.split()
    shape, along = tuple(sizes[axis] for axis in axes), axes.index(layout.row_axis)
    rows_each = layout.shape(sizes)[0] // shape[along]  # of the file, such as head_dim to a head
    there = tensor.shape[0] // rows_each
    parts = sharding.addressable_devices_indices_map(shape).values()
    starts, stops, _ = zip(*(part[along].indices(shape[along]) for part in parts), strict=True)
    first, stop = min(there, *starts), min(there, max(stops))
    block = layout.from_file(
        tensor.read_rows(first * rows_each, stop * rows_each), {**sizes, layout.row_axis: stop - first}
    )

    def part(index: tuple[slice, ...]) -> np.ndarray:
        start, end, _ = index[along].indices(shape[along])
        cut = block[*index[:along], slice(start - first, end - first), *index[along + 1 :]]
        lacking = end - start - cut.shape[along]
        widths = [(0, lacking if axis == along else 0) for axis in range(cut.ndim)]
        return np.pad(cut, widths) if lacking else cut

    return jax.make_array_from_callback(shape, sharding, part)


# Compiled once for each shape and sharding, whatever the parameter and the model.


@functools.partial(jax.jit, static_argnames=("shape", "sharding", "dtype"))
def _empty(shape: tuple[int, ...], sharding: NamedSharding, dtype: Any) -> Array:
    return jax.lax.with_sharding_constraint(jnp.zeros(shape, dtype), sharding)


_quantized = jax.jit(quantize, static_argnames=("kind", "axis"))


@functools.partial(jax.jit, static_argnames="sharding", donate_argnames="stacked")
def _put(stacked: Array, array: Array, layer: int | Array, sharding: NamedSharding) -> Array:
    """A parameter of all layers with one of them put in its place."""
    stacked = jax.lax.dynamic_update_index_in_dim(stacked, array.astype(stacked.dtype), layer, 0)
    return jax.lax.with_sharding_constraint(stacked, sharding)


@functools.partial(jax.jit, static_argnames=("file_rows", "along", "sharding", "dtype"))
def _whole(array: Array, file_rows: int, along: int | None, sharding: NamedSharding, dtype: Any) -> Array:
    """A parameter that is one tensor; `along` is its axis of the vocabulary, if it has one."""
    array = array.astype(jnp.float32)
    array = array if along is None else with_mean_rows(array, along, file_rows)
    return jax.lax.with_sharding_constraint(array.astype(dtype), sharding)


def with_mean_rows(weight: Float[Array, "..."], axis: int, rows: int) -> Float[Array, "..."]:
    """`weight` whose rows from `rows` on, along `axis`, are the mean of those before."""
    if weight.shape[axis] == rows:
        return weight
    places = jax.lax.broadcasted_iota(jnp.int32, weight.shape, axis)
    mean = jnp.where(places < rows, weight, 0).sum(axis, keepdims=True) / rows
    return jnp.where(places < rows, weight, mean)
