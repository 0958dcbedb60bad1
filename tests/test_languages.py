"""Language codes, checked against Unicode CLDR."""

import unicodedata

import babel
import pycountry
import pytest
import regex

from jaxlingua.errors import ConfigError
from jaxlingua.languages import LANGUAGES, check_language, cldr_locale, display_name, is_right_to_left

# Names that the field uses where CLDR prefers another one.
OURS = {"ben_Beng": "Bangla", "zho_Hant": "Chinese", "tgl_Latn": "Filipino", "twi_Latn": "Akan"}


@pytest.mark.parametrize("code", [code for code in LANGUAGES if LANGUAGES[code].cldr])
def test_names_and_scripts_agree_with_cldr(code: str):
    locale = babel.Locale.parse(cldr_locale(code))
    assert locale.english_name.startswith(OURS.get(code, display_name(code).split()[0]))
    likely = babel.core.get_global("likely_subtags").get(str(locale), f"_{LANGUAGES[code].script}_")
    script = {"Hang": "Kore"}.get(LANGUAGES[code].script, LANGUAGES[code].script)  # the field writes kor_Hang
    assert script in likely or locale.script == script


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("jav", "jav_"),
        ("zho_Latn", "zho_Hans"),
        ("de", "deu_Latn"),
        ("Swahili", "swh_Latn"),
        ("??", "ISO 639-3"),
        ("tet_Latm", "ISO 639-3"),
        ("xqx_Latn", "ISO 639-3"),
        ("tet_latn", "ISO 639-3"),
    ],
)
def test_an_unknown_language_is_refused_with_a_hint(given: str, hint: str):
    with pytest.raises(ConfigError, match=f"data.sources.x: unknown language .*; write .*{hint}"):
        check_language(given, "data.sources.x")


@pytest.mark.parametrize(
    ("code", "name"), [("tet_Latn", "Tetum"), ("kab_Tfng", "Kabyle"), ("abk_Cyrl", "Abkhazian")]
)
def test_any_language_of_iso_639_3_is_known_by_its_name(code: str, name: str):
    check_language(code, "data.sources.x")
    assert display_name(code) == name
    assert cldr_locale(code) == ""


def test_a_script_runs_from_right_to_left_where_its_letters_do():
    letters = "".join(c for c in map(chr, range(0x20000)) if unicodedata.category(c).startswith("L"))
    seen = {True: 0, False: 0}
    for script in (script.alpha_4 for script in pycountry.scripts):
        try:
            of_script = regex.findall(rf"\p{{Script={script}}}", letters)
        except regex.error:
            continue  # a variant, such as Aran, or not in Unicode
        if not of_script or script in ("Zyyy", "Zinh", "Zzzz"):
            continue
        runs_left = [unicodedata.bidirectional(letter) in ("R", "AL") for letter in of_script]
        assert is_right_to_left(f"tet_{script}") == (sum(runs_left) > len(runs_left) / 2), script
        seen[runs_left[0]] += 1
    assert seen[True] > 30
    assert seen[False] > 100
