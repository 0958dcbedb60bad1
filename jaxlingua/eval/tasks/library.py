"""Task files and prompts by name: those that come with jaxlingua and those of `eval.task_folder`."""

import functools
from importlib import resources
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from jaxlingua.command_line import check_map, parse_yaml
from jaxlingua.config import task_files
from jaxlingua.data.readers import read_text
from jaxlingua.errors import ConfigError, nearest
from jaxlingua.eval.tasks.schema import PromptSet, TaskFile

Model = TypeVar("Model", bound=BaseModel)
PROMPTS = Path(str(resources.files("jaxlingua.eval.tasks"))) / "prompts"


def read_task_file(name: str, folder: str) -> TaskFile:
    """The task file `name`. Raises: ConfigError with the first thing that is wrong in it."""
    return _read(TaskFile, task_files(folder)[name])


def read_prompts(task: TaskFile, folder: str, where: str) -> PromptSet:
    """The prompts of a task: its own, those it names, or those of its kind.

    Raises: ConfigError for a name that no file of prompts has, or that two have.
    """
    if isinstance(task.prompts, PromptSet):
        return task.prompts
    name = task.prompts or task.kind
    homes = [PROMPTS, *([Path(folder) / "prompts"] if folder else [])]
    files = [home / f"{name}.yaml" for home in homes if (home / f"{name}.yaml").is_file()]
    if len(files) > 1:
        raise ConfigError(
            f"{where}: prompts '{name}' are in '{files[0]}' and '{files[1]}'; rename the second"
        )
    if not files:
        known = sorted(file.stem for home in homes if home.is_dir() for file in home.glob("*.yaml"))
        raise ConfigError(f"{where}: no prompts '{name}'; {nearest(name, known)}")
    return _read(PromptSet, files[0])


@functools.cache
def _read_once(model: type[BaseModel], path: Path, changed: int) -> BaseModel:
    content = parse_yaml(read_text(path, "eval.task_folder"), str(path))
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: no map of keys given; see the keys of another file, such as xquad.yaml")
    return check_map(model, content, path.name)


def _read(model: type[Model], path: Path) -> Model:
    return _read_once(model, path, path.stat().st_mtime_ns)
