"""Compile the training step for TPUs that are not attached, and tell memory, time and what to change."""

import importlib.util
import json
import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from jaxlingua.bucket import is_bucket
from jaxlingua.command_line import Flag, flags_from_command_line, load_config
from jaxlingua.errors import ConfigError, MachineError, drop_output, exit_with_one_line
from jaxlingua.plan.topology import topology_of

if TYPE_CHECKING:
    from jaxlingua.config import Config
    from jaxlingua.plan.report import Plan
    from jaxlingua.plan.topology import Topology

PURPOSE = """\
Compiles the step that training runs with the real TPU compiler, for chips that need not be there, and tells
memory per chip, estimated step time, collectives, chip-hours and, where it does not fit, what to change.
No data is read. A compilation takes 1 to 4 minutes; the result is stored, and told again within seconds.
With --search up to 12 such plans are made, and the fastest that fits is written with a plot of all.
Exit code: 0 if the step fits, 1 if it does not (or the machine failed), 2 if what was given is wrong."""
SECTIONS = ("model", "tokens", "sharding", "stages", "train")
FLAGS = (
    Flag("--topology", "TPU slice: v4, v5e, v5p or v6e, a colon and its shape.", "v5e:8x8", is_needed=True),
    Flag("--slices", "How many such slices; sharding.mesh.data spans them.", "2"),
    Flag(
        "--search",
        "Try meshes, remat policies and micro-batches; write the best as a configuration.",
        "[FILE.yaml]",
    ),
    Flag("--json", "Print one JSON object instead of a table."),
    Flag("--dump", "File to write the scheduled program's text to.", "FILE"),
)


def main() -> None:
    """Check the command line, compile or look up, print; the exit code tells whether it fits."""
    given, (name, *overrides) = flags_from_command_line("jaxlingua.plan", PURPOSE, FLAGS, SECTIONS)
    refuse_without_compiler()
    topology = topology_of(given["--topology"], given.get("--slices", "1"))
    dump = check_dump(given["--dump"]) if "--dump" in given else None
    wanted = check_search(given, name, topology) if "--search" in given else None
    config = load_config(name, overrides)
    choose_platform()
    if wanted is not None:
        make_search(config, name, overrides, topology, wanted, is_json="--json" in given)
        sys.exit(0)

    plan = make_plan(config, name, topology)
    from jaxlingua.plan.report import as_json, as_table

    tell(json.dumps(as_json(plan), indent=1) if "--json" in given else as_table(plan))
    if dump is not None:
        write_program(dump, plan)
    sys.exit(0 if plan.fits else 1)


def make_plan(config: "Config", name: str, topology: "Topology") -> "Plan":
    """Lower the step, compile it unless that is stored, and estimate."""
    # Imported only now that the command line is known to be right: JAX and Orbax take seconds.
    from jaxlingua.plan import program, store
    from jaxlingua.plan.estimate import estimate, roofline
    from jaxlingua.plan.report import Plan
    from jaxlingua.sharding.memory import step_memory
    from jaxlingua.train.fit import no_remedy, remedies
    from jaxlingua.train.run import model_size

    lowering = f"lowering the step for {topology.describe()}"
    lowered = program.told_while(say, lowering, lambda: program.lower_step(config, topology))
    key = store.key_of(lowered.lowered.as_text(), program.identity(lowered, topology))
    stored = store.load(store.store_folder(), key)
    if stored.damage:
        say(f"stored result damaged, compiling again: {stored.damage}")
    if stored.unreadable:
        say(f"stored results cannot be read, so this one is compiled: {stored.unreadable}")
    compiled = stored.compiled
    if compiled is None:
        say("compiling; 7 billion parameters take 1 to 4 minutes")
        compiled = program.told_while(say, "compiling", lambda: program.compile_step(lowered.lowered))
        try:
            store.save(store.store_folder(), key, compiled)
        except OSError as error:
            say(f"{store.store_folder()}: the result is not stored: {error.strerror or error}")
    sizes, mesh, train = lowered.sizes, lowered.mesh, config.train
    memory = step_memory(
        lowered.state, sizes, mesh, batch_rows=train.batch_rows, micro_batches=lowered.micro_batches,
        row_length_tokens=config.tokens.row_length_tokens, loss_chunk_tokens=train.loss_chunk_tokens,
    )  # fmt: skip
    chip = topology.chip
    is_too_large = not compiled.fits or compiled.peak > chip.hbm_bytes
    found = remedies(config, sizes, mesh, chip.hbm_bytes) if is_too_large else []
    estimated = None
    if compiled.text:
        estimated = estimate(compiled.text, chip, topology.shape)
    elif compiled.fits:
        estimated = roofline(config, sizes, mesh, chip, topology.shape)
    return Plan(
        config=name,
        topology=topology,
        mesh=dict(mesh.shape),
        batch_rows=train.batch_rows,
        micro_batches=lowered.micro_batches,
        row_length_tokens=config.tokens.row_length_tokens,
        size=model_size(sizes),
        memory=memory,
        compiled=compiled,
        is_stored=stored.compiled is not None,
        estimate=estimated,
        remedies=found,
        stages=tuple(config.stages),
        versions=program.versions(),
        no_remedy=no_remedy(config, sizes, mesh) if is_too_large and not found else "",
    )


def make_search(
    config: "Config", name: str, overrides: list[str], topology: "Topology", wanted: Path, *, is_json: bool
) -> None:
    """Search, write the best to `wanted` and the plot beside it, print all candidates."""
    from jaxlingua.plan import findings
    from jaxlingua.plan.search import search

    found = search(config, name, overrides, topology, say)
    findings.write(found, wanted, overrides)
    if is_json:
        tell(json.dumps(findings.as_json(found, wanted), indent=1))
    else:
        tell(f"{findings.as_table(found)}\nwritten: {wanted} and {findings.plot_of(wanted)}")


def refuse_without_compiler() -> None:
    """Raises: ConfigError where the TPU compiler is not installed or does not exist for this machine."""
    system, machine = platform.system(), platform.machine()
    if (system, machine) != ("Linux", "x86_64"):
        raise ConfigError(
            f"jaxlingua.plan: this machine is {system} {machine}; the TPU compiler exists for Linux x86_64; "
            f"plan on such a machine, it needs no TPU"
        )
    if importlib.util.find_spec("libtpu") is None:
        raise ConfigError(
            "jaxlingua.plan: libtpu is not installed; it is the TPU compiler, and needs no TPU; "
            "pip install 'jaxlingua[plan]'"
        )


def check_dump(name: str) -> Path:
    """Raises: ConfigError where no file can be written there, before minutes are spent."""
    path = Path(name).expanduser()
    if path.is_dir():
        raise ConfigError(f"--dump: '{name}' given, which is a folder; the name of a file is allowed")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"--dump: '{name}' given; there is no folder '{path.parent}'; make it first")
    written = path if path.exists() else path.absolute().parent
    if not os.access(written, os.W_OK):
        raise ConfigError(f"--dump: '{name}' given; '{written}' cannot be written; give another file")
    return path


def check_search(given: dict[str, str], name: str, topology: "Topology") -> Path:
    """The file that the best of a search is written to.

    Raises: ConfigError where it cannot be, or where it or the plot beside it is there already.
    """
    if "--dump" in given:
        raise ConfigError("--dump: given with --search, which plans many steps; leave one of them out")
    if is_bucket(name):
        raise ConfigError(
            f"--search: '{name}' given, which is in a bucket; a configuration on this machine can be "
            f"extended; copy its config.yaml here"
        )
    slices = f"-x{topology.slices}" if topology.slices > 1 else ""
    stem = Path(name).name.removesuffix(".yaml")
    file = given["--search"] or f"{stem}-{topology.name.replace(':', '-')}{slices}.yaml"
    path = Path(file).expanduser()
    if path.suffix != ".yaml":
        raise ConfigError(
            f"--search: '{file}' given; a name that ends in .yaml is allowed; write --search best.yaml"
        )
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"--search: '{file}' given; there is no folder '{path.parent}'; make it first")
    for there in (path, path.with_suffix(".png")):
        if there.exists():
            raise ConfigError(
                f"--search: '{there}' is there already, and nothing is overwritten; move it, or give another "
                f"name with --search FILE.yaml"
            )
    return path


def write_program(path: Path, plan: "Plan") -> None:
    """Raises: ConfigError where the compiler gave no program, MachineError where it cannot be written."""
    if not plan.compiled.text:
        raise ConfigError(
            f"--dump: '{path}' given; there is no scheduled program to write ({plan.compiled.no_text}); "
            f"leave --dump out"
        )
    try:
        path.write_text(plan.compiled.text, "utf-8")
    except OSError as error:
        raise MachineError(
            f"--dump: '{path}' given; {error.strerror or error}; give another file, or free some space"
        ) from None
    say(f"{path}: {len(plan.compiled.text) / 2**20:.1f} MiB of program text")


def choose_platform() -> None:
    """The environment that JAX and libtpu are started in: no device is touched, nothing is asked for."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # what it keeps of such programs cannot be read back
    os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"
    os.environ["TPU_SKIP_MDS_QUERY"] = "1"
    # Only so that libtpu does not complain of a machine without a TPU; the topology decides.
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-8")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")


def tell(text: str) -> None:
    """The plan, on standard output.

    Raises: MachineError where that cannot be written, as a file on a full disk.
    """
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        drop_output()
        raise MachineError(
            f"standard output: {error.strerror or error}; free some space, or send it elsewhere, and run the "
            f"same command again: what was compiled is stored"
        ) from None


def say(sentence: str) -> None:
    """On stderr, so that what is printed is the plan alone."""
    print(sentence, file=sys.stderr, flush=True)


if __name__ == "__main__":
    exit_with_one_line(main)
