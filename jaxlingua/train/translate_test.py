"""Opens the model of eval.in_context.translate_test: items are translated before any model answers them."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from jaxlingua.bucket import is_bucket
from jaxlingua.command_line import load_config
from jaxlingua.config import Config
from jaxlingua.errors import JaxlinguaError
from jaxlingua.eval.in_context.translated import check_translatable, translated_tasks
from jaxlingua.eval.tasks.item import Task
from jaxlingua.train.open_model import other_model

Progress = Callable[[int, int], None]


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
    try:
        model = other_model(config, "translate_test", name, mesh, say)
        is_run = is_bucket(name) or (Path(name) / "config.yaml").is_file()
        data = load_config(name).data if is_run else config.data
    except JaxlinguaError as error:
        raise type(error)(f"eval.in_context.translate_test: {error}") from None
    at_boundary = partial(stoppable(lambda done, total: None), 0, 0)
    return translated_tasks(
        tasks, config, data, model, mesh, folder, say=say, telling=telling, at_boundary=at_boundary
    )
