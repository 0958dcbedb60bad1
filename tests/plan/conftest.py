"""The environment of the TPU compiler, and one plan of a tiny model that the tests of a worker share."""

import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import pytest
import yaml
from jax.experimental.compilation_cache import compilation_cache

from jaxlingua.errors import exit_with_one_line
from jaxlingua.plan.__main__ import choose_platform, main

TINY = {
    "model": {"preset": "tiny-test"},
    "data": {"sources": {"phrases": {"kind": "cldr", "languages": ["eng_Latn", "deu_Latn", "spa_Latn"]}}},
    "tokens": {"vocab_size": 300, "row_length_tokens": 128},
    "stages": [{"name": "coit", "mixture": {"phrases": {}}, "steps": 1500}],
    "train": {"batch_rows": 16},
    "generate": {"batch_rows": 64},
}


@contextmanager
def compiler_environment() -> Iterator[None]:
    """What the command sets, taken back at the end: other tests ask it whether there is a TPU.

    Programs for TPUs are compiled as users have them: with all optimizations, and not from the tests' cache.
    """
    before = dict(os.environ)
    hurried = jax.config.read("jax_disable_most_optimizations")
    cached = jax.config.jax_enable_compilation_cache
    choose_platform()
    os.environ.pop("JAX_DISABLE_MOST_OPTIMIZATIONS", None)
    _compile(hurried=False, cached=False)
    try:
        yield
    finally:
        _compile(hurried=hurried, cached=cached)
        os.environ.clear()
        os.environ.update(before)


def _compile(hurried: bool, cached: bool) -> None:
    """How programs are compiled from now on."""
    jax.config.update("jax_disable_most_optimizations", hurried)
    jax.config.update("jax_enable_compilation_cache", cached)
    compilation_cache.reset_cache()  # else JAX does not ask again whether there is one


@pytest.fixture(autouse=True)
def in_compiler_environment() -> Iterator[None]:
    with compiler_environment():
        yield


@dataclass(frozen=True)
class Answer:
    """What a call of the command printed, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def plan(*arguments: str) -> Answer:
    """`python -m jaxlingua.plan ARGUMENTS`, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, compiler_environment():
        patch.setattr(sys, "argv", ["plan", *arguments])
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
            exit_with_one_line(main)
    return Answer(ended.value.code, out.getvalue(), err.getvalue())


@dataclass(frozen=True)
class Planned:
    """A plan that was compiled, and where its result lies."""

    config: Path
    cache: Path
    program: Path
    table: Answer


@pytest.fixture(scope="session")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Planned:
    """A tiny model on eight chips: compiled once, dumped, and kept in a cache of its own."""
    folder = tmp_path_factory.mktemp("planned")
    config, program = folder / "tiny.yaml", folder / "step.txt"
    config.write_text(yaml.safe_dump(TINY), "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        table = plan(str(config), "--topology", "v5e:2x4", "--dump", str(program))
    return Planned(config, folder / "cache", program, table)


@pytest.fixture
def cache(planned: Planned, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of `planned` as the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(planned.cache))
    return planned.cache
