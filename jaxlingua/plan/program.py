"""A configuration and a topology to the step that training runs, lowered; what the compiler says of it."""

import importlib.metadata
import math
import os
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxlingua.checkpoint.huggingface.adapter import open_adapter
from jaxlingua.checkpoint.huggingface.config_json import read_config
from jaxlingua.checkpoint.huggingface.model import CONFIG, read_json
from jaxlingua.config import Config, DataConfig, OptimizerConfig, StageConfig, source_languages
from jaxlingua.errors import CheckpointError
from jaxlingua.hub import find_folder
from jaxlingua.model import presets
from jaxlingua.model.llama import Llama
from jaxlingua.model.lora import resolved
from jaxlingua.model.presets import PRESETS, LlamaConfig
from jaxlingua.plan.executable import schedule_text
from jaxlingua.plan.store import Compiled
from jaxlingua.plan.topology import Topology, devices
from jaxlingua.progress import duration
from jaxlingua.sharding.memory import bytes_per_device
from jaxlingua.sharding.mesh import make_mesh
from jaxlingua.sharding.rules import batch_sharding, check_rows, count_micro_batches
from jaxlingua.tokens.rows import Batch
from jaxlingua.tokens.stages import refuse_no_stage
from jaxlingua.tokens.tokenizer import is_learned
from jaxlingua.train.anchors import is_taught, remembered_by
from jaxlingua.train.compiler_options import compiler_options, refuse_options
from jaxlingua.train.earlier import Earlier, earlier_adapters
from jaxlingua.train.learned import Learned
from jaxlingua.train.method import make_objective
from jaxlingua.train.optimizer import make_optimizer
from jaxlingua.train.origin import Origin
from jaxlingua.train.run import refuse_unknown_frozen, refuse_what_does_not_fit
from jaxlingua.train.state import TrainState, abstract_state, shardings_of
from jaxlingua.train.step import make_train_step

PACKAGES = ("jax", "jaxlib", "libtpu")
SECONDS_BETWEEN_LINES = 20.0
# How long a stage is whose epochs only the data can turn into steps; its steps are alike whatever it is.
_ASSUMED_STEPS = 1000
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True)
class Program:
    """A training step, lowered for devices that are not here: that of the stage which remembers most."""

    lowered: Any
    mesh: Mesh
    sizes: LlamaConfig
    state: TrainState  # abstract, with shardings
    micro_batches: int
    options: dict[str, bool | int | str]  # of the compiler


def versions() -> dict[str, str]:
    """Of what decides the outcome of a compilation."""
    return {package: importlib.metadata.version(package) for package in PACKAGES}


# ── configuration to lowered step ──────────────────────────────────────────────────────────────────────────


def lower_step(config: Config, topology: Topology) -> Program:
    """The very step that training runs, from shapes alone: nothing is read, drawn or placed.

    Raises: what training raises where mesh, model, rows or stages do not go together.
    """
    refuse_no_stage(config)
    mesh = make_mesh(config.sharding, devices(topology))
    micro_batches = count_micro_batches(config.train.batch_rows, config.train.micro_batch_rows, mesh)
    check_rows("generate.batch_rows", config.generate.batch_rows, mesh)
    origin = planned_origin(config)
    refuse_what_does_not_fit(config, origin, mesh)
    vocab_size = planned_vocab_size(config, origin)
    refuse_unknown_frozen(config, origin, mesh, vocab_size)
    sizes = origin.sizes(vocab_size)
    stage, earlier, state = _most_demanding(config, Llama(sizes), mesh)
    optimizer, schedule = make_optimizer(config.train.optimizer, planned_steps(stage, config.train.optimizer))
    learned, model = Learned(tuple(stage.frozen)), Llama(sizes := earlier.sizes(sizes))
    groups = group_count(stage, config.data)
    objective = make_objective(stage, groups, vocab_size, config.train.loss_chunk_tokens)
    options = compiler_options(config.train.compiler_options, mesh.devices.flat[0].device_kind)
    step = make_train_step(
        model, optimizer, schedule, objective, shardings_of(state), micro_batches, options, learned=learned,
        anchor=stage.anchored,
    )  # fmt: skip
    batch = abstract_batch(config.train.batch_rows, config.tokens.row_length_tokens, mesh)
    return Program(step.lower(state, batch), mesh, sizes, state, micro_batches, options)


def _most_demanding(config: Config, model: Llama, mesh: Mesh) -> tuple[StageConfig, Earlier, TrainState]:
    """The stage with the largest state, and of equal ones the first that is held to another model's answers.

    Args:
        model: with one adapter, if any.
    """
    found = []
    for stage, earlier in zip(config.stages, earlier_adapters(config.stages), strict=True):
        optimizer, _ = make_optimizer(config.train.optimizer, planned_steps(stage, config.train.optimizer))
        learned = Learned(tuple(stage.frozen))
        state = abstract_state(model, optimizer, mesh, learned, remembered_by(stage), earlier)
        found.append((stage, earlier, state))
    return max(found, key=lambda each: (bytes_per_device(each[2]), is_taught(each[0])))


def planned_origin(config: Config) -> Origin:
    """What the model begins from, as far as its sizes go: of a public checkpoint no more than config.json.

    A published name that has a preset needs not even that.
    """
    folder, path = Path(config.run.folder), config.model.path
    if config.model.init == "scratch":
        return Origin(config, folder, None, None)
    is_here = Path(path).expanduser().is_dir()
    public = None if is_here else presets.published_sizes(path)
    if public is None:
        found = find_folder(path, [CONFIG], where="model.path", error=CheckpointError)
        public = read_config(read_json(found / CONFIG), str(found))
    first = None
    if config.model.lora != "off" and config.model.lora.adapter:
        first = open_adapter(config.model.lora.adapter).lora
    return Origin(config, folder, None, public, resolved(config.model, first))


def planned_vocab_size(config: Config, origin: Origin) -> int:
    """Pieces of the tokenizer, which is not loaded: to be learned, of the checkpoint, or of the preset."""
    if origin.public_sizes is not None:
        return origin.public_sizes.vocab_size
    if is_learned(config.tokens, config.model.path):
        return config.tokens.vocab_size
    return PRESETS[config.model.preset].vocab_size


def planned_steps(stage: StageConfig, optimizer: OptimizerConfig) -> int:
    """Length of a stage; where only its epochs are known some number in which warm-up and decay find room."""
    if stage.steps != "auto":
        return stage.steps
    rise = 0 if optimizer.warmup_steps == "auto" else optimizer.warmup_steps
    fall = optimizer.decay_ratio if optimizer.schedule == "wsd" else 0.0
    return max(_ASSUMED_STEPS, math.ceil((rise + 1) / max(1.0 - fall, 0.01)))


def group_count(stage: StageConfig, data: DataConfig) -> int:
    """How many (mixture entry, language of the answer) pairs a stage declares."""
    count = 0
    for name, entry in stage.mixture.items():
        source = data.sources[name if entry.source == "auto" else entry.source]
        languages = source_languages(source)
        is_parallel = source.kind == "parallel" or getattr(source, "yields", "") == "translation"
        if is_parallel and entry.task != "text":
            count += len({target for _, target in entry.directions()} or languages)
        else:
            count += len(languages) if entry.language == "auto" else 1
    return count


def abstract_batch(rows: int, row_length_tokens: int, mesh: Mesh) -> Batch:
    """Shapes of a batch as `sharding.feed` places it."""
    sharding = batch_sharding(mesh)

    def shape(name: str) -> jax.ShapeDtypeStruct:
        dtype = jnp.bool_ if name == "target_mask" else jnp.int32
        return jax.ShapeDtypeStruct((rows, row_length_tokens), dtype, sharding=sharding)

    return Batch(*(shape(name) for name in Batch._fields))


# ── lowered step to what the compiler says ─────────────────────────────────────────────────────────────────


def identity(program: Program, topology: Topology) -> dict[str, Any]:
    """All that decides what the compiler says, besides the text of the lowered step."""
    return {
        "topology": topology.name,
        "slices": topology.slices,
        "devices": [device.id for device in program.mesh.devices.flat],
        "options": program.options,
        "environment": {name: os.environ.get(name, "") for name in ("LIBTPU_INIT_ARGS", "XLA_FLAGS")},
        "versions": versions(),
    }


def compile_step(lowered: Any) -> Compiled:
    """Hand the step to the TPU compiler, which needs no TPU. A step that does not fit is no error.

    Raises: ConfigError for options that the compiler does not know.
    Cost: 4 s for a tiny model, 40 s to 4 min for 7 billion parameters, 1 to 2 GB.
    """
    start = time.perf_counter()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        wanted = wanted_bytes(str(error))
        if wanted is None:
            refuse_options(str(error))
            raise
        return Compiled(False, wanted, 0, 0, 0, 0, 0, time.perf_counter() - start, "", "it does not fit")
    memory, seconds = compiled.memory_analysis(), time.perf_counter() - start
    text, no_text = "", ""
    try:
        text = schedule_text(compiled)
    except jax.errors.JaxRuntimeError as error:  # it cannot be printed
        no_text = str(error).split("\n")[0][:300]
    return Compiled(
        fits=True,
        peak=memory.peak_memory_in_bytes,
        arguments=memory.argument_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        outputs=memory.output_size_in_bytes,
        aliased=memory.alias_size_in_bytes,
        code=memory.generated_code_size_in_bytes,
        seconds=seconds,
        text=text or "",
        no_text=no_text,
    )


def wanted_bytes(message: str) -> int | None:
    """What a refused program would hold in all, arguments included; None where memory is not the reason.

    The compiler calls all of it temporaries: 20 GiB of arguments and nothing else read the same.

    Example:
        >>> wanted_bytes("CompileTimeHbmOom: … required for HLO temporaries (20.00G) exceeds available HBM …")
        21474836480
    """
    if "CompileTimeHbmOom" not in message and "memory space hbm" not in message:
        return None
    found = re.search(r"([\d.]+)([KMGT]?)\)? (?:exceeds available|of [\d.]+[KMGT]? hbm)", message)
    return int(float(found[1]) * _UNITS[found[2]]) if found else None


def told_while(say: Callable[[str], None], what: str, work: Callable[[], Any]) -> Any:
    """What `work` returns or raises; says every now and then for how long it has been going on.

    It is done in a thread, since the compiler does not listen to Ctrl-C and this one does.
    """
    start, outcome = time.perf_counter(), Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:  # raised again in the caller's thread
            outcome.set_exception(error)

    threading.Thread(target=run, name="jaxlingua-plan", daemon=True).start()
    while not wait([outcome], SECONDS_BETWEEN_LINES).done:
        say(f"{what}: {duration(time.perf_counter() - start)} so far")
    result = outcome.result()
    say(f"{what}: {duration(time.perf_counter() - start)}")
    return result
