"""Every block of YAML on the pages is a configuration, or becomes one where what stands around it is added."""

from typing import Any

import pytest
import yaml

from jaxlingua.command_line import check_config
from jaxlingua.config import Config, MixtureEntry, StageConfig
from tests.docs.shell import PAGES, blocks_of

# Pages whose YAML is no configuration, and the test that uses it.
OTHERS = {"docs/tasks.md": "tests/eval/tasks/test_docs.py", "docs/wording.md": "tests/data/test_wordings.py"}
# Adapters stand beside a public checkpoint.
AROUND = {
    "docs/adapters.md": {"model": {"init": "huggingface", "path": "meta-llama/Llama-3.2-1B", "lora": {}}}
}

BLOCKS = [
    pytest.param(page, block, id=f"{page}:{line}")
    for page in PAGES
    if page not in OTHERS
    for line, block in blocks_of(page, "yaml")
]


def whole(part: dict[str, Any]) -> dict[str, Any]:
    """A configuration with the part that a page shows: of it all, of a stage, of its mixture, or sources.

    What it extends, which stands elsewhere, is left out.
    """
    part = {name: value for name, value in part.items() if name != "extends"}
    if part.keys() <= Config.model_fields.keys():
        return part
    if part.keys() <= StageConfig.model_fields.keys():
        return {"stages": [{"name": "shown", **({} if "steps" in part else {"epochs": 1}), **part}]}
    if all("kind" in value for value in part.values()):
        return {"data": {"sources": part}}
    assert all(value.keys() <= MixtureEntry.model_fields.keys() for value in part.values()), part
    return whole({"mixture": part})


def with_sources(config: dict[str, Any]) -> dict[str, Any]:
    """`config` with parallel text for every entry of a mixture that no source is shown for."""
    sources = dict(config.get("data", {}).get("sources", {}))
    for stage in config.get("stages", []):
        for name, entry in stage["mixture"].items():
            languages = entry.get("direction", "eng_Latn-jav_Latn").split("-")
            sources.setdefault(name, {"kind": "parallel", "path": "text.{language}", "languages": languages})
    return {**config, "data": {**config.get("data", {}), "sources": sources}}


@pytest.mark.parametrize(("page", "block"), BLOCKS)
def test_a_block_is_a_configuration(page: str, block: str):
    shown = whole(yaml.safe_load(block))
    config = check_config(with_sources({**AROUND.get(page, {}), **shown}), page)
    for section, given in shown.items():
        assert getattr(config, section) != getattr(Config(), section), f"{section}: {given} changes nothing"
