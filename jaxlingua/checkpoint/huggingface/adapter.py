"""PEFT folders: every field of adapter_config.json understood or refused; adapters read, and written again.

A file keeps A as [rank, input] and B as [output, rank], all heads in one axis, a tensor per layer; we keep
[layer, input, rank] and [layer, rank, output].
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh

from jaxlingua.checkpoint.huggingface.export import take, write_json
from jaxlingua.checkpoint.huggingface.families import FLAG, NUMBER, SIZE, Field, Kind
from jaxlingua.checkpoint.huggingface.model import CONFIG, PublicModel, fingerprint, read_json
from jaxlingua.checkpoint.huggingface.safetensors_file import (
    DTYPES,
    StoredTensor,
    listed,
    read_header,
    write_file,
)
from jaxlingua.checkpoint.huggingface.tensors import LAYOUTS, Layout, axis_sizes
from jaxlingua.errors import CheckpointError, nearest
from jaxlingua.hub import find_folder
from jaxlingua.model.llama import Llama
from jaxlingua.model.lora import COLLECTION, PATHS, Lora
from jaxlingua.model.presets import LlamaConfig
from jaxlingua.sharding.rules import param_shardings, replicated

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_COPY = ".base_layer.weight"

# ── adapter_config.json ────────────────────────────────────────────────────────────────────────────────────

_MODULES = Kind(
    "a list of names, a pattern or null",
    lambda value: (
        isinstance(value, str) or (type(value) is list and all(isinstance(name, str) for name in value))
    ),
)
_TEXT = Kind("a text or null", lambda value: isinstance(value, str))
_DROPOUT = Kind("a number from 0 to below 1", lambda value: type(value) in (int, float) and 0 <= value < 1)
# What is read, with peft's defaults.
_READ = {
    "r": Field(SIZE, 8),
    "lora_alpha": Field(NUMBER, 8),
    "use_rslora": Field(FLAG, False),
    "use_dora": Field(FLAG, False),
    "lora_dropout": Field(_DROPOUT, 0.0),
    "target_modules": Field(_MODULES, None, or_null=True),
    "exclude_modules": Field(_MODULES, None, or_null=True),
    "base_model_name_or_path": Field(_TEXT, None, or_null=True),
}
# Each with the value where it is absent.
_ONE_OF = {
    "peft_type": (None, ("LORA",)),
    "task_type": (None, ("CAUSAL_LM", None)),
    "bias": ("none", ("none",)),
}
# First values of A and B that leave the base as it is, and are trained like any others.
_FIRST_VALUES = (True, False, None, "gaussian", "eva", "orthogonal")
_REFUSED = {
    "modules_to_save": "whole modules that were trained beside the adapters are not read",
    "rank_pattern": "modules with a rank of their own are not supported",
    "alpha_pattern": "modules with an alpha of their own are not supported",
    "layers_to_transform": "adapters in some layers only are not supported",
    "layers_pattern": "adapters in some layers only are not supported",
    "layer_replication": "layers that are repeated are not supported",
    "target_parameters": "adapters of single parameters are not supported",
    "trainable_token_indices": "rows of the embedding that were trained are not read",
    "ensure_weight_tying": "one adapter for embedding and head is not supported",
    "fan_in_fan_out": "matrices that are stored as [input, output] are not in this family",
    "lora_bias": "biases of adapters are not supported",
    "alora_invocation_tokens": "adapters that begin at a token (aLoRA) are not supported",
    "use_qalora": "inputs that are pooled (QA-LoRA) are not supported",
    "use_bdlora": "adapters in blocks (BD-LoRA) are not supported",
    "arrow_config": "adapters that are chosen for each token (Arrow) are not supported",
    "kasa_config": "a base without its last singular values (KaSA) is not supported",
    "monteclora_config": "adapters that are drawn at random (MonteCLoRA) are not supported",
    "velora_config": "gradients of compressed inputs (VeLoRA) are not supported",
    "megatron_config": "layers of Megatron are not supported",
    "enable_lora": "adapters of a part of one matrix are not supported",
}
# They change nothing of the function or of its training here: bookkeeping, settings of first values (which
# `init_lora_weights` names) and of parts that are refused where they are on.
_HARMLESS = {
    *("auto_mapping", "peft_version", "revision", "inference_mode", "runtime_config", "megatron_core"),
    *("merge_weights", "loftq_config", "eva_config", "corda_config", "lora_ga_config", "qalora_group_size"),
}


@dataclass(frozen=True)
class PublicAdapter:
    """An adapter in which every field and tensor is understood; no tensor of it is read yet."""

    path: str  # as it was given
    folder: Path
    fields: Mapping[str, Any]  # of adapter_config.json
    lora: Lora
    tensors: Mapping[str, StoredTensor]  # by the name that peft 0.21 gives them
    copies: Mapping[str, StoredTensor]  # of embedding and head of the base, by their name in the base

    @property
    def base_model(self) -> str:
        """Path or name of the model that it was trained with, "" where the file does not say."""
        return self.fields.get("base_model_name_or_path") or ""

    @property
    def dropout(self) -> float:
        """The share of inputs of A that were dropped in training; here none are."""
        return self.fields.get("lora_dropout", 0.0)

    @property
    def vocab_rows(self) -> int | None:
        """Rows of the vocabulary; None where neither embedding nor head is a target."""
        for target, part, axis in (("embed", "a", 1), ("head", "b", 0)):
            if target in self.lora.targets:
                return self.tensors[layouts(self.lora)[f"{_home(target)}_{part}"].name].shape[axis]
        return None

    @property
    def fingerprint(self) -> str:
        """SHA-256 of adapter_config.json, of every tensor's name, type and shape, and of its first bytes.

        Cost: reads 64 bytes of each tensor.
        """
        return fingerprint(self.fields, {**self.tensors, **self.copies})


def is_adapter(path: str | Path) -> bool:
    """Whether `path` is a folder here that holds an adapter."""
    return (Path(path).expanduser() / ADAPTER_CONFIG).is_file()


def open_adapter(path: str) -> PublicAdapter:
    """The adapter in a PEFT folder or of a hub name; its fields agree with its tensors.

    From the hub adapter_config.json is fetched and understood before the weights are downloaded.

    Raises: CheckpointError naming the field, the file or the tensor that is in the way; see also
        `hub.find_folder`.
    Cost: reads headers only.
    """
    where = "model.lora.adapter"
    folder = find_folder(path, [ADAPTER_CONFIG, CONFIG], where, CheckpointError)
    if not (folder / ADAPTER_CONFIG).is_file():
        is_model = (folder / CONFIG).is_file()
        hint = "it is a whole model: give it as model.path" if is_model else "give the folder of an adapter"
        raise CheckpointError(f"{folder}: holds no {ADAPTER_CONFIG}; a PEFT folder has one; {hint}")
    fields = read_json(folder / ADAPTER_CONFIG)
    lora = _read_fields(fields, folder / ADAPTER_CONFIG)
    file = find_folder(path, [ADAPTER_CONFIG, ADAPTER_WEIGHTS], where, CheckpointError) / ADAPTER_WEIGHTS
    if not file.is_file():
        is_pickle = file.with_suffix(".bin").is_file()
        given = "; its weights are a PyTorch file, which can run code when it is read" if is_pickle else ""
        raise CheckpointError(
            f"{folder}: holds no {ADAPTER_WEIGHTS}{given}; write it with peft's save_pretrained; nothing was "
            f"loaded"
        )
    tensors = _by_our_names(file, read_header(file))
    lora = replace(lora, targets=_targets(fields, tensors, folder / ADAPTER_CONFIG))
    copies = {
        f"{LAYOUTS[PATHS[target][0]].name}": tensors.pop(name)
        for target in ("embed", "head")
        if target in lora.targets and (name := f"{_PREFIX}{_module(target)}{_COPY}") in tensors
    }
    _check_tensors(file, tensors, lora)
    return PublicAdapter(path, folder, fields, lora, tensors, copies)


def _read_fields(fields: Mapping[str, Any], path: Path) -> Lora:
    """What the fields say, but for the targets. Raises: CheckpointError for a field that we lack."""
    known = [*_READ, *_ONE_OF, "init_lora_weights", *_REFUSED]
    for name, value in fields.items():
        if name in _REFUSED and not _is_empty(value):
            raise CheckpointError(f"{path}: field '{name}': {_REFUSED[name]}; nothing was loaded")
        if name not in known and name not in _HARMLESS and not _is_empty(value):
            raise CheckpointError(
                f"{path}: field '{name}' is not understood; {nearest(name, known)}; nothing was loaded; "
                f"remove it only if it changes nothing of the function"
            )
    for name, (default, allowed) in _ONE_OF.items():
        if (value := fields.get(name, default)) not in allowed:
            raise CheckpointError(
                f"{path}: {name}={_shown(value)} is not supported ({allowed[0]}); nothing was loaded"
            )
    for name, field in _READ.items():
        value = fields.get(name, field.default)
        if not (field.kind.holds(value) or (field.or_null and value is None)):
            raise CheckpointError(
                f"{path}: {name}={_shown(value)} is not {field.kind.words}; nothing was loaded"
            )
    _check_first_values(fields.get("init_lora_weights", True), path)
    rank, alpha, rank_stabilized, dora = (
        fields.get(name, _READ[name].default) for name in ("r", "lora_alpha", "use_rslora", "use_dora")
    )
    return Lora(rank, float(alpha), (), rank_stabilized, dora)


def _check_first_values(given: Any, path: Path) -> None:
    """Some ways of drawing A and B take them out of the base, so that they fit no other."""
    kind = given.lower() if isinstance(given, str) else given
    if any(kind is value or (isinstance(kind, str) and kind == value) for value in _FIRST_VALUES):
        return
    if isinstance(kind, str) and kind.startswith(("pissa", "olora", "corda", "lora_ga")):
        what = (
            "its base is not the public one but what was left of it; save it with peft's "
            "save_pretrained(path_initial_model_for_weight_conversion=...)"
        )
    elif kind == "loftq":
        what = "its base is not the public one but LoftQ's, which it fits alone; merge it with peft"
    elif kind == "mica":
        what = "adapters whose B stays as it was drawn (MiCA) are not supported"
    else:
        what = "true, false, gaussian, eva and orthogonal are supported"
    raise CheckpointError(f"{path}: init_lora_weights={_shown(given)}: {what}; nothing was loaded")


def _is_empty(value: Any) -> bool:
    return value is None or value is False or (isinstance(value, (str, list, dict)) and not value)


def _shown(value: Any) -> str:
    text = f"'{value}'" if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


# ── tensors ────────────────────────────────────────────────────────────────────────────────────────────────


def _home(target: str) -> str:
    """Path of a target's adapters in the tree under weights["lora"], without what comes after."""
    return PATHS[target][1].removeprefix(f"{COLLECTION}/")


def _module(target: str) -> str:
    """The name of a target's module in transformers, with {} for the layer."""
    return LAYOUTS[PATHS[target][0]].name.removesuffix(".weight")


def layouts(lora: Lora) -> dict[str, Layout]:
    """How each adapter lies in a file, by its path in the tree under weights["lora"]; r is rank."""
    found = {}
    for target in lora.targets:
        _, _, inputs, outputs = PATHS[target]
        a, b = ("embedding_A", "embedding_B") if target == "embed" else ("A.weight", "B.weight")
        parts = [("a", a, f"{inputs}r", f"r {inputs}"), ("b", b, f"r{outputs}", f"{outputs} r")]
        if lora.dora:
            parts.append(("magnitude", "magnitude_vector", outputs, outputs))
        for part, name, ours, theirs in parts:
            name = f"{_PREFIX}{_module(target)}.lora_{name}"
            found[f"{_home(target)}_{part}"] = Layout(name, " ".join(ours), theirs)
    return found


def _by_our_names(file: Path, tensors: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """Tensors by the names of peft 0.21: files without its prefix, and older ones of DoRA, have others."""
    found = {}
    for name, tensor in tensors.items():
        new = _PREFIX + name.removeprefix(_PREFIX)
        new = re.sub(r"\.lora_magnitude_vector\.weight$", ".lora_magnitude_vector", new)
        if new in found:
            raise CheckpointError(
                f"{file}: tensor '{name}' is there under two names; one is allowed; save the adapter again; "
                f"nothing was loaded"
            )
        found[new] = tensor
    return found


def _layers(names: Mapping[str, Any]) -> int:
    """Layers for which there is a tensor, or one."""
    found = (re.match(r"base_model\.model\.model\.layers\.(\d+)\.", name) for name in names)
    return 1 + max((int(match[1]) for match in found if match), default=0)


def _targets(fields: Mapping[str, Any], tensors: Mapping[str, StoredTensor], path: Path) -> tuple[str, ...]:
    """The targets that target_modules names, or, where it is null, those that have tensors.

    peft reads no tensor of a module that target_modules does not name, and draws those that are missing.
    """
    patterns, found, layers = fields.get("target_modules"), [], _layers(tensors)
    for target in PATHS:
        module = _module(target)
        modules = [module.format(layer) for layer in range(layers)] if "{}" in module else [module]
        named = [
            module
            for module in modules
            if (
                _is_named(module, fields, path)
                if patterns is not None
                else any(name.startswith(f"{_PREFIX}{module}.") for name in tensors)
            )
        ]
        if patterns is not None and 0 < len(named) < len(modules):
            raise CheckpointError(
                f"{path}: target_modules={_shown(patterns)} names '{target}' in {len(named)} of {layers} "
                f"layers; adapters in some layers only are not supported; nothing was loaded"
            )
        if named:
            found.append(target)
    if not found:
        raise CheckpointError(
            f"{path}: target_modules={_shown(patterns)} names no module of this family; "
            f"{', '.join(_module(target).rpartition('.')[2] for target in PATHS)} are supported; nothing was "
            f"loaded"
        )
    return tuple(found)


def _is_named(module: str, fields: Mapping[str, Any], path: Path) -> bool:
    """As peft decides whether a module is a target."""

    def matches(patterns: str | list[str]) -> bool:
        if isinstance(patterns, str):
            return re.fullmatch(patterns, module) is not None
        return any(module == name or module.endswith(f".{name}") for name in patterns)

    wanted, unwanted = fields["target_modules"], fields.get("exclude_modules") or []
    try:
        if isinstance(wanted, str) and wanted.lower() == "all-linear":
            return module not in (_module("embed"), _module("head")) and not matches(unwanted)
        return matches(wanted) and not matches(unwanted)
    except re.error as error:
        raise CheckpointError(
            f"{path}: target_modules={_shown(wanted)} or exclude_modules={_shown(unwanted)} is no pattern "
            f"({error}); give a list of names; nothing was loaded"
        ) from None


def _check_tensors(file: Path, tensors: Mapping[str, StoredTensor], lora: Lora) -> None:
    """Each tensor that adapter_config.json asks for is there with its rank, and no other."""
    layers = range(_layers(tensors))
    wanted = {
        layout.name.format(layer): layout
        for layout in layouts(lora).values()
        for layer in (layers if layout.is_stacked else [None])
    }
    if missing := [name for name in wanted if name not in tensors]:
        raise CheckpointError(
            f"{file}: tensor {listed(missing)} not there, {len(missing)} of {len(wanted)} that "
            f"{ADAPTER_CONFIG} asks for; each target is needed in all layers; save the adapter again; "
            f"nothing was loaded"
        )
    if extra := sorted(tensors.keys() - wanted.keys()):
        raise CheckpointError(
            f"{file}: tensor {listed(extra)} there, which {ADAPTER_CONFIG} does not ask for; an adapter with "
            f"parts that are not known would be another function; nothing was loaded"
        )
    for name, layout in wanted.items():
        tensor, axes = tensors[name], layout.theirs.split()
        if tensor.dtype not in DTYPES:
            raise CheckpointError(
                f"{file}: tensor '{name}' has type {tensor.dtype}; {', '.join(DTYPES)} are allowed; save it "
                f"in one of them; nothing was loaded"
            )
        if len(tensor.shape) != len(axes) or ("r" in axes and tensor.shape[axes.index("r")] != lora.rank):
            raise CheckpointError(
                f"{file}: tensor '{name}' has shape {list(tensor.shape)}, which is none of r={lora.rank} in "
                f"{ADAPTER_CONFIG}; files of one adapter belong together; save it again; nothing was loaded"
            )


def check_base(public: PublicAdapter, base: PublicModel) -> None:
    """Raises: CheckpointError where the adapter is of another model than `base`.

    Cost: reads headers; embedding and head in both, where the adapter's file holds copies of them.
    """
    _check_sizes(public, base.config, base.config.vocab_size)
    for name, copy in public.copies.items():
        original = "model.embed_tokens.weight" if name not in base.tensors else name  # of a tied head
        if not copy.holds(base.tensors[original]):
            raise CheckpointError(
                f"{copy.file}: its copy of '{name}' is not that of {base.folder}; {_other_base(public)}"
            )


def _check_sizes(public: PublicAdapter, config: LlamaConfig, vocab_rows: int) -> None:
    """The adapter's matrices fit those of the model, and none is of a larger rank."""
    sizes, file = _sizes(public.lora, config, vocab_rows), public.folder / ADAPTER_WEIGHTS
    of = layouts(public.lora)
    if any(layout.is_stacked for layout in of.values()) and _layers(public.tensors) != config.layers:
        raise CheckpointError(
            f"{file}: has adapters of {_layers(public.tensors)} layers, the model has {config.layers}; "
            f"{_other_base(public)}"
        )
    for layout in of.values():
        shape = layout.shape(sizes)
        for layer in range(config.layers if layout.is_stacked else 1):
            name = layout.name.format(layer)
            if public.tensors[name].shape != shape:
                raise CheckpointError(
                    f"{file}: tensor '{name}' has shape {list(public.tensors[name].shape)}, the model asks "
                    f"for {list(shape)}; {_other_base(public)}"
                )
    for target in public.lora.targets:
        shape = LAYOUTS[PATHS[target][0]].shape(sizes)
        if public.lora.rank > min(shape):
            raise CheckpointError(
                f"{public.folder / ADAPTER_CONFIG}: r={public.lora.rank} is larger than the matrix of target "
                f"'{target}' {list(shape)}; {min(shape)} at most is allowed; lower the rank; nothing was "
                f"loaded"
            )


def _other_base(public: PublicAdapter) -> str:
    told = f"it was trained with '{public.base_model}'; " if public.base_model else ""
    return f"the adapter is of another base; {told}give it its own; nothing was loaded"


# ── reading ────────────────────────────────────────────────────────────────────────────────────────────────


def load_adapter(
    public: PublicAdapter,
    model: Llama,
    mesh: Mesh,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict:
    """The tree under weights["lora"] in float32, sharded over `mesh`; rows beyond the file's are 0.

    Args:
        model: with the sizes of the adapter's base, a vocabulary of as many rows or more, and its targets.
        on_progress: called with bytes read and bytes in all.
    Raises: CheckpointError where the adapter is of a model of other sizes.
    Cost: in memory of each process, the adapters of one matrix in all layers.
    """
    config = model.config
    rows = min(public.vocab_rows or config.vocab_size, config.vocab_size)
    _check_sizes(public, config, rows)
    sizes = _sizes(public.lora, config, rows)
    shardings = flatten_dict(param_shardings(model, mesh)[COLLECTION], sep="/")
    total, done, adapters = sum(tensor.size for tensor in public.tensors.values()), 0, {}
    for path, layout in layouts(public.lora).items():
        tensors = [
            public.tensors[layout.name.format(layer)]
            for layer in range(config.layers if layout.is_stacked else 1)
        ]
        parts = [
            layout.from_file(tensor.read_rows(0, tensor.shape[0]), sizes).astype(np.float32)
            for tensor in tensors
        ]
        lacking = [(0, config.vocab_size - rows if axis == "v" else 0) for axis in layout.ours.split()]
        array = np.stack(parts) if layout.is_stacked else np.pad(parts[0], lacking)
        adapters[path] = jax.make_array_from_callback(array.shape, shardings[path], array.__getitem__)
        done += sum(tensor.size for tensor in tensors)
        on_progress(done, total)
    return unflatten_dict(adapters, sep="/")


# ── writing ────────────────────────────────────────────────────────────────────────────────────────────────


def write_adapter(
    folder: Path,
    adapters: dict,
    config: LlamaConfig,
    *,
    vocab_rows: int,
    base_model: str,
    mesh: Mesh,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """adapter_config.json and adapter_model.safetensors in float32.

    Of the fields those that peft 0.9 knows, which is the first with DoRA: what came later is off where it is
    absent, and a version that does not know a field warns of it or fails.

    Args:
        adapters: the tree under weights["lora"], sharded over `mesh`.
        config: with `lora`.
        vocab_rows: how many rows of the padded vocabulary are written.
        base_model: path or name of the base, from which peft loads it.
        on_progress: called with bytes written and bytes in all.
    Cost: memory for the adapter of one matrix of a layer.
    """
    flat, of = flatten_dict(adapters, sep="/"), layouts(config.lora)
    places = {
        layout.name.format(layer): (path, layer if layout.is_stacked else None)
        for path, layout in of.items()
        for layer in range(config.layers if layout.is_stacked else 1)
    }
    sizes = _sizes(config.lora, config, vocab_rows)
    shapes = {name: of[places[name][0]].shape(sizes) for name in sorted(places)}
    padded = tuple(_sizes(config.lora, config, config.vocab_size).items())
    gathered = replicated(mesh) if jax.process_count() > 1 else None
    total, done = sum(4 * int(np.prod(shape, dtype=np.int64)) for shape in shapes.values()), 0

    def arrays() -> Iterator[np.ndarray]:
        nonlocal done
        for name, shape in shapes.items():
            path, layer = places[name]
            array = np.asarray(take(flat[path], layer, of[path], padded, "float32", gathered))
            yield array[tuple(slice(size) for size in shape)]
            done += 4 * int(np.prod(shape, dtype=np.int64))
            on_progress(done, total)

    if jax.process_index() == 0:
        write_file(folder / ADAPTER_WEIGHTS, shapes, np.dtype(np.float32), arrays())
        write_json(folder / ADAPTER_CONFIG, _fields(config.lora, base_model))
    else:
        for _ in arrays():
            pass  # every process takes part in gathering


def _fields(lora: Lora, base_model: str) -> dict[str, Any]:
    alpha = int(lora.alpha) if float(lora.alpha).is_integer() else lora.alpha
    return {
        "alpha_pattern": {},
        "auto_mapping": None,
        "base_model_name_or_path": base_model or None,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "layers_pattern": None,
        "layers_to_transform": None,
        "loftq_config": {},
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "megatron_config": None,
        "megatron_core": "megatron.core",
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": lora.rank,
        "rank_pattern": {},
        "revision": None,
        "target_modules": [_module(target).rpartition(".")[2] for target in lora.targets],
        "task_type": "CAUSAL_LM",
        "use_dora": lora.dora,
        "use_rslora": lora.rank_stabilized,
    }


def _sizes(lora: Lora, config: LlamaConfig, vocab_rows: int) -> dict[str, int]:
    return {**axis_sizes(config, vocab_rows), "r": lora.rank}
