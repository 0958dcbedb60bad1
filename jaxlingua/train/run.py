"""The run folder: what is refused before anything is spent, what a run was, and how it can be repeated."""

import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import yaml
from jax.sharding import Mesh
from pydantic import BaseModel

from jaxlingua import __version__
from jaxlingua.config import Config
from jaxlingua.data.records import RecordSource
from jaxlingua.errors import ConfigError, MachineError
from jaxlingua.eval.evaluate import SCORES_FILE
from jaxlingua.model.presets import LlamaConfig, llama_config, parameter_count
from jaxlingua.sharding.mesh import describe_mesh, make_mesh
from jaxlingua.sharding.rules import check_rows, count_micro_batches
from jaxlingua.tokens.describe import describe_source, describe_stage
from jaxlingua.tokens.documents import Group
from jaxlingua.tokens.interface import Tokenizer
from jaxlingua.tokens.stages import Stage, refuse_no_stage
from jaxlingua.tracking import ModelSize
from jaxlingua.train.held_out import HeldOutLoss

# Packages whose version can change what a run computes or how it is stored.
PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "transformers",
    "tokenizers",
    "sacrebleu",
    "babel",
)
DIFFERENCES_SHOWN = 5


def refuse_what_cannot_run(config: Config) -> None:
    """Check against devices and against each other what is known before any data is read.

    Raises: ConfigError, ShardingError or MachineError.
    """
    refuse_no_stage(config)
    if "://" in config.run.folder:
        raise ConfigError(
            f"run.folder: '{config.run.folder}' given; a folder of this machine is allowed; mount the bucket "
            f"(gcsfuse), or copy the finished run"
        )
    found = jax.default_backend()
    if config.run.platform not in ("auto", found):
        raise MachineError(
            f"run.platform: '{config.run.platform}' asked for, JAX finds only '{found}' devices; run "
            f"'python -m jaxlingua.doctor', or set run.platform={found}"
        )
    model = llama_config(config.model, vocab_size=1, remat=config.train.remat)
    if config.tokens.row_length_tokens > model.max_positions:
        raise ConfigError(
            f"tokens.row_length_tokens: {config.tokens.row_length_tokens} given; the model is meant for at "
            f"most {model.max_positions} positions; shorten the rows or set model.max_positions"
        )
    mesh = make_mesh(config.sharding)
    count_micro_batches(config.train.batch_rows, config.train.micro_batch_rows, mesh)
    check_rows("generate.batch_rows", config.generate.batch_rows, mesh)


def open_run_folder(config: Config) -> Path:
    """The folder of the run, with its config.yaml; a folder of another run is refused.

    Where checkpoints are there already, every field that is part of a run's identity must be the same; stages
    may be appended.

    Raises: ConfigError with the differences.
    """
    folder = Path(config.run.folder)
    kept = folder / "config.yaml"
    if kept.is_file() and any((folder / "checkpoints").glob("[0-9]*")):
        before = Config.model_validate(yaml.safe_load(kept.read_text("utf-8")))
        differences = list(identity_differences(before, config))
        if differences:
            shown = "; ".join(differences[:DIFFERENCES_SHOWN])
            more = len(differences) - DIFFERENCES_SHOWN
            raise ConfigError(
                f"{folder}: holds another run: {shown}{f' and {more} more' if more > 0 else ''}; "
                f"choose another run.folder, or go on with the values of {kept}"
            )
    if is_primary():
        folder.mkdir(parents=True, exist_ok=True)
        _replace(kept, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True))
    return folder


def identity_differences(before: Any, now: Any, where: str = "") -> Iterator[str]:
    """ "path: old there, new given" for each field of a run's identity in which two configurations differ.

    Of lists, which are those of stages, the second may be longer.
    """
    if isinstance(before, BaseModel) and type(before) is type(now):
        for name, field in type(before).model_fields.items():
            is_identity = (field.json_schema_extra or {}).get("on_resume") == "identity"
            if is_identity or isinstance(getattr(before, name), BaseModel):
                path = f"{where}.{name}" if where else name
                yield from identity_differences(getattr(before, name), getattr(now, name), path)
    elif isinstance(before, list) and where == "stages":
        for place, stage in enumerate(before):
            path = f"{where}[{place}]"
            if place < len(now):
                yield from identity_differences(stage, now[place], path)
            else:
                yield f"{path}: '{stage.name}' there, none given"
    elif isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*before, *now]):
            yield from identity_differences(before.get(key), now.get(key), f"{where}.{key}")
    elif before != now:
        yield f"{where}: {_short(before)} there, {_short(now)} given"


def write_facts(
    folder: Path,
    sources: Mapping[str, RecordSource],
    tokenizer: Tokenizer,
    stages: Sequence[Stage],
    mesh: Mesh,
) -> None:
    """provenance.json: versions, command, commit and hashes; data.json: what is learned and what is not.

    Raises: ConfigError if tokenizer or data are not those that the folder's checkpoints were made with.
    """
    path = folder / "provenance.json"
    fingerprints = {"tokenizer": tokenizer.fingerprint}
    fingerprints |= {f"data.sources.{name}": source.fingerprint for name, source in sources.items()}
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    started, resumed = now, []
    if path.is_file() and any((folder / "checkpoints").glob("[0-9]*")):
        before = json.loads(path.read_text("utf-8"))
        started, resumed = before["started"], [*before["resumed"], now]
        for name, fingerprint in fingerprints.items():
            kept = before["fingerprints"].get(name, fingerprint)
            if kept != fingerprint:
                raise ConfigError(
                    f"{folder}: {name} is not what the run began with (fingerprint {kept[:12]} there, "
                    f"{fingerprint[:12]} now); restore it, or choose another run.folder"
                )
    versions = {"jaxlingua": __version__, "python": platform.python_version()}
    versions |= {name: importlib.metadata.version(name) for name in PACKAGES}
    content = {
        "command": " ".join(["python -m jaxlingua.train", *sys.argv[1:]]),
        "repeat": f"python -m jaxlingua.train {folder} run.folder=ANOTHER",
        "started": started,
        "resumed": resumed,
        "devices": describe_mesh(mesh),
        "host": f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}",
        "git_commit": _git_commit(),
        "versions": versions,
        "tokenizer": tokenizer.fingerprint,
        "fingerprints": fingerprints,
    }
    write_json(path, content)
    described = [describe_source(source) for source in sources.values()]
    write_json(
        folder / "data.json", {"sources": described, "stages": [describe_stage(stage) for stage in stages]}
    )


def model_size(sizes: LlamaConfig) -> ModelSize:
    """What the model costs per token, for MFU."""
    return ModelSize(parameter_count(sizes), sizes.layers, sizes.heads, sizes.head_dim)


def held_out_every(config: Config, stage: Stage) -> int:
    """Steps between measurements of held-out loss."""
    every = config.train.held_out_every_steps
    return max(1, stage.batches.steps // 10) if every == "auto" else every


def held_out_line(losses: dict[Group, HeldOutLoss]) -> dict[str, float]:
    """Held-out losses under the names that they have in metrics.jsonl."""
    line = {}
    for (entry, language), loss in losses.items():
        line[f"held_out_loss/{entry}/{language}"] = loss.loss
        line[f"bits_per_byte/{entry}/{language}"] = loss.bits_per_byte
    return line


def cache_folder(config: Config, folder: Path) -> Path:
    """Where tokenised documents are kept."""
    return folder / "cache" if config.tokens.cache_folder == "auto" else Path(config.tokens.cache_folder)


def is_evaluated(folder: Path, stage: Stage) -> bool:
    """Whether the scores of a finished stage are on disk; they are written last."""
    return (folder / "evals" / f"{stage.config.name}-{stage.end_step}" / SCORES_FILE).is_file()


def write_json(path: Path, content: Any) -> None:
    """The whole file or none of it; by the first process alone."""
    if is_primary():
        _replace(path, json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n")


def is_primary() -> bool:
    """Whether this process writes files and speaks."""
    return jax.process_index() == 0


def _short(value: Any) -> str:
    text = json.dumps(
        value, ensure_ascii=False, default=lambda v: v.model_dump() if isinstance(v, BaseModel) else str(v)
    )
    return text if len(text) <= 60 else text[:59] + "…"


def _git_commit() -> str:
    """Commit of the checkout that jaxlingua runs from; "none" where it was installed from a wheel."""
    here = Path(__file__).parent
    try:
        commit = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
        ours = subprocess.run(
            ["git", "-C", str(here), "ls-files", "--error-unmatch", Path(__file__).name],
            capture_output=True, timeout=10, check=False,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return "none"
    return commit.stdout.strip() if ours.returncode == 0 else "none"


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8", newline="\n")
    os.replace(partial, path)
