"""Show what the model will see: sources, mixture, lengths, tokens per language, and the first documents."""

import json
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path

from jaxlingua.command_line import Flag, flags_from_command_line, load_config
from jaxlingua.config import Config, InContextConfig
from jaxlingua.errors import ConfigError, Stopped, exit_with_one_line

PURPOSE = (
    "Shows what the model will see: a summary, sources, realised mixture, lengths, tokens per language and "
    "sample rows; starts no run.\n"
    "translate FILE writes an instruction file in another language."
)
FLAGS = (Flag("--html", "Page to write it to instead, and the same as JSON beside it.", "FILE.html"),)
COLUMNS = 120  # where the output is no terminal


def main() -> None:
    """Data and tokens as training makes them, without JAX and without a run folder."""
    if sys.argv[1:2] == ["translate"]:
        translate(sys.argv[2:])
        return
    flags, (name, *overrides) = flags_from_command_line(
        "jaxlingua.data", PURPOSE, FLAGS, tuple(Config.model_fields), others=("translate",)
    )
    config = load_config(name, overrides)
    page = _page_file(flags["--html"]) if "--html" in flags else None

    # Imported only now that the configuration is known to be right: tokenizers take their time.
    from rich.console import Console

    from jaxlingua.eval.tasks.make import make_tasks
    from jaxlingua.progress import told
    from jaxlingua.tokens import stages as flow
    from jaxlingua.tokens.facts import describe_data
    from jaxlingua.tokens.page import render_page
    from jaxlingua.tokens.show import show, show_summary
    from jaxlingua.tokens.tokenizer import is_learned, load_tokenizer

    flow.refuse_no_stage(config)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = COLUMNS
    telling = partial(told, partial(print, file=sys.stderr, flush=True))

    # ── 1 data ───────────────────────────────────────────────────────────────────────────────────────────
    with telling("reading data"):
        sources = flow.open_sources(config)
        plain = config.eval.model_copy(update={"in_context": InContextConfig()})  # for the records alone
        tasks = make_tasks(config.model_copy(update={"eval": plain}), sources)
        evaluated = {task.key: task.records for task in tasks}
        examples, leaks = flow.make_examples(config, sources, evaluated)

    # ── 2 tokenize / pack ────────────────────────────────────────────────────────────────────────────────
    cache = None if config.tokens.cache_folder == "auto" else Path(config.tokens.cache_folder)
    with telling("tokenizing and packing") as on_progress:
        tokenizer = load_tokenizer(
            config.tokens, lambda: flow.learned_texts(examples), folder=None, model_path=config.model.path
        )
        stages = flow.make_stages(config, sources, examples, tokenizer, cache=cache, on_progress=on_progress)
    is_own = is_learned(config.tokens, config.model.path)
    what = "learned" if is_own else config.tokens.path or config.model.path

    # ── 3 tell ───────────────────────────────────────────────────────────────────────────────────────────
    with telling("describing"):
        facts = describe_data(sources, leaks, stages, tokenizer, what)
    for stage in stages:
        stage.batches.close()
    if page is None:
        show(console, facts)
        return
    page.write_text(render_page(facts, Path(name).stem), "utf-8")
    beside = page.with_suffix(".json")
    beside.write_text(json.dumps(facts, ensure_ascii=False, indent=1, default=asdict), "utf-8")
    show_summary(console, facts)
    console.print(f"\nall of it: {page} and {beside}", markup=False, soft_wrap=True)


def _page_file(given: str) -> Path:
    """Raises: ConfigError, before any work, if no page can be written there."""
    page = Path(given)
    if page.suffix != ".html":
        raise ConfigError(f"--html: '{given}' given; a name that ends in .html is allowed; rename it")
    if not page.parent.is_dir():
        raise ConfigError(f"--html: '{given}' given, but there is no folder '{page.parent}'; make it first")
    return page


def translate(arguments: list[str]) -> None:
    """`translate FILE …`: an instruction file in another language, by any model that can be run here."""
    from jaxlingua.eval.translate.command import wanted_from

    wanted = wanted_from(arguments)

    from jaxlingua.eval.translate.asking import check_early, translate_file
    from jaxlingua.processes.start import together
    from jaxlingua.processes.stop import signals_stop
    from jaxlingua.progress import told
    from jaxlingua.sharding.mesh import describe_mesh, make_mesh
    from jaxlingua.tracking import Console
    from jaxlingua.train.open_model import other_model
    from jaxlingua.train.run import refuse_wrong_platform

    check_early(wanted)
    with together(wanted.config) as group:
        say = Console(is_primary=group.is_primary).say
        refuse_wrong_platform(wanted.config)
        mesh = make_mesh(wanted.config.sharding)
        say(describe_mesh(mesh))
        model = other_model(wanted.config, "model", wanted.model, mesh, say)
        with signals_stop(group, say) as signals:

            def stop_if_asked() -> None:
                if "stop" in group.boundary("a translation"):
                    code = signals.exit_code
                    raise Stopped(f"answers so far are kept; exit code {code}; run it again to go on", code)

            translate_file(
                wanted, model, mesh, group, say=say, telling=partial(told, say), at_boundary=stop_if_asked
            )


if __name__ == "__main__":
    exit_with_one_line(main)
