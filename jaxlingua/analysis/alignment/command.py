"""The command line of `python -m jaxlingua.analysis alignment`."""

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxlingua.analysis.alignment.sentences import Sentences, read_sentences, translations, with_tokens
from jaxlingua.bucket import is_bucket
from jaxlingua.command_line import Flag, apply_override, check_config, flags_from_command_line, load_config
from jaxlingua.config import Config
from jaxlingua.errors import ConfigError

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from jaxlingua.train.open_model import Candidate

PROGRAM = "jaxlingua.analysis alignment"
PURPOSE = """\
Tells layer by layer how alike a model represents the same sentence in two languages: retrieval both ways,
cosine gap and CKA of mean-pooled and last-token states, with intervals, as numbers and pictures.
RUN    the folder of a run: its checkpoints (eval.steps) beside the model that it began from (eval.base_model)
MODEL  a Hugging Face folder or hub name, or another run; several stand side by side
Sentences are those of the translations among eval.tasks, such as eval.tasks=[flores.eng_Latn-jav_Latn];
eval.items says how many (auto: 2,000 at most), generate.batch_rows how many are read at one time."""
FLAGS = (
    Flag("--layer", "Layer that is told in short and drawn in a plane; without it the best one.", "LAYER"),
    Flag("--output", "Folder that is written; without it RUN/analysis/alignment.", "FOLDER"),
)
SECTIONS = ("run", "model", "sharding", "generate", "eval")


@dataclass(frozen=True)
class Wanted:
    """What the command line asks for.

    Attributes:
        is_run: whether the first model is a run, that of `config`.
        models: those beside it, by the names that they are told under.
        layer: None for the best one.
    """

    config: Config
    is_run: bool
    models: dict[str, str]
    layer: int | None
    output: Path


def wanted_from(arguments: list[str]) -> Wanted:
    """Understand the command line, before anything is read.

    Raises: ConfigError, one line.
    """
    flags, rest = flags_from_command_line(
        PROGRAM, PURPOSE, FLAGS, SECTIONS, arguments, usage="RUN|CONFIG|MODEL [MODEL …]"
    )
    overrides = [one for one in rest if re.match(r"[\w.][\w.\[\]+-]*=", one)]
    names = [one for one in rest if one not in overrides]
    if not names:
        raise ConfigError(f"{PROGRAM}: no RUN, CONFIG or MODEL given; give one; see --help")
    is_run = not _is_model(names[0])
    if is_run:
        config, names = load_config(names[0], overrides), names[1:]
    else:
        given: dict[str, Any] = {}
        for override in overrides:
            apply_override(given, override)
        config = check_config(given, PROGRAM)
    models = dict(config.eval.models)
    for name in names:
        path = Path(name)
        short = path.parent.name if path.name == "export" and path.parent.name else path.name
        if short in models or (short == "base" and is_run):
            raise ConfigError(
                f"{PROGRAM}: '{name}' given, and another model is called '{short}'; each needs its own name; "
                f"give them as eval.models={{NAME: MODEL, …}}"
            )
        models[short] = name
    layer = flags.get("--layer")
    if layer is not None and not re.fullmatch(r"\d{1,4}", layer):
        raise ConfigError(f"--layer: '{layer}' given; a number is allowed, 0 for the embeddings; give one")
    return Wanted(
        config=translations(config),
        is_run=is_run,
        models=models,
        layer=None if layer is None else int(layer),
        output=_output(flags.get("--output"), config.run.folder if is_run else None),
    )


def _is_model(name: str) -> bool:
    """Whether a name is that of a model: neither a run's folder nor a configuration."""
    path = Path(name).expanduser()
    if is_bucket(name) or path.suffix in (".yaml", ".yml") or (path / "config.yaml").is_file():
        return False
    return path.is_dir() or name.count("/") == 1


def _output(given: str | None, run: str | None) -> Path:
    if given is None and (run is None or is_bucket(run)):
        raise ConfigError(
            "--output: not given; a folder is needed where there is no RUN on this machine; give one"
        )
    path = Path(given).expanduser() if given is not None else Path(str(run), "analysis", "alignment")
    if path.exists() and not path.is_dir():
        raise ConfigError(f"--output: '{path}' given, which is no folder; give another name")
    return path


def main(arguments: list[str]) -> None:
    """Check the command line, read the sentences, then the models one after the other; tell and write."""
    wanted = wanted_from(arguments)
    config = wanted.config

    from jaxlingua.analysis.alignment.compare import compare
    from jaxlingua.analysis.alignment.measures import resamples
    from jaxlingua.analysis.alignment.report import content_of, summary_lines, write_report
    from jaxlingua.analysis.alignment.vectors import sentence_vectors
    from jaxlingua.processes.start import together
    from jaxlingua.progress import told
    from jaxlingua.sharding.mesh import describe_mesh, make_mesh
    from jaxlingua.sharding.rules import check_rows
    from jaxlingua.tracking import Console
    from jaxlingua.train.run import refuse_wrong_platform

    sentences = read_sentences(config, _sources(config))
    with together(config) as group, ExitStack() as stack:
        console = Console(is_primary=group.is_primary)
        telling = partial(told, console.say)
        refuse_wrong_platform(config)
        mesh = make_mesh(config.sharding)
        check_rows("generate.batch_rows", config.generate.batch_rows, mesh)
        console.say(describe_mesh(mesh))
        candidates = list(_candidates(wanted, mesh, console.say, stack))
        sentences = with_tokens(sentences, [one.tokenizer for one in candidates])
        _say_sentences(sentences, console.say)
        weights = resamples(len(sentences.ids), config.eval.bootstrap_samples, config.run.seed)
        models = []
        for one in candidates:
            opened = one.open(telling)
            _check_layer(wanted.layer, opened.model.config.layers, one.name)
            vectors = {}
            for language, texts in sentences.texts.items():
                with telling(f"{one.name}: vectors of {language}") as on_progress:
                    vectors[language] = sentence_vectors(
                        opened.model, opened.params, opened.tokenizer, texts,
                        batch_rows=config.generate.batch_rows, mesh=mesh, on_progress=on_progress,
                    )  # fmt: skip
            path = opened.path
            del opened
            with telling(f"{one.name}: comparing") as on_progress:
                models.append(compare(one.name, path, sentences, vectors, weights, on_progress))
        if group.is_primary:
            content = content_of(
                models, sentences, wanted.layer, config.eval.bootstrap_samples, config.run.seed
            )
            write_report(wanted.output, models, sentences, content)
            for line in summary_lines(content):
                console.say(line)
            console.say(f"{wanted.output}/alignment.html")


def _say_sentences(sentences: Sentences, say: Any) -> None:
    lost = ", ".join(f"{reason} {count}" for reason, count in sentences.left_out.items() if count)
    say(
        f"{len(sentences.ids):,} of {sentences.available:,} sentences of {sentences.source} in "
        f"{', '.join(sentences.texts)}{f'; left out: {lost}' if lost else ''}"
    )


def _check_layer(layer: int | None, layers: int, model: str) -> None:
    if layer is not None and layer > layers:
        raise ConfigError(f"--layer: {layer} given; {model} has layers 0 to {layers}; give one of these")


def _sources(config: Config) -> Any:
    """The sources of the configuration where a task names one of them."""
    if not {task.partition(".")[0] for task in config.eval.tasks} & set(config.data.sources):
        return {}
    from jaxlingua.tokens import stages as flow

    return flow.open_sources(config)


def _candidates(wanted: Wanted, mesh: "Mesh", say: Any, stack: ExitStack) -> Iterator["Candidate"]:
    """What the run began from, its checkpoints, and the models beside it; weights are not read yet.

    Raises: ConfigError where there is no such checkpoint, or what a model cannot be opened for.
    """
    from jaxlingua.checkpoint.steps import complete_steps
    from jaxlingua.checkpoint.store import open_store
    from jaxlingua.train.open_model import Candidate, kept_tokenizer, open_base, open_step, other_model
    from jaxlingua.train.run_folder import identity_differences, opened_run

    config = wanted.config
    if wanted.is_run:
        home = stack.enter_context(opened_run(config.run.folder, say))
        if home.step is None:
            raise ConfigError(
                f"run.folder: '{config.run.folder}' given, which holds no checkpoint; a run that has saved "
                f"one is needed; give one"
            )
        kept = load_config(str(home.path / "config.yaml"))
        if differences := list(identity_differences(kept, config)):
            raise ConfigError(
                f"{config.run.folder}: {differences[0]}; a run is compared as it was trained; leave it out"
            )
        there: Sequence[int] = complete_steps(home.checkpoints)
        asked = {"latest": [home.step], "all": there}.get(str(config.eval.steps), config.eval.steps)
        if absent := [step for step in asked if step not in there]:
            raise ConfigError(
                f"eval.steps: {absent[0]} given; the run keeps {', '.join(map(str, there))}; give one"
            )
        tokenizer = kept_tokenizer(config, home.path)
        if config.eval.base_model or not any(asked):
            opening = partial(open_base, config, home.path, home.step, mesh)
            yield Candidate("base", 0, "base", None, tokenizer, opening)
        store = open_store(home.checkpoints, config.checkpoint)
        for step in filter(None, asked):
            stage = store.meta(step)["stage"]
            opening = partial(open_step, config, home.path, step, mesh)
            yield Candidate(stage, step, f"{stage}, step {step:,}", None, tokenizer, opening)
    for name, path in wanted.models.items():
        yield other_model(config, name, path, mesh, say)
