"""Models as a command line names them; nothing is opened."""

import re
from collections.abc import Sequence
from pathlib import Path

from jaxlingua.bucket import is_bucket
from jaxlingua.config import Config
from jaxlingua.errors import ConfigError


def is_model(name: str) -> bool:
    """Whether a name is that of a model: neither a run's folder nor a configuration."""
    path = Path(name).expanduser()
    if is_bucket(name) or path.suffix in (".yaml", ".yml") or (path / "config.yaml").is_file():
        return False
    return path.is_dir() or name.count("/") == 1


def stage_name(model: str) -> str:
    """What a model is called in files and tables: the last part of its path, of an export that of its run.

    Example:
        >>> stage_name("meta-llama/Llama-2-7b-hf"), stage_name("runs/my run/export/")
        ('Llama-2-7b-hf', 'my_run')
    """
    path = Path(model)
    return re.sub(
        r"[^\w.-]", "_", path.parent.name if path.name == "export" and path.parent.name else path.name
    )


def with_models(config: Config, names: Sequence[str], program: str) -> Config:
    """The configuration with models of the command line before those of `eval.models`.

    Raises: ConfigError where two have one name, or a name cannot be that of a file.
    """
    models = dict(config.eval.models)
    for name in reversed(names):
        stage = stage_name(name)
        if stage in models:
            raise ConfigError(
                f"{program}: '{name}' given, and another model is called '{stage}'; each needs its own "
                f"name; give them as eval.models={{NAME: MODEL, …}}"
            )
        models = {stage: name, **models}
    for stage in models:
        if stage == "floors" or stage_name(stage) != stage:
            raise ConfigError(
                f"eval.models: name '{stage}' given; letters, digits, '.', '_' and '-' are allowed, and not "
                f"'floors', which is taken; rename it"
            )
    return config.model_copy(update={"eval": config.eval.model_copy(update={"models": models})})
