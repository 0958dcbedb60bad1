"""Ask a model: one prompt, the lines of a file, a session at the terminal, or a page in the browser."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from jaxlingua.command_line import load_config
from jaxlingua.errors import ConfigError, Stopped, end_with_code
from jaxlingua.generate.command import Wanted, wanted_from
from jaxlingua.generate.framing import is_run

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from jaxlingua.config import Config
    from jaxlingua.generate.asking import Asker
    from jaxlingua.processes.roll_call import Group
    from jaxlingua.train.open_model import Candidate

GIB, MIB = 2**30, 2**20


def main() -> None:
    """Check the command line, open the models, answer. Standard output holds nothing but answers."""
    wanted = wanted_from(sys.argv[1:])

    from jaxlingua.generate.decoding import decoding_of
    from jaxlingua.processes.start import together
    from jaxlingua.sharding.mesh import describe_mesh, make_mesh
    from jaxlingua.tracking import Console
    from jaxlingua.train.run import refuse_wrong_platform

    decoding_of(wanted.config)
    if wanted.lines is not None:
        from jaxlingua.generate.answer_file import check_early

        check_early(wanted)
    if wanted.is_web:
        from jaxlingua.generate.address import check_page

        check_page(wanted.host, wanted.port)
    with together(wanted.config) as group:
        say = Console(is_primary=group.is_primary, stream=sys.stderr).say
        refuse_wrong_platform(wanted.config)
        if group.count > 1 and wanted.question is None and wanted.lines is None:
            what = "--web" if wanted.is_web else "a session"
            raise ConfigError(
                f"{what}: {group.count} processes given; one is allowed; give PROMPT or --file, or start one"
            )
        mesh = make_mesh(wanted.config.sharding)
        say(describe_mesh(mesh))
        candidates = dict(candidates_of(wanted, mesh, say))
        if wanted.lines is not None:
            fill(wanted, candidates, mesh, group, say)
            return
        askers = [opened(name, one, wanted, mesh, say) for name, one in candidates.items()]
        if wanted.is_web:
            from jaxlingua.generate.web import serve

            serve(askers, host=wanted.host, port=wanted.port, say=say)
            return
        answer_typed(wanted, askers, group, say)


def candidates_of(
    wanted: Wanted, mesh: "Mesh", say: Callable[[str], None]
) -> "Iterator[tuple[str, Candidate]]":
    """The models by name, understood, their weights not read yet.

    Raises: what a model cannot be opened for.
    """
    from jaxlingua.train.open_model import other_model

    for name, path in wanted.models.items():
        yield (
            name,
            other_model(wanted.config, name, path, mesh, say) if path else first_of(wanted.config, mesh, say),
        )


def first_of(config: "Config", mesh: "Mesh", say: Callable[[str], None]) -> "Candidate":
    """What a run began from. Raises: ConfigError where it has saved nothing."""
    from jaxlingua.train.open_model import Candidate, Opened, kept_tokenizer, open_base
    from jaxlingua.train.run_folder import opened_run

    with opened_run(config.run.folder, say) as home:
        if home.step is None:
            raise ConfigError(f"RUN: '{config.run.folder}' given, which has saved nothing; train it first")
        tokenizer = kept_tokenizer(config, home.path)

    def open_first(telling: Any) -> Opened:
        with opened_run(config.run.folder, say) as home:
            return open_base(config, home.path, home.step, mesh, telling)

    return Candidate("base", 0, "base", None, tokenizer, open_first)


def opened(
    name: str, candidate: "Candidate", wanted: Wanted, mesh: "Mesh", say: Callable[[str], None]
) -> "Asker":
    """A model with its weights; what it takes of each device is told."""
    import jax

    from jaxlingua.generate.asking import Asker
    from jaxlingua.progress import told

    model = candidate.open(partial(told, say))
    framing, path = wanted.framings[name], wanted.models[name]
    config = wanted.config
    if path and is_run(path):  # its languages are offered
        config = config.model_copy(update={"data": load_config(path).data})
    leaves = jax.tree.leaves(model.params)
    used = sum(leaf.addressable_shards[0].data.nbytes for leaf in leaves)
    say(f"{name}: {sum(leaf.size for leaf in leaves):,} parameters, {size(used)} on each device")
    say(f"{name}: {framing.about}")
    return Asker(name, model, config, mesh, framing)


def size(count: int) -> str:
    """Bytes as people say them.

    >>> [size(count) for count in (52_000, 90 * MIB, GIB)]
    ['0.05 MiB', '90.00 MiB', '1.00 GiB']
    """
    return f"{count / GIB:.2f} GiB" if count >= GIB / 10 else f"{count / MIB:.2f} MiB"


def fill(
    wanted: Wanted,
    candidates: "Mapping[str, Candidate]",
    mesh: "Mesh",
    group: "Group",
    say: Callable[[str], None],
) -> None:
    """`--file`: its lines with their answers."""
    from jaxlingua.generate.answer_file import answer_file
    from jaxlingua.processes.stop import signals_stop
    from jaxlingua.progress import told
    from jaxlingua.sharding.rules import check_rows

    check_rows("generate.batch_rows", wanted.config.generate.batch_rows, mesh)
    ((name, candidate),) = candidates.items()
    with signals_stop(group, say) as signals:

        def stop_if_asked() -> None:
            if "stop" in group.boundary("answers of a file"):
                code = signals.exit_code
                raise Stopped(f"answers so far are kept; exit code {code}; run it again to go on", code)

        answer_file(
            wanted,
            f"{candidate.source} {candidate.tokenizer.fingerprint}",
            lambda: opened(name, candidate, wanted, mesh, say),
            group,
            say=say,
            telling=partial(told, say),
            at_boundary=stop_if_asked,
        )


def answer_typed(wanted: Wanted, askers: "list[Asker]", group: "Group", say: Callable[[str], None]) -> None:
    """One prompt, or a session."""
    from jaxlingua.generate.session import ENDED_BY_CTRL_C, Session, answer, typed_lines

    if hasattr(sys.stdout, "reconfigure"):  # whatever the terminal can show
        sys.stdout.reconfigure(errors="backslashreplace")
    if wanted.question is not None:
        question = replace(wanted.question, text=group.share(wanted.question.text))  # of one standard input
        with open(os.devnull, "w") as nowhere:
            out = sys.stdout if group.is_primary else nowhere
            if not answer(askers, question, out, say):
                raise SystemExit(ENDED_BY_CTRL_C)
        return
    say("each line is a question of its own; /help tells the commands, Ctrl-D ends")
    Session(askers, wanted.asked, sys.stdout, say).run(typed_lines())


if __name__ == "__main__":
    end_with_code(main, goes_on="; answers of --file so far are kept", elsewhere="--output")
