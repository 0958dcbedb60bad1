"""The wording of prompts: frames, instructions and objectives; ours, or a user's in place of them.

A file of `data.wording_folder` takes the place of ours of the same name, whole. All files are read and
checked before anything is rendered.
"""

import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from babel import Locale

from jaxlingua.command_line import parse_yaml
from jaxlingua.config import DataConfig
from jaxlingua.data.readers import read_text
from jaxlingua.data.slots import slots_of
from jaxlingua.data.wording_checks import CHECKS, ENGLISH
from jaxlingua.errors import ConfigError, nearest
from jaxlingua.languages import cldr_locale, display_name, hub_language, is_of_several_scripts

OURS = Path(str(resources.files("jaxlingua.data"))) / "wording"
FILES = tuple(CHECKS)


@dataclass(frozen=True)
class Wording:
    """The wording of a run: everything around the texts of records. It can be pickled, and hashed.

    Attributes:
        template: the value of `data.template`.
        frames: that of `data.frames`; the language of frames is English or that of the answer.
        fingerprint: sha256 of all that is said here.
        path: the file of localized frames, for errors.
    """

    template: str
    frames: str
    fingerprint: str
    path: str
    _content: Mapping[str, Any] = field(repr=False, compare=False)

    def frames_of(self, language: str) -> Mapping[str, Any]:
        """The frames of the template, as in frames.yaml, for answers in a language.

        Raises: ConfigError where frames are localized and the language has none.
        """
        words = self._localized(language)
        return self._content["frames"] if words is None else words["frames"]

    def translation(self, language: str) -> tuple[str, ...]:
        """Instructions for translating into a language; slots {source_language} and {target_language}."""
        words = self._localized(language)
        return self._content["translation"] if words is None else words["translation"]

    def qa(self, language: str) -> Mapping[str, str]:
        """`instruction` and `input` of a question; slots {context} and {question}."""
        words = self._localized(language)
        return self._content["qa"] if words is None else words["qa"]

    def name(self, code: str, language: str) -> str:
        """The name of language `code` in a frame for answers in `language`.

        Raises: ConfigError where frames are localized and nothing knows the name.
        """
        words = self._localized(language)
        if words is None:
            return display_name(code)
        found = words["names"].get(code) or name_in(code, language)
        if not found:
            raise ConfigError(
                f"{self.path}: {language}.names: nothing given for {code}, and Unicode CLDR has no name "
                f"of it in {language}; a localized instruction needs one; add '{code}: NAME' there"
            )
        return found

    def own_names(self, language: str) -> Mapping[str, str]:
        """The names of languages in `language` that the file of localized frames has."""
        words = self._localized(language)
        return {} if words is None else words["names"]

    def names(self, template: str, source_language: str, target_language: str) -> dict[str, str]:
        """What fills the slots {source_language} and {target_language} of a template that has them."""
        codes = {"source_language": source_language, "target_language": target_language}
        there = slots_of(template)
        return {slot: self.name(code, target_language) for slot, code in codes.items() if slot in there}

    @property
    def objectives(self) -> Mapping[str, tuple[str, ...]]:
        """Templates of denoising, translation, bilingual_denoising and similarity."""
        return self._content["objectives"]

    @property
    def labels(self) -> Mapping[str, str]:
        """What similarity answers: `same` and `different`."""
        return self._content["labels"]

    @property
    def languages(self) -> tuple[str, ...]:
        """Languages that localized frames are there for, beside English; none where frames are English."""
        return tuple(self._content["localized"])

    def _localized(self, language: str) -> Mapping[str, Any] | None:
        """What localized.yaml says; None where frames are English."""
        if self.frames == "english" or language == ENGLISH:
            return None
        words = self._content["localized"]
        if language not in words:
            raise ConfigError(
                f"data.frames: 'localized' given; {self.path} has no frames for answers in {language}, but "
                f"for {', '.join([ENGLISH, *words])}; add it in a localized.yaml of your own in "
                f"data.wording_folder, or write data.frames=english"
            )
        return words[language]


def load_wording(data: DataConfig) -> Wording:
    """The wording that `data.template`, `data.frames` and `data.wording_folder` ask for.

    Raises: ConfigError, or DataError for a file that is not UTF-8, naming file, key and number.
    """
    paths = _paths(data.wording_folder)
    read = {name: _read(name, path) for name, path in paths.items()}
    if data.template not in read["frames"]:
        raise ConfigError(
            f"{paths['frames']}: no frames for data.template={data.template}; "
            f"{', '.join(read['frames'])} are there; add '{data.template}:' with its frames"
        )
    frames = dict(read["frames"][data.template])
    arrow = frames.pop("localized_translation", None)
    content = {
        "frames": frames,
        "translation": read["translation"],
        "qa": read["qa"],
        "objectives": {name: given for name, given in read["objectives"].items() if name != "labels"},
        "labels": read["objectives"]["labels"],
        "localized": {},
    }
    if data.frames == "localized":
        content["localized"] = {
            language: {
                "frames": _localized_frames(frames, arrow, data.template, words["alpaca"]),
                "translation": words["translation"],
                "qa": words["qa"],
                "names": words["names"],
            }
            for language, words in read["localized"].items()
        }
    said = json.dumps([data.template, data.frames, content], sort_keys=True)
    fingerprint = hashlib.sha256(said.encode()).hexdigest()
    return Wording(data.template, data.frames, fingerprint, str(paths["localized"]), content)


def wording_of(template: str, frames: str = "english") -> Wording:
    """Our own wording under a template."""
    return load_wording(DataConfig(template=template, frames=frames))


def name_in(code: str, language: str) -> str:
    """The name of language `code` in `language`, as Unicode CLDR has it; "" where it has none.

    Vietnamese CLDR writes "Tiếng Anh" as at the beginning of a list; within a sentence it is "tiếng Anh".

    Example:
        >>> name_in("deu_Latn", "ind_Latn"), name_in("hat_Latn", "spa_Latn"), name_in("deu_Latn", "min_Latn")
        ('Jerman', 'criollo haitiano', '')
    """
    own, other = cldr_locale(language), cldr_locale(code).removesuffix("_Hans")  # as display_name
    names = Locale.parse(own).languages if own else {}
    keys = [other, other.partition("_")[0], code.partition("_")[0]]  # CLDR names more than it has text in
    if not is_of_several_scripts(code):
        keys.append(hub_language(code))
    found = next((names[key] for key in keys if names.get(key)), "")
    return found.replace("Tiếng ", "tiếng ", 1) if language == "vie_Latn" else found


def _localized_frames(
    frames: Mapping[str, Any], arrow: str | None, template: str, words: Mapping[str, str]
) -> Mapping[str, Any]:
    """Frames of a template in a language: Alpaca's in its words; the others have none of their own.

    Args:
        arrow: stands instead of a template's own frame of translation.
    """
    if template != "alpaca":
        wordless = {name: frame for name, frame in frames.items() if name != "translation"}
        return wordless | ({"translation": arrow} if arrow else {})
    instruction, given, response = (f"### {words[name]}\n" for name in ("instruction", "input", "response"))
    response = response.rstrip("\n")
    opening, opening_with_input = f"{words['opening']}\n\n", f"{words['opening_with_input']}\n\n"
    asked = f"{instruction}{{instruction}}\n\n"
    return {
        "with_input": f"{opening_with_input}{asked}{given}{{input}}\n\n{response}",
        "without_input": f"{opening}{asked}{response}",
        "chat": {
            "opening": opening,
            "opening_with_input": opening_with_input,
            "input_mark": f"\n\n{given}",
            "system": "{text}\n\n",
            "user": f"{instruction}{{text}}\n\n",
            "assistant": response,
            "after_answer": "\n\n",
        },
    }


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────────


def _paths(folder: str) -> dict[str, Path]:
    """The file of each kind of wording: the user's where it is there, else ours."""
    paths = {name: OURS / f"{name}.yaml" for name in FILES}
    if not folder:
        return paths
    where = f"data.wording_folder: '{folder}' given"
    home = Path(folder).expanduser()
    if not home.is_dir():
        raise ConfigError(f"{where}, which is no folder; give one with {_listed()}, or leave it out")
    given = sorted(path for path in home.iterdir() if not path.name.startswith("."))
    for path in given:
        if path.name not in (known.name for known in paths.values()):
            hint = nearest(path.name, [known.name for known in paths.values()])
            raise ConfigError(f"{where}; '{path.name}' in it is no file of wording; {hint}")
    if not given:
        raise ConfigError(f"{where}, which is empty; put one of {_listed()} into it, or leave it out")
    return paths | {path.stem: path for path in given}


def _listed() -> str:
    return ", ".join(f"{name}.yaml" for name in FILES)


def _read(name: str, path: Path) -> Any:
    return _read_once(CHECKS[name], path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _read_once(check: Callable[[Any, str], Any], path: Path, changed: int) -> Any:
    return check(parse_yaml(read_text(path, "data.wording_folder"), str(path)), str(path))
