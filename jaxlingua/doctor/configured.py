"""Whether a configuration would run here, as far as files, the hub, the disk and the environment tell."""

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxlingua.bucket import is_bucket
from jaxlingua.config import CheckpointConfig, Config, HuggingFaceSource
from jaxlingua.data.sources import HUB_NAME, OPENERS
from jaxlingua.doctor.finding import Finding, refused, size
from jaxlingua.doctor.machine import host_memory_bytes, nearest_folder
from jaxlingua.errors import CheckpointError, ConfigError, JaxlinguaError, TokenizerError
from jaxlingua.eval.tasks.entry import find_files, parse_entry
from jaxlingua.eval.tasks.library import read_prompts, read_task_file
from jaxlingua.hub import bytes_to_download
from jaxlingua.processes.environment import Place
from jaxlingua.tokens.stages import used_sources

# What `checkpoint.huggingface` and `tokens` want of a repository; of weights there may be two kinds of files.
WANTED = {
    "model.path": (["*.json", "*.safetensors", "tokenizer.model"], CheckpointError),
    "model.lora.adapter": (["adapter_config.json", "adapter_model.safetensors"], CheckpointError),
    "tokens.path": (["*.json", "tokenizer.model", "chat_template.jinja", "merges.txt"], TokenizerError),
}


def described(config: Config, name: str) -> Finding:
    """That it can be understood."""
    stages = ", ".join(stage.name for stage in config.stages) or "none"
    return Finding("ok", "config", f"{name}: stages {stages}; run.folder={config.run.folder}")


def sources(config: Config) -> Iterator[Finding]:
    """Whether the files of each source that is used are there and begin as data does; they are not read."""
    files: list[Path] = []
    wrong, of_hub = 0, []
    used = used_sources(config)
    for name in used:
        source = config.data.sources[name]
        opener = OPENERS.get(type(source))
        if opener is None:  # CLDR, which comes with a package
            continue
        if isinstance(source, HuggingFaceSource) and not (Path(config.data.folder) / source.path).exists():
            of_hub += [source.path] if HUB_NAME.fullmatch(source.path) else []
        try:
            files += opener(source, config.data.folder, f"data.sources.{name}")[1]
        except JaxlinguaError as error:
            wrong += 1
            yield refused("data", error)
    if not wrong:
        read = f", files of {size(sum(file.stat().st_size for file in files))}" if files else ""
        yield Finding("ok", "data", f"{_count(len(used), 'source')}{read}")
    if of_hub:
        yield Finding(
            "note",
            "data",
            f"{', '.join(of_hub)}: of the hub, not looked at",
            "'python -m jaxlingua.data' reads them",
        )


def tasks(config: Config) -> Iterator[Finding]:
    """Whether the files of each task are there, and what harness tasks need is installed."""
    wrong = 0
    for text in config.eval.tasks:
        name = text.partition(".")[0]
        if name in config.data.sources:
            continue
        try:
            entry = parse_entry(text, read_task_file(name, config.eval.task_folder))
            read_prompts(entry.task, config.eval.task_folder, entry.where)
            find_files(entry, config.eval.data_folder)
        except JaxlinguaError as error:
            wrong += 1
            yield refused("tasks", error)
    harness = config.eval.harness
    if harness.tasks and importlib.util.find_spec("lm_eval") is None:
        wrong += 1
        error = ConfigError(
            f"eval.harness.tasks: {len(harness.tasks)} given, and lm-eval is not installed; "
            f"pip install 'jaxlingua[harness]'"
        )
        yield refused("tasks", error)
    if not wrong:
        yield Finding("ok", "tasks", _count(len(config.eval.tasks) + len(harness.tasks), "task"))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def processes(place: Place | None) -> Iterator[Finding]:
    """Which one of several this is, as the environment says."""
    if place is not None:
        told = f"number {place.index} of {place.count}, by {place.found_in}; they meet at {place.coordinator}"
        yield Finding("ok", "processes", told)


def downloads(absent: dict[str, str]) -> Iterator[Finding]:
    """What has to come from the hub: whether it may, and whether the disk has room for it."""
    from huggingface_hub import constants

    for where, name in absent.items():
        patterns, error_type = WANTED[where]
        try:
            wanted = bytes_to_download(name, patterns, where, error_type)
        except JaxlinguaError as error:
            yield refused("hub", error)
            continue
        if not wanted:
            continue
        cache = Path(constants.HF_HUB_CACHE)
        free = shutil.disk_usage(nearest_folder(cache)).free
        told = f"{where}: {name} would be downloaded, {size(wanted)} at most"
        if wanted > free:
            yield Finding(
                "problem",
                "hub",
                f"{told}; {size(free)} are free in {cache}",
                "free some space, or set HF_HOME to a folder of a larger disk",
            )
        else:
            yield Finding(
                "note",
                "hub",
                f"{told}, and its memory is known only then",
                f"hf download {name}, and ask again",
            )


def room(config: Config, sizes: dict[str, Any], *, on_host: bool) -> Iterator[Finding]:
    """Whether the host's memory and the disk have room for what a run reads and saves.

    Args:
        sizes: bytes, by `on_devices`; {} where the model is not known.
        on_host: whether the devices have no memory of their own.
    """
    if not sizes:
        return
    if not on_host:
        yield _host_memory(sizes)
    if not is_bucket(config.run.folder):
        yield _disk(config, sizes)


def _host_memory(sizes: dict[str, Any]) -> Finding:
    """A checkpoint goes from the devices through the host's memory to the disk."""
    total, most = host_memory_bytes(), max(sizes.get("reading", 0), sizes["checkpoint"])
    told = f"a checkpoint takes {size(most)} of the host's {size(total)} while it is read or saved"
    if most <= total:
        return Finding("ok", "saving", told)
    return Finding(
        "problem",
        "saving",
        told,
        "take a machine with more, or train adapters (model.lora.rank=16), whose checkpoints are small",
    )


def _disk(config: Config, sizes: dict[str, Any]) -> Finding:
    """What `checkpoint` keeps, the step that is being written, and an export."""
    folder = Path(config.run.folder)
    there = sum(file.stat().st_size for file in folder.glob("checkpoints/**/*") if file.is_file())
    free = shutil.disk_usage(nearest_folder(folder)).free + there
    kept, one = kept_steps(config.checkpoint, len(config.stages)), sizes["checkpoint"]
    needed = (kept + 1) * one + sizes["export"]
    told = (
        f"{size(needed)} for {kept} checkpoints of {size(one)}, one that is being written, and an export, "
        f"of {size(free)} that are free in {nearest_folder(folder)}"
    )
    if free >= needed:
        return Finding("ok", "checkpoints", told)
    remedy = "free some space, choose another run.folder, or keep less: checkpoint.keep_last=1"
    if config.checkpoint.keep_stages and len(config.stages) > 1:
        remedy += " checkpoint.keep_stages=false"
    return Finding("note" if free >= 2 * one else "problem", "checkpoints", told, remedy)


def kept_steps(checkpoint: CheckpointConfig, stages: int) -> int:
    """How many checkpoints are kept at most.

    >>> kept_steps(CheckpointConfig(keep_last=2, keep_best=1), stages=3)
    5
    """
    return checkpoint.keep_last + checkpoint.keep_best + (max(0, stages - 1) if checkpoint.keep_stages else 0)
