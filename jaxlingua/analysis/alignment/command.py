"""The command line of `python -m jaxlingua.analysis alignment`."""

import re
from collections.abc import Sequence
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
from jaxlingua.eval.models import is_model, with_models

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
        config: with all models in `eval.models`.
        is_run: whether the first model is a run, that of `config`.
        layer: None for the best one.
    """

    config: Config
    is_run: bool
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
    is_run = not is_model(names[0])
    if is_run:
        config, models = load_config(names[0], overrides), names[1:]
    else:
        given: dict[str, Any] = {}
        for override in overrides:
            apply_override(given, override)
        config, models = check_config(given, PROGRAM), names
    config = with_models(config, models, PROGRAM)
    layer = flags.get("--layer")
    if layer is not None and not re.fullmatch(r"\d{1,4}", layer):
        raise ConfigError(f"--layer: '{layer}' given; a number is allowed, 0 for the embeddings; give one")
    output = _output(flags.get("--output"), config.run.folder if is_run else None, names[0])
    return Wanted(
        config=translations(config), is_run=is_run, layer=None if layer is None else int(layer), output=output
    )


def _output(given: str | None, run: str | None, first: str) -> Path:
    """The folder that is written.

    Args:
        run: None where `first`, the first of the models, is no run.
    """
    if given is None and run is None and not Path(first).expanduser().is_dir():
        raise ConfigError(
            f"--output: not given; '{first}' is no folder on this machine and was taken as a hub name, which "
            f"has no place to write; correct it if it is to be a RUN, or give --output"
        )
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
    from jaxlingua.generate.states import sentence_vectors
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
        candidates = _candidates(wanted, mesh, console.say, stack)
        _check_layer(wanted.layer, candidates)
        sentences = with_tokens(sentences, [one.tokenizer for one in candidates])
        _say_sentences(sentences, console.say)
        weights = resamples(len(sentences.ids), config.eval.bootstrap_samples, config.run.seed)
        models = []
        for one in candidates:
            name = _name(one)
            opened = one.open(telling)
            vectors = {}
            for language, texts in sentences.texts.items():
                with telling(f"{name}: vectors of {language}") as on_progress:
                    vectors[language] = sentence_vectors(
                        opened.model, opened.params, opened.tokenizer, texts,
                        batch_rows=config.generate.batch_rows, mesh=mesh, on_progress=on_progress,
                    )  # fmt: skip
            path = opened.path
            del opened
            with telling(f"{name}: comparing") as on_progress:
                models.append(compare(name, path, sentences, vectors, weights, on_progress))
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


def _name(one: "Candidate") -> str:
    """What a model is called in tables."""
    return f"{one.stage}, step {one.step:,}" if one.step else one.name


def _check_layer(layer: int | None, candidates: Sequence["Candidate"]) -> None:
    """Raises: ConfigError for a layer that one of the models does not have; no weights are read."""
    for one in candidates if layer is not None else ():
        if layer > (layers := one.layers()):
            raise ConfigError(
                f"--layer: {layer} given; {_name(one)} has layers 0 to {layers}; give one of these"
            )


def _sources(config: Config) -> Any:
    """The sources of the configuration where a task names one of them."""
    if not {task.partition(".")[0] for task in config.eval.tasks} & set(config.data.sources):
        return {}
    from jaxlingua.tokens import stages as flow

    return flow.open_sources(config)


def _candidates(wanted: Wanted, mesh: "Mesh", say: Any, stack: ExitStack) -> list["Candidate"]:
    """What the run began from, its checkpoints, and the models beside it; weights are not read yet.

    Raises: ConfigError where there is no such checkpoint, or what a model cannot be opened for.
    """
    from jaxlingua.train.open_model import candidates_of
    from jaxlingua.train.run_folder import opened_run

    config = wanted.config
    folder, step = Path(config.run.folder), None
    if wanted.is_run:
        home = stack.enter_context(opened_run(config.run.folder, say))
        folder, step = home.path, home.step
        if step is None:
            raise ConfigError(
                f"run.folder: '{config.run.folder}' given, which holds no checkpoint; a run that has saved "
                f"one is needed; give one"
            )
    return list(candidates_of(config, folder, step, mesh, say, is_any_dtype=True))
