"""python -m jaxlingua.analysis hands on to its commands."""

import sys

import pytest

from jaxlingua.analysis import __main__
from jaxlingua.errors import ConfigError


def test_a_command_gets_what_follows_its_name(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["jaxlingua.analysis", "scaling", "--help"])
    with pytest.raises(SystemExit) as end:
        __main__.main()
    assert end.value.code == 0
    assert "python -m jaxlingua.analysis scaling TABLE" in capsys.readouterr().out


def test_commands_that_are_there_are_listed_and_no_others(monkeypatch, capsys):
    monkeypatch.setattr(__main__, "COMMANDS", {"scaling": "laws", "missing": "nothing"})
    monkeypatch.setattr(sys, "argv", ["jaxlingua.analysis"])
    with pytest.raises(SystemExit) as end:
        __main__.main()
    assert end.value.code == 2
    told = capsys.readouterr().out
    assert "scaling" in told
    assert "missing" not in told
    monkeypatch.setattr(sys, "argv", ["jaxlingua.analysis", "scalign", "t.csv"])
    with pytest.raises(ConfigError, match="'scalign' given; did you mean 'scaling'"):
        __main__.main()
