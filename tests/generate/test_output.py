"""A file of answers: where none can be written, and a process that ends at every moment of its end."""

import errno
import json
import shutil
import tempfile

import pytest

from jaxlingua.errors import ConfigError
from jaxlingua.generate.__main__ import GIB, MIB, size
from jaxlingua.generate.output import check_output, held, is_done, journal_folder, write_record

SETTINGS = {"file": "a", "model": "b"}


@pytest.mark.parametrize("number", [errno.EROFS, errno.EPERM, errno.ENOENT])
def test_a_folder_that_takes_no_file_is_refused(tmp_path, monkeypatch, number):
    def refuses(dir):
        raise OSError(number, "no", str(dir))

    check_output(tmp_path / "out.jsonl")
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(tempfile, "TemporaryFile", refuses)
    with pytest.raises(ConfigError, match=r"--output: '.*out.jsonl' given, in a folder where no file can be"):
        check_output(tmp_path / "out.jsonl")
    (tmp_path / "out.jsonl").touch()
    check_output(tmp_path / "out.jsonl")  # which may be whole


@pytest.mark.parametrize("are_all", [True, False])
def test_a_whole_output_is_done_whatever_its_folder_still_holds(tmp_path, monkeypatch, are_all):
    output, record = tmp_path / "out", tmp_path / "out.settings.json"
    known = SETTINGS if are_all else {"file": "a"}
    monkeypatch.setattr(shutil, "rmtree", lambda folder: None)  # it is ended before
    with held(output, SETTINGS):
        assert not is_done(output, known, record, what="answers", are_all=are_all)
        write_record(record, {"settings": SETTINGS})
        assert not is_done(output, known, record, what="answers", are_all=are_all)
        output.touch()
    assert (journal_folder(output) / "settings.json").is_file()
    assert is_done(output, known, record, what="answers", are_all=are_all)
    with pytest.raises(ConfigError, match="begun with file 'a'; now 'c' is given"):
        is_done(output, known | {"file": "c"}, record, what="answers", are_all=are_all)


def test_a_full_disk_is_told_with_the_name_of_the_folder(tmp_path):
    with pytest.raises(OSError) as failure, held(tmp_path / "out", SETTINGS):
        raise OSError(errno.EFBIG, "File too large")
    assert failure.value.filename == str(tmp_path / "out.unfinished")
    assert json.loads((tmp_path / "out.unfinished" / "settings.json").read_text())["settings"] == SETTINGS


def test_a_small_model_is_told_in_mib():
    assert [size(count) for count in (52_000, 90 * MIB, GIB)] == ["0.05 MiB", "90.00 MiB", "1.00 GiB"]
