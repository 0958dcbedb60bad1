"""Which steps of a folder are whole, which is taken, what is kept; without JAX."""

import base64
import errno
import json
import os
import shutil
import sys
from pathlib import Path

import google_crc32c
import pytest
from etils import epath

from jaxlingua.checkpoint import steps
from jaxlingua.checkpoint.steps import (
    best_steps,
    complete_steps,
    faults,
    keep_only,
    newest_sound,
    remove_leavings,
    write_record,
)
from jaxlingua.errors import ConfigError, MachineError
from jaxlingua.processes.roll_call import alone


def write_step(folder: Path, step: int, metric: float | None = None) -> Path:
    """A step as Orbax and the store leave it: two files, and the record of them."""
    home = folder / str(step)
    (home / "state" / "d").mkdir(parents=True)
    (home / "meta").mkdir()
    (home / "state" / "d" / "array").write_bytes(bytes(range(256)) * step)
    (home / "meta" / "metadata").write_text(json.dumps({"step": step}))
    write_record(epath.Path(home), step, metric)
    return home


@pytest.fixture
def folder(tmp_path: Path) -> epath.Path:
    for step in (4, 8, 12):
        write_step(tmp_path, step)
    return epath.Path(tmp_path)


def taken(folder: epath.Path, *, is_owner: bool = True) -> tuple[int | None, list[str]]:
    told: list[str] = []
    return newest_sound(folder, alone(), told.append, is_owner=is_owner), told


def test_the_newest_step_is_taken_without_a_word(folder):
    assert taken(folder) == (12, [])
    assert complete_steps(folder) == [4, 8, 12]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda home: (home / "state/d/array").unlink(), "state/d/array: it is missing"),
        (
            lambda home: (home / "state/d/array").write_bytes(b"12"),
            "state/d/array: 2 bytes there, 3,072 written",
        ),
        (
            lambda home: (home / "state/d/array").write_bytes(bytes(3072)),
            "state/d/array: its content is not what was written",
        ),
        (lambda home: shutil.rmtree(home / "meta"), "meta/metadata: it is missing"),
        (lambda home: (home / "files.json").write_text("{"), "files.json cannot be read: Expecting"),
        (lambda home: (home / "files.json").write_text("[]"), "files.json cannot be read: "),
    ],
)
def test_a_damaged_step_is_told_and_kept_aside_and_the_one_before_is_taken(folder, damage, reason):
    damage(Path(folder / "12"))
    assert taken(folder, is_owner=False)[0] == 8
    assert (folder / "12").exists(), "who only reads must not move anything"
    step, (line,) = taken(folder)
    assert step == 8
    assert line.startswith(f"{folder}: step 12 is damaged ({reason}")
    assert line.endswith("; it is kept as 12.damaged; looking at step 8")
    assert (folder / "12.damaged" / "meta").exists() or "meta" in reason
    assert taken(folder) == (8, [])


def test_one_flipped_byte_is_found(folder):
    path = Path(folder / "12" / "state" / "d" / "array")
    content = bytearray(path.read_bytes())
    content[1000] ^= 0b100
    path.write_bytes(content)
    assert faults(folder / "12") == ["state/d/array: its content is not what was written"]


def test_a_step_without_the_record_of_its_files_does_not_count(folder):
    Path(folder / "12" / "files.json").unlink()
    Path(folder / "16").mkdir()
    step, lines = taken(folder)
    assert step == 8
    assert ["step 16 is damaged" in lines[0], "step 12 is damaged" in lines[1]] == [True, True]
    assert "(it has no files.json, which is written last); it is kept as 12.damaged" in lines[1]


def test_when_no_step_is_whole_none_is_taken(folder):
    for step in (4, 8, 12):
        Path(folder / str(step) / "state/d/array").unlink()
    step, lines = taken(folder)
    assert step is None
    assert lines[-1].endswith("it is kept as 4.damaged; there is none before it")


def test_a_file_that_may_not_be_read_is_told(folder, monkeypatch):
    real = type(folder).open

    def refuse(self, *args, **kwargs):
        if self.name == "array":
            raise PermissionError(13, os.strerror(13))
        return real(self, *args, **kwargs)

    monkeypatch.setattr(type(folder), "open", refuse)
    assert faults(folder / "12") == ["state/d/array: it cannot be read: Permission denied"]


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.EMFILE])
def test_what_may_be_gone_at_the_next_try_is_no_damage(folder, monkeypatch, code):
    def refuse(self, *_args, **_kwargs):
        raise OSError(code, os.strerror(code), str(self))

    monkeypatch.setattr(type(folder), "open", refuse)
    with pytest.raises(MachineError, match=f"cannot be read now \\({os.strerror(code)}\\); see to the disk"):
        taken(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["12", "4", "8"]


def test_who_only_reads_looks_again_where_the_run_has_removed_a_step(folder, monkeypatch):
    """The newest step goes while its files are read, as a run that trains there goes on."""
    real = steps.faults

    def removing(home, part, parts):
        if home.name == "12" and home.exists():
            shutil.rmtree(home)
            write_step(Path(folder), 16)
        return real(home, part, parts)

    monkeypatch.setattr(steps, "faults", removing)
    assert taken(folder, is_owner=False) == (16, [])


def test_a_step_that_cannot_be_moved_away_is_a_machine_error(folder, monkeypatch):
    Path(folder / "12" / "files.json").unlink()

    def refuse(*_args):
        raise OSError(30, os.strerror(30))

    monkeypatch.setattr(type(folder), "rename", refuse)
    with pytest.raises(
        MachineError, match="12: damaged, and it cannot be moved away \\(Read-only file system"
    ):
        taken(folder)


def test_several_processes_look_at_a_part_of_the_files_each(folder):
    Path(folder / "12" / "state/d/array").unlink()
    parts = [faults(folder / "12", part, 2) for part in range(2)]
    assert sorted(fault for part in parts for fault in part) == faults(folder / "12")
    assert [len(part) for part in parts] == [0, 1]


def test_the_newest_and_the_best_are_kept(tmp_path):
    folder = epath.Path(tmp_path)
    for step, metric in ((1, 3.0), (2, 1.0), (3, None), (4, 1.0), (5, 2.0), (6, 9.0), (7, None)):
        write_step(tmp_path, step, metric)
    assert best_steps(folder) == [4, 2, 5, 1, 6]
    assert best_steps(folder, after=4) == [5, 6]
    keep_only(folder, last=2, best=2)
    assert complete_steps(folder) == [2, 4, 6, 7]
    keep_only(folder, last=1, best=0, also=(4, 5))
    assert complete_steps(folder) == [4, 7]
    keep_only(folder, last=1, best=0)
    assert complete_steps(folder) == [7]


def test_leavings_of_saves_and_removals_go_and_damaged_steps_stay(folder):
    for name in ("16.orbax-checkpoint-tmp", "2", "8.unfinished", "3.damaged", "notes"):
        Path(folder / name).mkdir()
    remove_leavings(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["12", "3.damaged", "4", "8", "notes"]


def test_digests_that_storage_told_are_checked_where_files_were_copied_to(tmp_path):
    """A folder copied from a bucket has crc32c; a changed file is found all the same."""
    home = write_step(tmp_path, 4)
    record = json.loads((home / "files.json").read_text())

    def told(name):
        content = (home / name).read_bytes()
        return [len(content), base64.b64encode(google_crc32c.Checksum(content).digest()).decode()]

    record |= {"algorithm": "crc32c", "files": {name: told(name) for name in record["files"]}}
    (home / "files.json").write_text(json.dumps(record))
    assert faults(epath.Path(home)) == []
    (home / "meta" / "metadata").write_text(json.dumps({"step": 5}))
    assert faults(epath.Path(home)) == ["meta/metadata: its content is not what was written"]


def test_without_the_package_of_those_digests_one_is_told_what_to_install(tmp_path, monkeypatch):
    home = write_step(tmp_path, 4)
    record = json.loads((home / "files.json").read_text())
    (home / "files.json").write_text(json.dumps(record | {"algorithm": "crc32c"}))
    monkeypatch.setitem(sys.modules, "google_crc32c", None)
    with pytest.raises(ConfigError, match=r"was written in a bucket, .* pip install 'jaxlingua\[gcs\]'$"):
        faults(epath.Path(home))
