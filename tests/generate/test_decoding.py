"""What is asked of a model, and which settings are refused since one of them would have no effect."""

import pytest

from jaxlingua.errors import ConfigError
from jaxlingua.generate.decoding import Decoding


def test_a_signature_tells_everything_that_changes_an_answer():
    assert Decoding(seed=3).signature == "greedy"
    assert Decoding(beams=4, length_penalty=0.6, seed=3).signature == "beams4,length_penalty0.6"
    assert Decoding(temperature=1.0).signature == "sample,temperature1,top_k0,top_p1,seed0"
    settings = Decoding(temperature=0.7, top_k=40, top_p=0.9, seed=3)
    assert settings.signature == "sample,temperature0.7,top_k40,top_p0.9,seed3"


def test_settings_without_effect_are_refused():
    with pytest.raises(
        ConfigError, match=r"generate.beams: 2 given with generate.temperature=0.5; .* set one"
    ):
        Decoding(beams=2, temperature=0.5)
    with pytest.raises(
        ConfigError, match=r"generate.top_k: 5 given with generate.temperature=0, .*; it needs"
    ):
        Decoding(top_k=5)
    with pytest.raises(ConfigError, match=r"generate.top_p: 0.9 given with generate.temperature=0, .* leave"):
        Decoding(top_p=0.9)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("temperature", -0.5, "0 or a finite number above"),
        ("temperature", float("nan"), "0 or a finite"),
        ("temperature", float("inf"), "0 or a finite"),
        ("top_k", -1, "0, which is all tokens, or more"),
        ("top_p", 0.0, "a number above 0, at most 1"),
        ("top_p", 1.5, "a number above 0, at most 1"),
        ("beams", 0, "1, which is no beam search, or more"),
        ("length_penalty", float("nan"), "a finite number"),
    ],
)
def test_values_out_of_range_are_refused(name, value, allowed):
    others = {"temperature": 1.0} if name.startswith("top") else {}
    with pytest.raises(
        ConfigError, match=rf"^generate.{name}: {value:g} given; it must be {allowed}.*change it$"
    ):
        Decoding(**others, **{name: value})
