"""What is kept of a compilation: told again as it was, and never where anything about it is not right."""

import gzip
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from jaxlingua.plan import store

COMPILED = store.Compiled(
    fits=True,
    peak=2**30,
    arguments=2**29,
    temporaries=2**28,
    outputs=2**29,
    aliased=2**29,
    code=12345,
    seconds=41.25,
    text="HloModule jit_train_step — ü\n",
    no_text="",
)
ABOUT = {"topology": "v5e:2x4", "slices": 1, "versions": {"libtpu": "0.0.51"}}
KEY = store.key_of("module @jit_train_step", ABOUT)


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    store.save(tmp_path, KEY, COMPILED)
    return tmp_path


def entry(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def test_what_was_kept_is_told_again_as_it_was(kept: Path):
    assert store.load(kept, KEY) == store.Stored(COMPILED)


@pytest.mark.parametrize(
    "changed",
    [{"topology": "v5e:8x8"}, {"slices": 2}, {"versions": {"libtpu": "0.0.52"}}, {"options": {"a": True}}],
)
def test_another_topology_version_or_option_is_another_entry(changed: dict):
    assert store.key_of("module @jit_train_step", ABOUT | changed) != KEY
    assert store.key_of("module @other", ABOUT) != KEY


def test_what_was_never_compiled_is_not_there(tmp_path: Path):
    assert store.load(tmp_path / "absent", KEY) == store.Stored(None)


def test_a_half_written_entry_is_not_trusted(kept: Path):
    path = entry(kept)
    for size in (0, 1, 20, path.stat().st_size // 2, path.stat().st_size - 1):
        packed = path.read_bytes()
        path.write_bytes(packed[:size])
        found = store.load(kept, KEY)
        assert found.compiled is None
        assert found.damage.startswith(f"{path}: ")
        path.write_bytes(packed)
    assert store.load(kept, KEY).compiled == COMPILED


def test_an_entry_with_a_flipped_bit_is_not_trusted(kept: Path):
    path = entry(kept)
    packed = path.read_bytes()
    for place in range(10, len(packed)):  # behind the header, of which some bits mean nothing
        flipped = bytearray(packed)
        flipped[place] ^= 4
        path.write_bytes(flipped)
        assert store.load(kept, KEY).compiled is None


def test_a_folder_that_cannot_be_read_is_not_called_damage(kept: Path):
    path = entry(kept)
    below_a_file = path / "plans"
    found = store.load(below_a_file, KEY)
    assert found == store.Stored(None, unreadable=f"{below_a_file}: Not a directory")
    path.unlink()
    path.mkdir()
    assert store.load(kept, KEY) == store.Stored(None, unreadable=f"{kept}: Is a directory")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda content: content["compiled"].update(peak=1), "changed since it was written"),
        (lambda content: content.update(key="0" * 64), "of another step, or of another version of jaxlingua"),
        (
            lambda content: content["compiled"].pop("code"),
            "of another step, or of another version of jaxlingua",
        ),
        (lambda content: content.pop("compiled"), "of another step, or of another version of jaxlingua"),
    ],
)
def test_an_entry_that_says_something_else_is_not_trusted(kept: Path, change, told: str):
    path = entry(kept)
    content = json.loads(gzip.decompress(path.read_bytes()))
    change(content)
    path.write_bytes(gzip.compress(json.dumps(content).encode()))
    assert store.load(kept, KEY) == store.Stored(None, f"{path}: {told}")


def test_an_entry_that_is_no_map_is_not_trusted(kept: Path):
    entry(kept).write_bytes(gzip.compress(b"[]"))
    assert store.load(kept, KEY).compiled is None


def test_a_save_that_fails_leaves_the_old_entry_and_nothing_beside(
    kept: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        store.save(kept, KEY, replace(COMPILED, peak=7))
    assert entry(kept).name == f"{KEY}.json.gz"
    assert store.load(kept, KEY).compiled == COMPILED


def test_the_entry_that_was_not_used_for_longest_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    keys = [store.key_of(f"step {n}", ABOUT) for n in range(4)]
    for age, key in enumerate(keys[:3]):
        store.save(tmp_path, key, COMPILED)
        os.utime(tmp_path / f"{key}.json.gz", (1000 + age, 1000 + age))
    store.load(tmp_path, keys[0])  # used now, so the second is the oldest
    size = (tmp_path / f"{keys[0]}.json.gz").stat().st_size
    monkeypatch.setattr(store, "LARGEST_BYTES", 3 * size + size // 2)
    store.save(tmp_path, keys[3], COMPILED)
    assert {path.name for path in tmp_path.iterdir()} == {f"{keys[n]}.json.gz" for n in (0, 2, 3)}


def test_the_folder_is_in_the_users_cache(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert store.store_folder() == Path("/elsewhere/jaxlingua/plans")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/ann")
    assert store.store_folder() == Path("/home/ann/.cache/jaxlingua/plans")
