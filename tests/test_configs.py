"""The recipes in configs/: each can be loaded, and says what it is in five lines."""

from pathlib import Path

import pytest

from jaxlingua.command_line import load_config

RECIPES = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))
HEADER = ["What", "Command", "Hardware and wall time", "Memory", "Expected scores"]


def test_there_are_recipes():
    assert "demo.yaml" in [recipe.name for recipe in RECIPES]


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
