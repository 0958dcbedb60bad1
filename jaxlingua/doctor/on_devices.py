"""The part of the doctor that starts JAX: `python -m jaxlingua.doctor.on_devices [--devices=N] [CONFIG …]`.

The last line of what it prints is one JSON object: what JAX sees, and with a configuration what training
would find before it reads any data, by the very functions that training calls. Nothing is downloaded. With
--devices it is told how many each process has, 0 where that is not known, and takes none of them.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import jax

from jaxlingua.bucket import exists, is_bucket
from jaxlingua.doctor.finding import Finding, refused, size
from jaxlingua.errors import JaxlinguaError, MachineError, one_line

if TYPE_CHECKING:
    from jax.sharding import AbstractMesh, Mesh

    from jaxlingua.config import Config
    from jaxlingua.model.presets import LlamaConfig
    from jaxlingua.tokens.interface import Tokenizer
    from jaxlingua.train.origin import Origin

Made = TypeVar("Made")


def answer(arguments: Sequence[str]) -> dict[str, Any]:
    """What is printed."""
    devices = None
    if arguments and arguments[0].startswith("--devices="):
        devices, arguments = int(arguments[0].partition("=")[2]), arguments[1:]
    told: dict[str, Any] = {"seen": seen()}
    if arguments:
        from jaxlingua.command_line import load_config

        looked = Looked()
        try:
            look(load_config(arguments[0], list(arguments[1:])), looked, devices)
        except Exception as error:  # all that was seen before it is told all the same
            message = f"{type(error).__name__}: {one_line(error)[:300]}"
            looked.findings.append(
                Finding("problem", "run", message, "training would end with it too", is_end=True)
            )
        told["findings"] = [asdict(finding) for finding in looked.findings]
        told["absent"], told["sizes"] = looked.absent, looked.sizes
    return told


def seen() -> dict[str, Any]:
    """The devices; a backend that does not count memory has no stats."""
    devices = jax.local_devices()
    stats = devices[0].memory_stats() or {}
    return {
        "backend": jax.default_backend(),
        "kind": devices[0].device_kind,
        "devices": len(devices),
        "all_devices": jax.device_count(),
        "processes": jax.process_count(),
        "bytes": stats.get("bytes_limit"),
    }


class _Refused(Exception):
    """Training would end here, and what comes after it was not looked at."""


@dataclass
class Looked:
    """What was found so far.

    `absent` has the hub names that are not in the cache, by the option they were given for; `sizes` bytes of
    what is read and written, where the model is known.
    """

    findings: list[Finding] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)

    def ok(self, what: str, told: str) -> None:
        self.findings.append(Finding("ok", what, told))

    @contextmanager
    def checking(self, what: str, remedy: str = "", *, is_last: bool = False) -> Iterator[None]:
        """Tell of what training would refuse, and look no further.

        Args:
            remedy: in place of training's own.
            is_last: whether there is nothing further to look at.
        """
        try:
            yield
        except JaxlinguaError as error:
            finding = replace(refused(what, error), is_end=not is_last)
            self.findings.append(replace(finding, remedy=remedy or finding.remedy))
            raise _Refused from None

    def of_hub(self, names: Mapping[str, str], open_: Callable[[], Made]) -> Made | None:
        """What `open_` gives; None where not all of it is in the cache of the hub.

        Args:
            names: by the option they were given for.
        """
        try:
            return open_()
        except MachineError:
            of_hub = {where: name for where, name in names.items() if not Path(name).expanduser().is_dir()}
            if not of_hub:
                raise
            self.absent |= of_hub
            return None


def look(config: "Config", looked: Looked, devices: int | None = None) -> None:
    """Everything, in the order in which training would refuse it.

    Args:
        devices: of each process, where JAX is not to be asked; 0 where they are not known.
    """
    from jaxlingua.processes.environment import find_processes
    from jaxlingua.sharding.mesh import describe_mesh, make_mesh
    from jaxlingua.train import run

    with suppress(_Refused):
        with looked.checking("stages"):
            run.refuse_no_stage(config)
        with looked.checking("processes"):
            place = find_processes(config.sharding.processes)
        if devices is None:
            devices = jax.local_device_count()
            found = jax.default_backend()
            remedy = f"take a machine of which 'backend' above tells them, or set run.platform={found}"
            with looked.checking("platform", remedy):  # training says to ask the doctor
                run.refuse_wrong_platform(config)
            looked.ok("platform", f"run.platform={config.run.platform}, JAX finds {found} devices")
        step, is_here = _resumed(config, looked)
        if place is not None and place.count > 1:
            _tell_of_several(config, place.count, devices, looked)
            return
        with looked.checking("mesh"):
            mesh = make_mesh(config.sharding)
        looked.ok("mesh", describe_mesh(mesh, config.sharding.slices))
        with looked.checking("rows"):
            _check_rows(config, mesh, looked)
        if is_here:
            _look_at_model(config, mesh, step, looked)
        if not looked.absent:  # what is left of what training checks
            with looked.checking("run", is_last=True):
                run.refuse_what_cannot_run(config)


def _resumed(config: "Config", looked: Looked) -> tuple[int | None, bool]:
    """The step that a run goes on from, None where it begins; whether all that it goes on with is here."""
    from jaxlingua.checkpoint.steps import numbered_steps
    from jaxlingua.checkpoint.store import located
    from jaxlingua.train.branch import branch_source
    from jaxlingua.train.run_folder import lock_folder, refuse_other_run

    folder = config.run.folder
    if is_bucket(folder):
        with looked.checking("run folder"):
            holds = exists(f"{folder.rstrip('/')}/provenance.json")
        which = "it holds a run, which training fetches and compares" if holds else "the run would begin"
        looked.ok("run folder", f"{folder} can be reached, {which}")
        return None, not holds
    with looked.checking("run folder"):
        source = branch_source(config.run)
        saved = numbered_steps(located(f"{folder}/checkpoints"))
        refuse_other_run(config, Path(folder), saved)
        if (Path(folder) / ".lock").is_file():  # else nobody trains there, and looking must not write
            with lock_folder(Path(folder), lambda sentence: None):
                pass
    if source is not None:
        looked.ok("run folder", f"{folder} would begin as a copy of {source}")
        return max(numbered_steps(located(f"{source}/checkpoints")), default=None), True
    if not saved:
        looked.ok("run folder", f"{folder}, the run would begin")
        return None, True
    looked.ok("run folder", f"{folder} holds this run, which would go on from step {max(saved):,}")
    return max(saved), True


def _check_rows(config: "Config", mesh: "Mesh | AbstractMesh", looked: Looked) -> None:
    from jaxlingua.sharding.rules import check_rows, count_micro_batches

    rows = config.train.batch_rows
    passes = count_micro_batches(rows, config.train.micro_batch_rows, mesh)
    check_rows("generate.batch_rows", config.generate.batch_rows, mesh)
    in_passes = f", in {passes:,} passes" if passes > 1 else ""
    looked.ok("rows", f"{rows:,} of {config.tokens.row_length_tokens:,} tokens a step{in_passes}")


def _tell_of_several(config: "Config", processes: int, devices: int, looked: Looked) -> None:
    """What is known of several processes, of so many devices each (0: not known); they are not waited for."""
    from jax.sharding import AbstractMesh

    from jaxlingua.sharding.mesh import AXES, mesh_sizes

    if not devices:
        told = "not looked at, since it is not known how many devices a process has"
        looked.findings.append(Finding("note", "mesh", told, "run this outside of the container"))
        return
    slices = config.sharding.slices
    if slices == "auto":
        slices = int(os.environ.get("MEGASCALE_NUM_SLICES", "1"))
    given = {axis: getattr(config.sharding.mesh, axis) for axis in AXES}
    with looked.checking("mesh"):
        sizes = mesh_sizes(given, processes * devices, slices)
    shown = " ".join(f"{axis}={size}" for axis, size in sizes.items())
    looked.ok("mesh", f"{shown}, if each of {processes} processes has {devices} devices")
    with looked.checking("rows"):
        _check_rows(config, AbstractMesh(tuple(sizes.values()), AXES), looked)
    told = "not looked at, since the other processes are not waited for"
    remedy = "'python -m jaxlingua.plan' tells that of a whole slice"
    looked.findings.append(Finding("note", "memory", told, remedy))


# ── the model ────────────────────────────────────────────────────────────────


def _look_at_model(config: "Config", mesh: "Mesh", step: int | None, looked: Looked) -> None:
    """The model, its tokenizer, and whether the step fits."""
    from jaxlingua.model.presets import parameter_count
    from jaxlingua.train import run
    from jaxlingua.train.branch import branch_source
    from jaxlingua.train.origin import open_origin

    folder = branch_source(config.run) or Path(config.run.folder)
    with looked.checking("model"):
        origin = looked.of_hub(_names(config), lambda: open_origin(config, Path(folder), step))
        if origin is not None:
            run.refuse_what_does_not_fit(config, origin)
    with looked.checking("tokenizer"):
        tokenizer = _tokenizer(config, Path(folder), step, looked)
    if origin is None:
        return
    with looked.checking("tokenizer"):
        sizes = origin.sizes(_vocab_rows(config, origin, tokenizer))
    looked.ok("model", f"{parameter_count(sizes):,} parameters, {_where_from(config, step)}")
    with looked.checking("memory"):
        _check_memory(config, origin, sizes, mesh, looked)


def _names(config: "Config") -> dict[str, str]:
    """What is opened for the model, by its option."""
    names = {"model.path": config.model.path}
    if config.model.lora != "off":
        names["model.lora.adapter"] = config.model.lora.adapter
    return {where: name for where, name in names.items() if name}


def _tokenizer(config: "Config", folder: Path, step: int | None, looked: Looked) -> "Tokenizer | None":
    """None where it is learned, or is not here."""
    from jaxlingua.tokens.tokenizer import is_learned, load_tokenizer

    if is_learned(config.tokens, config.model.path):
        looked.ok("tokenizer", f"learned on the training text, {config.tokens.vocab_size:,} pieces")
        return None
    path = config.tokens.path or config.model.path
    kept = folder / "tokenizer" if step is not None else None
    tokenizer = looked.of_hub(
        {"tokens.path" if config.tokens.path else "model.path": path},
        lambda: load_tokenizer(config.tokens, list, kept, model_path=config.model.path),
    )
    if tokenizer is not None:
        looked.ok("tokenizer", f"{tokenizer.vocab_size:,} pieces, of {kept or path}")
    return tokenizer


def _vocab_rows(config: "Config", origin: "Origin", tokenizer: "Tokenizer | None") -> int:
    """Of a tokenizer that is not here or not learned yet, what it will have or the smallest one."""
    from jaxlingua.tokens.tokenizer import is_learned

    if tokenizer is not None:
        return origin.vocab_rows(tokenizer)
    if origin.public_sizes is not None:
        return origin.public_sizes.vocab_size
    return config.tokens.vocab_size if is_learned(config.tokens, config.model.path) else 1


def _where_from(config: "Config", step: int | None) -> str:
    if step is not None:
        return f"of step {step:,}"
    return config.model.path or f"drawn ({config.model.preset})"


def _check_memory(
    config: "Config", origin: "Origin", sizes: "LlamaConfig", mesh: "Mesh", looked: Looked
) -> None:
    """Refuse what training would, and tell what is close; sizes of what is read and written."""
    from jaxlingua.model.presets import parameter_count
    from jaxlingua.sharding.memory import Placing, frozen_bytes, planned_memory
    from jaxlingua.sharding.rules import count_micro_batches
    from jaxlingua.train.fit import capacity_bytes, no_remedy, refuse_no_room, remedies, warning, with_stages

    train, device = config.train, mesh.devices.flat[0]
    whole = dict.fromkeys(mesh.shape, 1)

    def memory_of(shape: dict[str, int]) -> Any:
        placing = Placing(
            shape, device.platform, device.device_kind, train.batch_rows,
            count_micro_batches(train.batch_rows, train.micro_batch_rows, mesh),
            config.tokens.row_length_tokens, train.loss_chunk_tokens,
        )  # fmt: skip
        return with_stages(planned_memory(sizes, train.optimizer, placing), config.stages)

    state = memory_of(whole)
    base = frozen_bytes(sizes, whole)
    looked.sizes["checkpoint"] = state.parameters + state.optimizer + state.anchor + state.frozen - base
    itemsize = 4 if config.checkpoint.export.dtype == "float32" else 2
    if config.checkpoint.export.dtype == "auto" and config.model.init == "scratch":
        itemsize = 4
    looked.sizes["export"] = parameter_count(sizes) * itemsize
    if origin.public is not None:
        looked.sizes["reading"] = _reading_bytes(origin)
    refuse_no_room(config, sizes, mesh)
    memory, capacity = memory_of(dict(mesh.shape)), capacity_bytes(mesh)
    if said := warning(memory, mesh):
        found = [f"{each.change} ({size(each.total_bytes)})" for each in
                 remedies(config, sizes, mesh, capacity)]  # fmt: skip
        told = "what helps: " + ", ".join(found) if found else no_remedy(config, sizes, mesh)
        looked.findings.append(Finding("note", "memory", said, told))
        return
    of = "" if capacity is None else f" of {size(capacity)}"
    looked.ok("memory", f"{size(memory.total)}{of} per device by arithmetic")


def _reading_bytes(origin: "Origin") -> int:
    """Host memory in which a public checkpoint is read, as `load_params` tells it.

    Some five tensors of a layer, and the embedding in the type of the file and once more in float32.
    """
    vocab = origin.public_sizes.vocab_size
    tensors = list(origin.public.tensors.values())
    largest = max((tensor.size for tensor in tensors if vocab not in tensor.shape), default=0)
    embedding = max((tensor.size for tensor in tensors if vocab in tensor.shape), default=0)
    return 5 * largest + embedding + 4 * vocab * origin.public_sizes.embed


if __name__ == "__main__":
    print(f"\n{json.dumps(answer(sys.argv[1:]))}")
