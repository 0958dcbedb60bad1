"""Opens the model of eval.in_context.translate_test: items are translated before any model answers them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from jaxlingua.bucket import is_bucket
from jaxlingua.checkpoint.huggingface.adapter import is_adapter, open_adapter
from jaxlingua.checkpoint.huggingface.model import open_model
from jaxlingua.checkpoint.steps import numbered_steps
from jaxlingua.checkpoint.store import located
from jaxlingua.command_line import load_config
from jaxlingua.config import Config
from jaxlingua.errors import ConfigError, JaxlinguaError
from jaxlingua.eval.in_context.translated import check_translatable, translated_tasks
from jaxlingua.eval.tasks.item import Task
from jaxlingua.train.open_model import other_model

Progress = Callable[[int, int], None]
_WHERE = "eval.in_context.translate_test"


def check_translate_test(tasks: Sequence[Task], config: Config) -> None:
    """Find what would stop the translation of items, before any model is opened.

    A model of the hub is downloaded; of weights no more than the headers are read.

    Raises: ConfigError for tasks that mean nothing in another language; for a name that is no model's, what
        it cannot be opened for.
    """
    name = config.eval.in_context.translate_test
    if not name:
        return
    check_translatable(tasks, config)
    with _told():
        if _is_run(name):
            load_config(name)
            if not numbered_steps(located(f"{name}/checkpoints")):
                raise ConfigError(f"'{name}' given, a run that has saved nothing; give another")
        elif is_adapter(name):
            open_adapter(name)
        else:
            open_model(name)


def translated(
    tasks: Sequence[Task],
    config: Config,
    folder: Path,
    mesh: Mesh,
    *,
    say: Callable[[str], None],
    telling: Any,
    stoppable: Callable[[Progress], Progress],
) -> list[Task]:
    """The tasks in eval.in_context.source_language; as they are where nothing is to be translated.

    Args:
        folder: of the run, which keeps the translations.
        stoppable: makes a progress that raises where all processes are to stop.
    Raises: ConfigError for tasks that mean nothing in another language; what the model cannot be opened for.
    """
    name = config.eval.in_context.translate_test
    if not name:
        return list(tasks)
    check_translatable(tasks, config)
    with _told():
        model = other_model(config, "translate_test", name, mesh, say)
        data = load_config(name).data if _is_run(name) else config.data
    at_boundary = partial(stoppable(lambda done, total: None), 0, 0)
    return translated_tasks(
        tasks, config, data, model, mesh, folder, say=say, telling=telling, at_boundary=at_boundary
    )


def _is_run(name: str) -> bool:
    return is_bucket(name) or (Path(name) / "config.yaml").is_file()


@contextmanager
def _told() -> Iterator[None]:
    """For which option a model was given that cannot be opened."""
    try:
        yield
    except JaxlinguaError as error:
        raise type(error)(f"{_WHERE}: {error}") from None
