"""The recipes in configs/: each can be loaded, and says what it is in five lines.

The figures in the header of a recipe for TPUs are those of a plan. Here nothing is compiled: they must agree
with one another, with the recipe and with arithmetic.
"""

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from jaxlingua.command_line import load_config
from jaxlingua.config import Config

FOLDER = Path(__file__).parents[1] / "configs"
RECIPES = sorted(FOLDER.glob("*.yaml"))
HEADER = ["What", "Command", "Hardware and wall time", "Memory", "Expected scores"]
MADE_FOR = re.compile(r"_(v4|v5e|v5p|v6e)-(\d+)$")
PLANNED = [recipe for recipe in RECIPES if MADE_FOR.search(recipe.stem)]
CORES = {"v4": 2, "v5p": 2}  # accelerator types of these are named by TensorCores, two to a chip

ARITHMETIC = 0.05  # by how much arithmetic may be off the compiler
ROUNDED = 0.006  # of a figure with three digits, and of a product of two

WALL_TIME = re.compile(
    r"TPU (\S+), (\d+) chips?; estimated (\S+) s a step, MFU (\S+) / (\S+) \(cal / xla\), "
    r"(\S+) chip-hours per 1,000 steps\."
)
MEMORY = re.compile(
    r"(\S+) of (\S+) GiB per chip; planned: python -m jaxlingua\.plan (\S+\.yaml) --topology (\S+)"
)


class Header(NamedTuple):
    """What the header of a recipe for TPUs says of its plan."""

    topology: str
    chips: int
    seconds: float
    cal_mfu: float
    xla_mfu: float
    chip_hours: float
    peak_gib: float
    hbm_gib: float
    config: str


def header(recipe: Path) -> list[str]:
    return recipe.read_text("utf-8").splitlines()[:5]


def plan_of(recipe: Path) -> Header:
    lines = [line.removeprefix("# ").partition(": ")[2] for line in header(recipe)]
    topology, chips, *figures = WALL_TIME.fullmatch(lines[2]).groups()
    peak, hbm, config, planned_for = MEMORY.fullmatch(lines[3]).groups()
    assert planned_for == topology
    return Header(topology, int(chips), *map(float, (*figures, peak, hbm)), config)


def operations_per_token(config: Config) -> int:
    """Six for each parameter that is trained, four for one that is frozen, which has no gradient."""
    from jaxlingua.model.presets import parameter_count, published_sizes

    sizes, lora = published_sizes(config.model.path), config.model.lora
    parameters = parameter_count(sizes)
    if lora == "off":
        return 6 * parameters
    assert lora.targets == "auto"  # all seven: q and o, k and v, gate and up and down
    queries, keys = sizes.heads * sizes.head_dim, sizes.kv_heads * sizes.head_dim
    sides = 2 * (sizes.embed + queries) + 2 * (sizes.embed + keys) + 3 * (sizes.embed + sizes.mlp)
    return 4 * parameters + 6 * lora.rank * sizes.layers * sides


def test_there_are_recipes():
    assert "demo.yaml" in [recipe.name for recipe in RECIPES]
    assert {MADE_FOR.search(recipe.stem)[1] for recipe in PLANNED} == {"v4", "v5e", "v5p", "v6e"}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_a_recipe_loads_and_opens_with_five_lines(recipe: Path):
    config = load_config(str(recipe))
    assert config.stages
    assert config.eval.tasks
    lines = recipe.read_text("utf-8").splitlines()
    assert [line.removeprefix("# ").partition(": ")[0] for line in lines[:5]] == HEADER
    assert not lines[5].startswith("#")
    command = lines[1].partition(": ")[2].split()
    assert command[:3] == ["python", "-m", "jaxlingua.train"]
    assert load_config(command[3]) == config


@pytest.mark.parametrize("recipe", PLANNED, ids=lambda recipe: recipe.stem)
def test_the_header_of_a_recipe_for_tpus_names_a_slice_that_exists_and_figures_that_agree(recipe: Path):
    """Seconds, MFU and chip-hours are three ways to say one thing."""
    from jaxlingua.plan.topology import topology_of

    told, config = plan_of(recipe), load_config(str(recipe))
    chip, count = MADE_FOR.search(recipe.stem).groups()
    topology = topology_of(told.topology)
    assert told.config == recipe.name
    assert topology.chip.name == chip
    assert int(count) == told.chips * CORES.get(chip, 1)
    assert told.chips == topology.chips
    assert told.hbm_gib == topology.chip.hbm_gib
    assert told.chip_hours == pytest.approx(1000 * told.seconds * told.chips / 3600, rel=ROUNDED)
    tokens = config.train.batch_rows * config.tokens.row_length_tokens
    work = operations_per_token(config) * tokens
    ideal = work / (told.chips * topology.chip.peak_tflops * 1e12)
    assert told.cal_mfu == pytest.approx(ideal / told.seconds, rel=ROUNDED)
    assert told.xla_mfu <= told.cal_mfu
    assert config.run.platform == "tpu"
    assert header(recipe)[4] == "# Expected scores: not yet measured."


@pytest.mark.parametrize("recipe", PLANNED, ids=lambda recipe: recipe.stem)
def test_a_recipe_for_tpus_fits_its_chips_by_arithmetic_with_a_twentieth_to_spare(recipe: Path):
    pytest.importorskip("libtpu")
    from jaxlingua.model.llama import Llama
    from jaxlingua.plan.program import planned_origin, planned_vocab_size
    from jaxlingua.plan.topology import devices, topology_of
    from jaxlingua.sharding.memory import step_memory
    from jaxlingua.sharding.mesh import make_mesh
    from jaxlingua.sharding.rules import check_rows, count_micro_batches
    from jaxlingua.train.optimizer import make_optimizer
    from jaxlingua.train.state import abstract_state

    told, config = plan_of(recipe), load_config(str(recipe))
    mesh = make_mesh(config.sharding, devices(topology_of(told.topology)))
    check_rows("generate.batch_rows", config.generate.batch_rows, mesh)
    origin = planned_origin(config)
    sizes = origin.sizes(planned_vocab_size(config, origin))
    state = abstract_state(Llama(sizes), make_optimizer(config.train.optimizer, 1000)[0], mesh)
    train = config.train
    memory = step_memory(
        state, sizes, mesh, batch_rows=train.batch_rows,
        micro_batches=count_micro_batches(train.batch_rows, train.micro_batch_rows, mesh),
        row_length_tokens=config.tokens.row_length_tokens, loss_chunk_tokens=train.loss_chunk_tokens,
    )  # fmt: skip
    assert told.peak_gib <= 0.95 * told.hbm_gib
    assert memory.total < told.hbm_gib * 2**30
    assert memory.total / 2**30 == pytest.approx(told.peak_gib, rel=ARITHMETIC)


def test_the_smallest_slice_for_7b_holds_what_a_smaller_one_cannot():
    """Parameters and AdamW's moments alone are 12 bytes per parameter."""
    told = plan_of(FOLDER / "coit_llama2-7b_zho_v5e-8.yaml")
    state_gib = 12 * 6_738_415_616 / 2**30
    assert 4 * told.hbm_gib < state_gib < told.chips * told.peak_gib
