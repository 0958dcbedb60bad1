"""Show what the model will see: sources, mixture, lengths, tokens per language, and the first documents."""

import sys
from functools import partial
from pathlib import Path

from jaxlingua.command_line import config_from_command_line
from jaxlingua.errors import exit_with_one_line

PURPOSE = "Shows what the model will see: sources, realised mixture, lengths and sample rows; starts no run."
COLUMNS = 120  # where the output is no terminal


def main() -> None:
    """Data and tokens as training makes them, without JAX and without a run folder."""
    config = config_from_command_line("jaxlingua.data", PURPOSE)

    # Imported only now that the configuration is known to be right: tokenizers take their time.
    from rich.console import Console

    from jaxlingua.eval.tasks.make import make_tasks
    from jaxlingua.progress import told
    from jaxlingua.tokens import show
    from jaxlingua.tokens import stages as flow
    from jaxlingua.tokens.tokenizer import is_learned, load_tokenizer

    flow.refuse_no_stage(config)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = COLUMNS
    telling = partial(told, partial(print, file=sys.stderr, flush=True))

    # ── 1 data ───────────────────────────────────────────────────────────────────────────────────────────
    with telling("reading data"):
        sources = flow.open_sources(config)
        evaluated = {task.key: task.records for task in make_tasks(config, sources)}
        examples, leaks = flow.make_examples(config, sources, evaluated)
    show.show_sources(console, sources, leaks)

    # ── 2 tokenize / pack ────────────────────────────────────────────────────────────────────────────────
    cache = None if config.tokens.cache_folder == "auto" else Path(config.tokens.cache_folder)
    with telling("tokenizing and packing") as on_progress:
        tokenizer = load_tokenizer(
            config.tokens, lambda: flow.learned_texts(examples), folder=None, model_path=config.model.path
        )
        stages = flow.make_stages(config, sources, examples, tokenizer, cache=cache, on_progress=on_progress)
    is_own = is_learned(config.tokens, config.model.path)
    what = "learned" if is_own else config.tokens.path or config.model.path
    show.show_tokenizer(console, what, tokenizer, stages)
    for stage in stages:
        show.show_stage(console, stage, tokenizer)


if __name__ == "__main__":
    exit_with_one_line(main)
