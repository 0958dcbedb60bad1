"""The grid: what each run of a sweep learns and is asked, as a configuration of its own."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxlingua.config import Config, MixtureEntry, ParallelSource, ReplayConfig, source_languages
from jaxlingua.errors import ConfigError, nearest


@dataclass(frozen=True)
class Cell:
    """One run: a language, how many of its pairs, a seed. The first of a language tells of the base too."""

    language: str
    pairs: int
    seed: int
    config: Config
    is_first: bool

    @property
    def name(self) -> str:
        """That of its folder and its configuration."""
        return f"{self.language}-{self.pairs}-{self.seed}"


def cells_of(
    config: Config, languages: Sequence[str], sizes: Sequence[int], seeds: Sequence[int], folder: Path
) -> list[Cell]:
    """Every language with every size and every seed, in the order in which they run.

    A run differs from `config` in its last stage alone. Of the mixture stay the entries that are of no other
    swept language; those that translate from or into its own one get as many pairs, drawn at random by the
    seed, and a smaller draw is part of a larger one. Of eval.tasks stay those of no other swept language. The
    first run of each language also evaluates the base.

    Args:
        folder: of the sweep.
    Raises: ConfigError where the runs would not begin with the same model, or a language has no pairs or no
        tasks.
    """
    if config.model.init == "scratch" and not config.run.branch_from:
        raise ConfigError(
            "model.init: scratch given, so that each run of the sweep would begin with another model; one "
            "base for all is needed; give model.path with model.init=huggingface, or run.branch_from"
        )
    if not config.stages:
        raise ConfigError("stages: none given; a sweep varies the last one; give one")
    if len(config.stages) > 1 and not config.run.branch_from:
        raise ConfigError(
            f"stages: {len(config.stages)} given, of which each run of the sweep would train all; one base "
            f"for all is needed; train those before '{config.stages[-1].name}', and give that run as "
            f"run.branch_from"
        )
    for language in languages:
        _check(config, language, languages)
    cells = []
    for seed in seeds:
        for pairs in sizes:
            for language in languages:
                others = set(languages) - {language}
                is_first = (seed, pairs) == (seeds[0], sizes[0])
                one = _varied(config, language, pairs, seed, others, is_first)
                run = one.run.model_copy(update={"folder": str(folder / f"{language}-{pairs}-{seed}")})
                cells.append(Cell(language, pairs, seed, one.model_copy(update={"run": run}), is_first))
    return cells


def _check(config: Config, language: str, languages: Sequence[str]) -> None:
    """Raises: ConfigError where a language has no pairs to learn from, or nothing that is asked."""
    others = set(languages) - {language}
    last = config.stages[-1]
    known = sorted(
        {code for entry in last.mixture for code in _languages(config, entry, last.mixture[entry])}
    )
    swept = [name for name, entry in last.mixture.items() if _is_swept(config, name, entry, language, others)]
    if len(swept) > 1:
        raise ConfigError(
            f"stage '{last.name}', mixture: {' and '.join(swept)} translate from or into '{language}', so "
            f"that it would learn {len(swept)} times the pairs; one is allowed; take out the others"
        )
    if not swept:
        raise ConfigError(
            f"--languages: '{language}' given; stage '{last.name}' has no entry that translates from or into "
            f"it; its languages are {', '.join(known)}; give one of these, or add an entry"
        )
    for name, entry in last.mixture.items():
        shown = set(_languages(config, name, entry)) & set(languages)
        if len(shown) > 1 and not _directions(config, name, entry):
            raise ConfigError(
                f"stage '{last.name}', mixture.{name}: shows {' and '.join(sorted(shown))}, which are swept; "
                f"an entry of one language is allowed; write one for each, with language: CODE"
            )
    if not any(language in _asked(task) for task in _tasks(config.eval.tasks, others)):
        asked = sorted({code for task in config.eval.tasks for code in _asked(task)})
        raise ConfigError(
            f"--languages: '{language}' given, and no task of eval.tasks is of it, "
            f"{nearest(language, asked)}; add one, such as eval.tasks+=[flores.eng_Latn-{language}]"
        )


def _varied(
    config: Config,
    language: str,
    pairs: int,
    seed: int,
    others: Collection[str],
    is_first: bool,
) -> Config:
    last = config.stages[-1]
    mixture = {}
    for name, entry in last.mixture.items():
        if _is_swept(config, name, entry, language, others):
            chosen = ReplayConfig(records=pairs, seed=seed)
            direction = [f"{a}-{b}" for a, b in _directions(config, name, entry) if not {a, b} & set(others)]
            mixture[name] = entry.model_copy(update={"replay": chosen, "direction": direction})
        elif not set(_languages(config, name, entry)) & set(others):
            mixture[name] = entry
    tasks = _tasks(config.eval.tasks, others)
    abilities = {name: _tasks(of, others) for name, of in config.eval.abilities.items()}
    asked = {
        "tasks": tasks,
        "abilities": {name: of for name, of in abilities.items() if of},
        "base_model": is_first and len(config.stages) == 1,  # else the base is a stage's end
    }
    return config.model_copy(
        update={
            "run": config.run.model_copy(update={"seed": seed}),
            "stages": [*config.stages[:-1], last.model_copy(update={"mixture": mixture})],
            "eval": config.eval.model_copy(update=asked),
        }
    )


def _is_swept(config: Config, name: str, entry: MixtureEntry, language: str, others: Collection[str]) -> bool:
    """Whether an entry translates from or into a language, in a direction without the others."""
    directions = _directions(config, name, entry)
    return any(language in direction and not set(direction) & set(others) for direction in directions)


def _directions(config: Config, name: str, entry: MixtureEntry) -> list[tuple[str, str]]:
    """Those that an entry asks for; of `auto`, from and into the first language of the source."""
    source = config.data.sources[name if entry.source == "auto" else entry.source]
    if entry.task not in ("auto", "translation") or not isinstance(source, ParallelSource):
        return entry.directions()
    first, *rest = source_languages(source)
    return entry.directions() or [pair for other in rest for pair in ((first, other), (other, first))]


def _languages(config: Config, name: str, entry: MixtureEntry) -> list[str]:
    """Those that an entry shows."""
    if directions := _directions(config, name, entry):
        return [language for direction in directions for language in direction]
    if entry.language != "auto":
        return [entry.language]
    return source_languages(config.data.sources[name if entry.source == "auto" else entry.source])


def _tasks(tasks: Sequence[str], others: Collection[str]) -> list[str]:
    return [task for task in tasks if not set(_asked(task)) & set(others)]


def _asked(task: str) -> list[str]:
    """The languages of a task: of its last part.

    Example:
        >>> _asked("flores.eng_Latn-zho_Hans"), _asked("xquad.ell_Grek")
        (['eng_Latn', 'zho_Hans'], ['ell_Grek'])
    """
    return task.rpartition(".")[2].split("-")
