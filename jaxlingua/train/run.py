"""What is refused before anything is spent, and what the page asks of a run."""

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

import jax
from flax import linen as nn
from jax.sharding import Mesh

from jaxlingua.bucket import is_bucket
from jaxlingua.checkpoint.steps import numbered_steps
from jaxlingua.checkpoint.store import located
from jaxlingua.config import CheckpointConfig, Config
from jaxlingua.errors import ConfigError, MachineError
from jaxlingua.generate.engine import prompt_room
from jaxlingua.model.llama import Llama, attention_of_rows
from jaxlingua.model.presets import LlamaConfig, parameter_count
from jaxlingua.sharding.memory import adapter_count
from jaxlingua.sharding.mesh import make_mesh
from jaxlingua.sharding.rules import (
    abstract_params,
    check_rows,
    count_micro_batches,
    param_shardings,
    sharding_context,
)
from jaxlingua.tokens.documents import Group
from jaxlingua.tokens.stages import Stage, refuse_no_stage
from jaxlingua.tokens.tokenizer import is_learned
from jaxlingua.tracking import ModelSize
from jaxlingua.train.averaging import holds_out
from jaxlingua.train.branch import branch_source
from jaxlingua.train.compiler_options import compiler_options, refuse_unknown_options
from jaxlingua.train.earlier import refuse_adapters
from jaxlingua.train.fit import refuse_no_room
from jaxlingua.train.held_out import HeldOutLoss
from jaxlingua.train.learned import Learned
from jaxlingua.train.origin import Origin, open_origin
from jaxlingua.train.state import parted


def refuse_what_cannot_run(config: Config) -> None:
    """Check against devices and against each other what is known before any data is read.

    Raises: ConfigError, ShardingError or MachineError.
    """
    refuse_no_stage(config)
    refuse_wrong_platform(config)
    if config.tracking.wandb_project and importlib.util.find_spec("wandb") is None:
        raise ConfigError(
            f"tracking.wandb_project: '{config.tracking.wandb_project}' given, wandb is not installed; "
            f"pip install 'jaxlingua[wandb]', or leave it empty"
        )
    mesh = make_mesh(config.sharding)
    count_micro_batches(config.train.batch_rows, config.train.micro_batch_rows, mesh)
    check_rows("generate.batch_rows", config.generate.batch_rows, mesh)
    refuse_unknown_options(compiler_options(config.train.compiler_options, mesh.devices.flat[0].device_kind))
    folder = str(branch_source(config.run) or config.run.folder)
    if not is_bucket(folder):  # a copy of that one is not here yet
        step = max(numbered_steps(located(f"{folder}/checkpoints")), default=None)
        origin = open_origin(config, Path(folder), step)
        refuse_what_does_not_fit(config, origin)
        refuse_too_little_memory(config, origin)


def refuse_what_does_not_fit(config: Config, origin: Origin, mesh: Mesh | None = None) -> None:
    """Check the model against rows, prompts and devices, before any data is read.

    Args:
        mesh: that of the devices that are here unless given.

    Raises: ConfigError or ShardingError.
    """
    # The vocabulary is not known yet; any padded one can be spread like any other.
    model = origin.sizes(vocab_rows=1)
    if config.tokens.row_length_tokens > model.max_positions:
        other = " or set model.max_positions" if config.model.init == "scratch" else ""
        raise ConfigError(
            f"tokens.row_length_tokens: {config.tokens.row_length_tokens} given; the model is meant for at "
            f"most {model.max_positions} positions; shorten the rows{other}"
        )
    refuse_adapters(config.stages, model)
    if config.eval.tasks:
        prompt_room(model, config.generate.max_new_tokens)
    mesh = make_mesh(config.sharding) if mesh is None else mesh
    param_shardings(Llama(model), mesh)
    is_known = origin.public_sizes is not None and config.model.new_tokens == "refuse"
    refuse_unknown_frozen(config, origin, mesh, origin.public_sizes.vocab_size if is_known else None)
    with sharding_context(mesh):
        attention_of_rows(model, config.tokens.row_length_tokens)


def refuse_unknown_frozen(config: Config, origin: Origin, mesh: Mesh, vocab_rows: int | None) -> None:
    """Check patterns of frozen parameters against the model.

    Args:
        vocab_rows: of the embedding that mean something; None where they are not known yet, and then numbers
            of rows are taken as they are.

    Raises: ConfigError.
    """
    if not any(stage.frozen for stage in config.stages):
        return
    params, _ = parted(nn.unbox(abstract_params(Llama(origin.sizes(vocab_rows or 1)), mesh)))
    for stage in config.stages:
        Learned(tuple(stage.frozen)).check(params, stage.name, vocab_rows)


def refuse_too_little_memory(config: Config, origin: Origin) -> None:
    """Check the step against the memory of the devices that are here, before any data is read.

    Where the vocabulary depends on a tokenizer that is not read yet, the smallest one is assumed.

    Raises: ConfigError with what to change.
    """
    rows = 1
    if origin.public_sizes is not None:
        rows = origin.public_sizes.vocab_size
    elif is_learned(config.tokens, config.model.path):
        rows = config.tokens.vocab_size
    refuse_no_room(config, origin.sizes(rows), make_mesh(config.sharding))


def refuse_unknown_best(config: CheckpointConfig, stages: Sequence[Stage]) -> None:
    """Raises: ConfigError where `checkpoint.keep_best` goes by something that some stage does not measure."""
    for stage in stages if config.keep_best else ():
        groups = stage.held_out.group_names if stage.held_out else ()
        measured = held_out_line({group: HeldOutLoss(0.0, 0.0, 0, 0) for group in groups}) if groups else {}
        if config.best_by not in measured:
            raise ConfigError(
                f"checkpoint.best_by: '{config.best_by}' given; stage '{stage.config.name}' measures "
                f"{', '.join(measured) or 'no held-out loss'}; choose one of these, or set "
                f"checkpoint.keep_best=0"
            )


def refuse_unmeasured_average(stages: Sequence[Stage]) -> None:
    """Raises: ConfigError where the share of an average is to be chosen by a loss that nothing measures."""
    for stage in stages:
        if stage.config.average == "auto" and not holds_out(stage):
            raise ConfigError(
                f"stage '{stage.config.name}', average: auto given, and its sources hold nothing out, by "
                f"whose loss the share would be chosen; give a share such as 0.5, or raise held_out_records "
                f"of a source"
            )


def refuse_wrong_platform(config: Config) -> None:
    """Raises: MachineError where JAX has not the devices that `run.platform` asks for."""
    try:
        found = jax.default_backend()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0] or "no reason given"
        raise MachineError(
            f"JAX_PLATFORMS={os.environ.get('JAX_PLATFORMS', '')}: JAX cannot start it ({reason[:200]}); run "
            f"'python -m jaxlingua.doctor'"
        ) from None
    if config.run.platform not in ("auto", found):
        raise MachineError(
            f"run.platform: '{config.run.platform}' asked for, JAX finds only '{found}' devices; run "
            f"'python -m jaxlingua.doctor', or set run.platform={found}"
        )


def model_size(sizes: LlamaConfig) -> ModelSize:
    """What the model costs per token, for MFU."""
    return ModelSize(parameter_count(sizes), sizes.layers, sizes.heads, sizes.head_dim, adapter_count(sizes))


def held_out_every(config: Config, stage: Stage) -> int:
    """Steps between measurements of held-out loss."""
    every = config.train.held_out_every_steps
    return max(1, stage.batches.steps // 10) if every == "auto" else every


def held_out_line(losses: dict[Group, HeldOutLoss]) -> dict[str, float]:
    """Held-out losses under the names that they have in metrics.jsonl."""
    line = {"held_out_loss": sum(loss.loss for loss in losses.values()) / len(losses)}
    for (entry, language), loss in losses.items():
        line[f"held_out_loss/{entry}/{language}"] = loss.loss
        line[f"bits_per_byte/{entry}/{language}"] = loss.bits_per_byte
    return line


def cache_folder(config: Config, folder: Path) -> Path:
    """Where tokenized documents are kept."""
    return folder / "cache" if config.tokens.cache_folder == "auto" else Path(config.tokens.cache_folder)
