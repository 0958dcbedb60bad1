"""The command line of `python -m jaxlingua.analysis values`."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxlingua.analysis.values.questions import PIVOT, Question, read_questions
from jaxlingua.command_line import Flag, apply_override, check_config, flags_from_command_line, load_config
from jaxlingua.config import Config
from jaxlingua.errors import ConfigError
from jaxlingua.eval.models import is_model, with_models
from jaxlingua.languages import check_language

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from jaxlingua.analysis.values.answers import Answer
    from jaxlingua.analysis.values.measure import Learning
    from jaxlingua.train.open_model import Candidate

PROGRAM = "jaxlingua.analysis values"
PURPOSE = """\
Asks models questions that touch values, and questions that do not, in several languages, and tells from the
answers, put into English, how far each model and language can be told apart; with a map, and with what tuning
moved. Run the same command again, and it goes on where it was.
MODEL  a Hugging Face folder or hub name, or the folder of a run: its last checkpoint; the first one beside
       the model that it began from
Answers are drawn with generate.temperature=1, top_k=50 and top_p=0.95, and have 128 tokens at most, unless
options of generate say otherwise."""
FLAGS = (
    Flag("--languages", "Languages to ask in; of --answers all that are there.", "LIST"),
    Flag("--output", "Folder that is written.", "FOLDER", is_needed=True),
    Flag("--translator", "Puts questions and answers into and out of English.", "MODEL"),
    Flag("--questions", 'Your own: JSON lines {"id", "dimension", "eng_Latn": text, …}.', "FILE"),
    Flag("--answers", "Answers that are there already; MODEL is not asked, it encodes.", "FILE"),
    Flag("--encode", "Frozen model whose states stand for texts; without it the first MODEL.", "MODEL"),
    Flag("--lambda", "Most pairs in a view, an encoder for each; without it 1,5.", "LIST"),
    Flag("--samples", "Answers to each question; without it 1.", "NUMBER"),
    Flag("--steps", "Steps of each encoder; without it 500.", "NUMBER"),
    Flag("--seed", "Of views, encoders and which questions are held out; without it run.seed.", "NUMBER"),
    Flag("--mask-same-class", "Whether rows of one class are no negatives; without it false.", "true|false"),
    Flag("--format", "What is printed; without it text.", "text|json"),
)
SECTIONS = ("run", "model", "sharding", "generate", "eval")
DRAWN = ("generate.temperature=1.0", "generate.top_k=50", "generate.top_p=0.95")
LONGEST = "generate.max_new_tokens=128"
ENCODE = "encode"


@dataclass(frozen=True)
class Wanted:
    """What the command line asks for.

    Attributes:
        config: with all models in `eval.models`, but those of --translator and --encode.
        is_run: whether the first model is a run, that of `config`.
        translator, answers, encode: "" where not given; encode is never, with answers.
    """

    config: Config
    is_run: bool
    languages: tuple[str, ...]
    output: Path
    translator: str
    answers: str
    encode: str
    questions: tuple[Question, ...]
    questions_path: str
    samples: int
    learning: "Learning"
    is_json: bool


def wanted_from(arguments: list[str]) -> Wanted:
    """Understand the command line and read the questions, before any device is touched.

    Raises: ConfigError or DataError, one line.
    """
    flags, rest = flags_from_command_line(PROGRAM, PURPOSE, FLAGS, SECTIONS, arguments, usage="MODEL …")
    overrides = [one for one in rest if re.match(r"[\w.][\w.\[\]+-]*=", one)]
    names = [one for one in rest if one not in overrides]
    answers, encode = flags.get("--answers", ""), flags.get("--encode", "")
    if answers and not names:
        raise ConfigError("--answers: given without a MODEL; one is needed, which encodes; give one")
    if answers and (len(names) > 1 or encode):
        raise ConfigError(
            f"--answers: given with {len(names)} models{' and --encode' if encode else ''}; none of them is "
            f"asked, and one encodes; give one MODEL"
        )
    for flag in ("--translator", "--samples"):
        if answers and flag in flags:
            raise ConfigError(
                f"{flag}: given beside --answers, which nobody is asked for any more; one of both is "
                f"allowed; leave {flag} out"
            )
    if answers:
        names, encode = [], names[0]
    config, is_run = _config_of(names, overrides)
    if not (answers or is_run or config.eval.models):
        raise ConfigError(f"{PROGRAM}: no MODEL given; one or more are asked; give one")
    from jaxlingua.analysis.values.measure import Learning

    questions = read_questions(flags.get("--questions"))
    languages = _languages(flags.get("--languages"), bool(answers))
    translator = flags.get("--translator", "")
    if not answers and not translator:
        _refuse_unworded(questions, languages)
    samples = _number(flags, "--samples", 1)
    if samples > 1 and config.generate.temperature == 0:
        raise ConfigError(
            f"--samples: {samples} given, and generate.temperature=0, with which all are equal; raise it, or "
            f"leave --samples out"
        )
    output = Path(flags["--output"]).expanduser()
    if output.exists() and not output.is_dir():
        raise ConfigError(f"--output: '{output}' given, which is no folder; give another name")
    mask, told = flags.get("--mask-same-class", "false"), flags.get("--format", "text")
    for flag, value, allowed in (
        ("--mask-same-class", mask, ("true", "false")),
        ("--format", told, ("text", "json")),
    ):
        if value not in allowed:
            raise ConfigError(f"{flag}: '{value}' given; {' and '.join(allowed)} are allowed; give one")
    learning = Learning(
        mosts=_mosts(flags.get("--lambda", "1,5")),
        steps=_number(flags, "--steps", 500),
        seed=_number(flags, "--seed", config.run.seed, least=0),
        masks_same_class=mask == "true",
        samples=config.eval.bootstrap_samples,
    )
    return Wanted(
        config, is_run, languages, output, translator, answers, encode, questions,
        flags.get("--questions", ""), samples, learning, told == "json",
    )  # fmt: skip


def _config_of(names: Sequence[str], overrides: Sequence[str]) -> tuple[Config, bool]:
    """The first run's configuration with the others beside it, or the defaults; and whether it is a run's."""
    is_drawn = any(re.match(r"generate\.(temperature|top_k|top_p|beams)=", one) for one in overrides)
    overrides = [*(() if is_drawn else DRAWN), LONGEST, *overrides]
    if names and not is_model(names[0]):
        return with_models(load_config(names[0], overrides), names[1:], PROGRAM), True
    given: dict[str, Any] = {}
    for override in overrides:
        apply_override(given, override)
    return with_models(check_config(given, PROGRAM), names, PROGRAM), False


def _languages(given: str | None, is_answered: bool) -> tuple[str, ...]:
    if given is None and is_answered:
        return ()
    if given is None:
        raise ConfigError("--languages: not given; those to ask in are needed; give some, such as eng_Latn")
    found = tuple(dict.fromkeys(one.strip() for one in given.split(",") if one.strip()))
    if not found:
        raise ConfigError(
            f"--languages: '{given}' given; codes such as eng_Latn,jav_Latn are allowed; give some"
        )
    for language in found:
        check_language(language, "--languages")
    return found


def _refuse_unworded(questions: Sequence[Question], languages: Sequence[str]) -> None:
    """Raises: ConfigError for a language that a question has no wording in and nothing puts it into."""
    for language in languages:
        lacking = [question.id for question in questions if language not in question.texts]
        if lacking:
            raise ConfigError(
                f"--languages: {language} given, in which {len(lacking)} questions have no wording, such as "
                f"'{lacking[0]}'; give --translator, or --questions with {language}"
            )


def _mosts(given: str) -> tuple[int, ...]:
    parts = [one.strip() for one in given.split(",")]
    if not all(re.fullmatch(r"[1-9]\d{0,3}", one) for one in parts):
        raise ConfigError(f"--lambda: '{given}' given; numbers above 0 are allowed, such as 1,5; give some")
    return tuple(dict.fromkeys(map(int, parts)))


def _number(flags: Mapping[str, str], flag: str, default: int, least: int = 1) -> int:
    given = flags.get(flag, str(default))
    if not re.fullmatch(r"\d{1,9}", given) or int(given) < least:
        raise ConfigError(f"{flag}: '{given}' given; a number from {least} is allowed; give one")
    return int(given)


# ── what happens ──────────────────────────────────────────────────────────────────────────────────────────


def main(arguments: list[str]) -> None:
    """Check the command line; ask, translate, encode, measure, tell."""
    wanted = wanted_from(arguments)
    answers = _given(wanted)

    import json

    from jaxlingua.analysis.values.answers import untranslated
    from jaxlingua.analysis.values.gather import encoded, gathered
    from jaxlingua.analysis.values.measure import measure, texts_of
    from jaxlingua.analysis.values.report import summary_lines, write_report
    from jaxlingua.processes.start import together
    from jaxlingua.progress import told
    from jaxlingua.sharding.mesh import describe_mesh, make_mesh
    from jaxlingua.sharding.rules import check_rows
    from jaxlingua.tracking import Console
    from jaxlingua.train.run import refuse_wrong_platform

    with together(wanted.config) as group, ExitStack() as stack:
        console = Console(is_primary=group.is_primary)
        say = (lambda line: None) if wanted.is_json else console.say
        telling = partial(told, say)
        refuse_wrong_platform(wanted.config)
        mesh = make_mesh(wanted.config.sharding)
        check_rows("generate.batch_rows", wanted.config.generate.batch_rows, mesh)
        say(describe_mesh(mesh))
        candidates = list(_candidates(wanted, mesh, say, stack))
        if not (candidates or wanted.answers):
            raise ConfigError(
                "eval.steps: none given, and no model beside; one or more are needed; give some"
            )
        encoding = _other(wanted, ENCODE, wanted.encode, mesh, say) if wanted.encode else candidates[0]
        named = {_name(one): one for one in candidates}
        if not wanted.answers:
            _check(_to_come(wanted, list(named)), wanted)
        wanted.output.mkdir(parents=True, exist_ok=True)
        problems: Mapping[str, int] = {}
        if not wanted.answers:
            translator = (
                _other(wanted, "translator", wanted.translator, mesh, say) if wanted.translator else None
            )
            answers, problems = gathered(wanted, named, translator, mesh, group, say)
        frozen, layer, cut = encoded(
            texts_of(answers, wanted.questions), encoding, wanted.config.generate.batch_rows, mesh, telling
        )
        content, vectors, table = measure(answers, wanted.questions, frozen, wanted.learning, telling)
        content |= {
            "encoded_by": {"model": wanted.encode or _name(encoding), "layer": layer, "cut": cut},
            "pivot": {"language": PIVOT, "untranslated": untranslated(content["classes"])},
            "translation_problems": dict(problems),
        }
        if group.is_primary:
            write_report(wanted.output, content, vectors, table)
            if wanted.is_json:
                print(json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False))
            else:
                for line in summary_lines(content):
                    console.say(line)
                console.say(f"{wanted.output}/values.html")


def _given(wanted: Wanted) -> list["Answer"]:
    """The answers of --answers, of the languages that are asked for; checked before devices start."""
    if not wanted.answers:
        return []
    from jaxlingua.analysis.values.answers import read_answers

    found = read_answers(wanted.answers, wanted.questions)
    there = {one.language for one in found}
    for language in wanted.languages:
        if language not in there:
            raise ConfigError(
                f"--languages: {language} given; {wanted.answers} has answers in "
                f"{', '.join(sorted(there))}; give some of these"
            )
    kept = [one for one in found if not wanted.languages or one.language in wanted.languages]
    _check(kept, wanted)
    return kept


def _to_come(wanted: Wanted, models: Sequence[str]) -> list["Answer"]:
    """The answers that there will be, without what they say."""
    from jaxlingua.analysis.values.answers import Answer

    return [
        Answer(model, language, question.id, "", "")
        for model in models
        for language in wanted.languages
        for question in wanted.questions
        for _ in range(wanted.samples)
    ]


def _check(answers: Sequence["Answer"], wanted: Wanted) -> None:
    """Refuse, before models are asked, what could not be measured. Raises: DataError."""
    from jaxlingua.analysis.values.answers import check_splits
    from jaxlingua.analysis.values.measure import check_measurable

    where = "--answers" if wanted.answers else "--questions"
    check_splits(answers, wanted.questions, wanted.learning.seed, where)
    check_measurable(answers, wanted.questions, wanted.learning)


def _candidates(
    wanted: Wanted, mesh: "Mesh", say: Callable[[str], None], stack: ExitStack
) -> Iterator["Candidate"]:
    """What is asked: base and checkpoint of the run, and the models beside it; weights are not read yet."""
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
    yield from candidates_of(config, folder, step, mesh, say, is_any_dtype=True)


def _other(wanted: Wanted, name: str, path: str, mesh: "Mesh", say: Callable[[str], None]) -> "Candidate":
    from jaxlingua.train.open_model import other_model

    return other_model(wanted.config, name, path, mesh, say)


def _name(one: "Candidate") -> str:
    """What a model is called in tables."""
    return f"{one.stage}, step {one.step:,}" if one.step else one.name
