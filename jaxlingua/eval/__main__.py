"""Evaluate a run, a Hugging Face folder or several models side by side; run again, it goes on where it was.

The one page of evaluation: what is compared, on which tasks, what they share with the training data, answers
and scores of each model, the report. `table` merges reports that are there.
"""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxlingua.command_line import apply_override, check_config, help_text, load_config
from jaxlingua.config import Config
from jaxlingua.errors import ConfigError, JaxlinguaError, Stopped, end_with_code
from jaxlingua.eval.models import is_model, stage_name, with_models

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from jaxlingua.processes.roll_call import Group
    from jaxlingua.processes.stop import Stop
    from jaxlingua.tokens.interface import Tokenizer
    from jaxlingua.tracking import Console
    from jaxlingua.train.open_model import Candidate

PURPOSE = """\
Answers the items of eval.tasks with each model, scores them and writes report.html into run.folder.
RUN    the folder of a run: its checkpoints (eval.steps) beside the model that it began from
MODEL  a Hugging Face folder or hub name; several of them, or eval.models, stand side by side
table  merges the scores of runs, seeds and prompts into one table; see table --help"""
USAGES = ("RUN [MODEL …]", "MODEL [MODEL …]", "CONFIG [MODEL …]", "table RUN …")
SECTIONS = ("run", "model", "data", "tokens", "sharding", "generate", "eval")


def main() -> None:
    """Check the command line, take the folder, evaluate."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["table"]:
        from jaxlingua.eval import table

        table.main(arguments[1:])
        return
    if not arguments or any(argument in ("-h", "--help") for argument in arguments):
        print(help_text("jaxlingua.eval", PURPOSE, USAGES, SECTIONS))
        sys.exit(0 if arguments else 2)
    config = config_of(arguments)
    if not config.eval.tasks and not config.eval.harness.tasks:
        raise ConfigError(
            "eval.tasks: none given; entries such as xquad.zho_Hans are needed; add "
            "eval.tasks=[xquad.zho_Hans]"
        )

    from jaxlingua.processes.start import together
    from jaxlingua.processes.stop import signals_stop
    from jaxlingua.tracking import Console
    from jaxlingua.train.run import refuse_wrong_platform

    with together(config) as group:
        console = Console(is_primary=group.is_primary)
        refuse_wrong_platform(config)
        with signals_stop(group, console.say) as signals:
            evaluate_all(config, group, signals, console)


def config_of(arguments: Sequence[str]) -> Config:
    """The configuration that RUN, CONFIG or MODEL and the options after it describe.

    Raises: ConfigError, one line, for anything that cannot be evaluated.
    """
    overrides = [argument for argument in arguments if re.match(r"[\w.][\w.\[\]+-]*=", argument)]
    names = [argument for argument in arguments if argument not in overrides]
    if flags := [name for name in names if name.startswith("-")]:
        raise ConfigError(
            f"jaxlingua.eval: '{flags[0]}' given; options have the form key=value, such as eval.items=100; "
            f"see --help"
        )
    if names and not is_model(names[0]):
        config, names = load_config(names[0], overrides), names[1:]
    else:
        given: dict[str, Any] = {"run": {"folder": "_".join(["runs/eval", *map(stage_name, names[:1])])}}
        for override in overrides:
            apply_override(given, override)
        config = check_config(given, " ".join(["jaxlingua.eval", *names[:1]]))
        if not names and not config.eval.models:
            raise ConfigError("jaxlingua.eval: no RUN, MODEL or CONFIG given; give one; see --help")
    return with_models(config, names, "jaxlingua.eval")


# ── what is evaluated ─────────────────────────────────────────────────────────────────────────────────────


def evaluate_all(config: Config, group: "Group", signals: "Stop", console: "Console") -> None:
    """Everything, in the order in which it happens."""
    from jaxlingua.eval.answer import check_answerable
    from jaxlingua.eval.done import BASE, is_evaluated
    from jaxlingua.eval.evaluate import evaluate, evaluate_floors, overlaps_of
    from jaxlingua.eval.in_context.ask import check_labels, check_retrieval, check_states
    from jaxlingua.eval.report import write_report
    from jaxlingua.eval.score import FLOORS
    from jaxlingua.eval.tasks.make import make_tasks
    from jaxlingua.progress import told
    from jaxlingua.sharding.mesh import describe_mesh, make_mesh
    from jaxlingua.sharding.rules import check_rows
    from jaxlingua.train.announce import say_scores
    from jaxlingua.train.run_folder import held_folder
    from jaxlingua.train.translate_test import check_translate_test, translated

    telling = partial(told, console.say)
    if config.eval.harness.tasks:
        from jaxlingua.eval.harness import find_tasks

        with telling("looking for tasks of lm-evaluation-harness"):
            find_tasks(config.eval.harness)
    mesh = make_mesh(config.sharding)
    check_rows("generate.batch_rows", config.generate.batch_rows, mesh)
    check_retrieval(config)
    with held_folder(config.run.folder, group, console.say) as (folder, carry):
        with telling("reading data"):
            sources, training = training_data(config, folder, console)
            tasks = make_tasks(config, sources)
            check_answerable(tasks, config)
            check_translate_test(tasks, config)
        candidates = list(candidates_of(config, folder, group, mesh, console))
        for one in candidates:
            check_states(config, one.layers)
            check_labels(tasks, one.tokenizer)
        overlaps = overlaps_of(tasks, training, config.eval.leak_words)
        for task in tasks:
            console.say(f"task {task.describe()}")
        console.say(describe_mesh(mesh))
        has_base = candidates[0].name == "base" or (folder / "evals" / BASE).is_dir()
        base = BASE if has_base else f"{candidates[0].stage}-{candidates[0].step}"
        if not (folder / "checkpoints").is_dir():
            write_facts(config, folder, group, candidates[0].tokenizer, mesh)

        def stoppable(on_progress: Any) -> Any:
            def progress(done: int, total: int) -> None:
                on_progress(done, total)
                if "stop" in group.boundary("an evaluation"):
                    code = signals.exit_code
                    raise Stopped(f"answers so far are kept; exit code {code}; run it again to go on", code)

            return progress

        tasks = translated(tasks, config, folder, mesh, say=console.say, telling=telling, stoppable=stoppable)
        for one in candidates:
            check_labels(tasks, one.tokenizer)
        for one in candidates:
            where = {"config": config, "folder": folder, "base": base, "source": one.source}
            if group.share(is_evaluated(tasks, one.stage, one.step, **where)):
                console.say(f"{one.stage}, step {one.step:,}: evaluated already")
                continue
            opened = one.open(telling)
            with telling(f"evaluating {one.stage}, step {one.step:,}") as on_progress:
                evaluate(
                    opened.model, opened.params, opened.tokenizer, tasks, mesh=mesh, stage=one.stage,
                    step=one.step, model_name=one.name, model_path=opened.path, eos_ids=opened.eos_ids,
                    overlaps=overlaps, is_owner=False, say=console.say,
                    on_progress=stoppable(on_progress), **where,
                )  # fmt: skip
            del opened
        if not group.share(is_evaluated(tasks, FLOORS, 0, config=config, folder=folder)):
            evaluate_floors(tasks, config=config, folder=folder)
        if group.is_primary:
            say_scores(console, write_report(folder, config.eval), config.run.folder)
        carry()


def training_data(config: Config, folder: Path, console: "Console") -> tuple[Mapping[str, Any], list[str]]:
    """The sources that tasks need, and the texts that the run learned from; none where they are not here."""
    from jaxlingua.eval.tasks.make import make_tasks
    from jaxlingua.tokens import stages as flow

    asked = {task.partition(".")[0] for task in (*config.eval.tasks, config.eval.in_context.parallel)}
    is_asked = any(name in asked for name in config.data.sources)
    if not config.data.sources or not (is_asked or config.eval.leak_words):
        return {}, []
    sources: Mapping[str, Any] = {}
    try:
        sources = flow.open_sources(config)
        if not config.stages or not config.eval.leak_words:
            return sources, []
        dropped = {}
        if config.data.leaks == "drop":  # what equals the items of the run's own tasks was not learned
            own = load_config(str(folder)).eval if (folder / "config.yaml").is_file() else config.eval
            trained = config.model_copy(update={"eval": own})
            dropped = {task.key: task.records for task in make_tasks(trained, sources)}
        examples, _ = flow.make_examples(config, sources, dropped)
        return sources, list(flow.learned_texts(examples))
    except JaxlinguaError as error:
        if is_asked and not sources:
            raise
        console.say(f"leaks are not checked: the training data is not here ({error})")
        return sources, []


def candidates_of(
    config: Config, folder: Path, group: "Group", mesh: "Mesh", console: "Console"
) -> Iterator["Candidate"]:
    """What the run in the folder began from, its checkpoints, and the models beside it, base first.

    Raises: ConfigError where there is nothing to evaluate, or what a model cannot be opened for.
    """
    from jaxlingua.checkpoint.steps import newest_sound
    from jaxlingua.checkpoint.store import located
    from jaxlingua.train import open_model

    checkpoints = located(f"{config.run.folder}/checkpoints")
    step = newest_sound(checkpoints, group, console.say, is_owner=False)
    is_asked = step is not None and (config.eval.base_model or config.eval.steps != [])
    if not config.eval.models and not is_asked:
        raise ConfigError(
            f"run.folder: '{config.run.folder}' given, which holds no checkpoint that is asked for, and "
            f"eval.models is empty; a run that has saved one, or a model, is needed; give one"
        )
    yield from open_model.candidates_of(config, folder, step, mesh, console.say)


def write_facts(config: Config, folder: Path, group: "Group", tokenizer: "Tokenizer", mesh: "Mesh") -> None:
    """config.yaml and provenance.json of a folder in which nothing is trained.

    Models and tasks that were evaluated there before stay in config.yaml, so that it tells of all.
    """
    from jaxlingua.checkpoint.store import located
    from jaxlingua.train import run_folder

    if (folder / "config.yaml").is_file() and (folder / "provenance.json").is_file():
        before = load_config(str(folder)).eval
        tasks = list(dict.fromkeys([*before.tasks, *config.eval.tasks]))
        models = {**before.models, **config.eval.models}
        asked = config.eval.model_copy(update={"tasks": tasks, "models": models})
        config = config.model_copy(update={"eval": asked})
    home = run_folder.RunFolder(folder, located(f"{folder}/checkpoints"), None, lambda: None, group)
    run_folder.write_facts(home, config, {}, tokenizer, [], mesh, public={}, program="jaxlingua.eval")


if __name__ == "__main__":
    end_with_code(main)
