"""What the files of wording must hold: one check per file, which returns what it has read.

Every error names file, key and number, such as "mine/translation.yaml: number 3: slot {target_language} is
not in …".
"""

from collections.abc import Collection
from typing import Any

from jaxlingua.data.readers import cut
from jaxlingua.data.slots import parse_slots, slots_of
from jaxlingua.errors import ConfigError, nearest
from jaxlingua.languages import check_language

ENGLISH = "eng_Latn"  # what frames.yaml, translation.yaml and qa.yaml are in

Slots = tuple[Collection[str], Collection[str]]  # needed, allowed besides

_NONE: Slots = ((), ())
_NAMED: Slots = (("target_language",), ("source_language",))
_TEMPLATES = ("alpaca", "short", "raw")
_FRAMES: dict[str, Slots] = {
    "with_input": (("instruction", "input"), ()),
    "without_input": (("instruction",), ()),
}
_OWN_FRAMES: dict[str, Slots] = {
    "translation": (("input", "target_language"), ("source_language",)),
    "localized_translation": (("input", "target_language"), ("source_language",)),
    "qa": (("context", "question"), ()),
}
_CHAT: dict[str, Slots] = {
    "opening": _NONE,
    "system": (("text",), ()),
    "user": (("text",), ()),
    "assistant": _NONE,
    "after_answer": _NONE,
}
_OWN_CHAT: dict[str, Slots] = {"opening_with_input": _NONE, "input_mark": _NONE}
_QA: dict[str, Slots] = {"instruction": _NONE, "input": (("context", "question"), ())}
_ALPACA = ("opening", "opening_with_input", "instruction", "input", "response")
# Needed slots, further ones, and the slot of the answer, which is the last.
_OBJECTIVES: dict[str, tuple[Slots, str]] = {
    "denoising": ((("source_text", "target_text"), ("source_language",)), "target_text"),
    "translation": ((("source_text", "target_language", "target_text"), ("source_language",)), "target_text"),
    "bilingual_denoising": (
        (("source_text", "context", "target_text"), ("source_language", "context_language")),
        "target_text",
    ),
    "similarity": (
        (("source_text", "target_text", "label"), ("source_language", "target_language")),
        "label",
    ),
}


def check_frames(given: Any, where: str) -> dict[str, dict[str, Any]]:
    """Frames by template, see frames.yaml."""
    for template, frames in _map(given, where, allowed=_TEMPLATES).items():
        place = f"{where}: {template}"
        _map(frames, place, needed=[*_FRAMES, "chat"], allowed=_OWN_FRAMES)
        _map(frames["chat"], f"{place}.chat", needed=_CHAT, allowed=_OWN_CHAT)
        for key, slots in (_FRAMES | _OWN_FRAMES).items():
            if key in frames:
                _template(frames[key], f"{place}.{key}", slots)
        for key, slots in (_CHAT | _OWN_CHAT).items():
            if key in frames["chat"]:
                _template(frames["chat"][key], f"{place}.chat.{key}", slots, may_be_empty=slots == _NONE)
        for key in ("system", "user"):
            if slots_of(frames["chat"][key]).count("text") > 1:
                raise ConfigError(
                    f"{place}.chat.{key}: slot {{text}} given twice; it may stand once; mend it"
                )
    return given


def check_translation(given: Any, where: str) -> tuple[str, ...]:
    """Instructions of translation, one or more."""
    return _list(given, f"{where}:", _NAMED)


def check_qa(given: Any, where: str) -> dict[str, str]:
    """Instruction and input of a question."""
    for key, text in _map(given, where, needed=_QA).items():
        _template(text, f"{where}: {key}", _QA[key])
    return given


def check_objectives(given: Any, where: str) -> dict[str, Any]:
    """Templates of each objective, and the labels of similarity."""
    _map(given, where, needed=[*_OBJECTIVES, "labels"])
    labels = _map(given["labels"], f"{where}: labels", needed=("same", "different"))
    for key, text in labels.items():
        _template(text, f"{where}: labels.{key}", _NONE)
    if labels["same"] == labels["different"]:
        raise ConfigError(
            f"{where}: labels: both are '{labels['same']}'; two different texts are needed; mend one"
        )
    checked: dict[str, Any] = {"labels": labels}
    for name, (slots, answer) in _OBJECTIVES.items():
        checked[name] = _list(given[name], f"{where}: {name},", slots)
        for number, template in enumerate(checked[name]):
            _answer_is_last(template, answer, f"{where}: {name}, number {number + 1}")
    return checked


def check_localized(given: Any, where: str) -> dict[str, dict[str, Any]]:
    """Words by language: of Alpaca's frame, of translation and questions, and names of languages."""
    checked = {}
    for language, words in _map(given, where).items():
        check_language(str(language), where)
        place = f"{where}: {language}"
        if language == ENGLISH:
            raise ConfigError(
                f"{place} given; English is in frames.yaml, translation.yaml and qa.yaml; leave it out here"
            )
        _map(words, place, needed=("alpaca", "translation", "qa"), allowed=("names",))
        for key, text in _map(words["alpaca"], f"{place}.alpaca", needed=_ALPACA).items():
            _template(text, f"{place}.alpaca.{key}", _NONE)
        for key, text in _map(words["qa"], f"{place}.qa", needed=_QA).items():
            _template(text, f"{place}.qa.{key}", _QA[key])
        names = _map(words["names"], f"{place}.names") if "names" in words else {}
        for code, name in names.items():
            check_language(str(code), f"{place}.names")
            _template(name, f"{place}.names.{code}", _NONE)
        translation = _list(words["translation"], f"{place}.translation,", _NAMED)
        checked[language] = {**words, "translation": translation, "names": names}
    return checked


CHECKS = {
    "frames": check_frames,
    "translation": check_translation,
    "qa": check_qa,
    "objectives": check_objectives,
    "localized": check_localized,
}


def _map(
    given: Any, where: str, *, needed: Collection[str] = (), allowed: Collection[str] = ()
) -> dict[str, Any]:
    """`given` if it is a map with the needed keys, and no others than these and the allowed ones, if any."""
    if not isinstance(given, dict) or not given:
        keys = ", ".join([*needed, *allowed]) or "language codes"
        raise ConfigError(f"{where}: {_shown(given)} given; a map is needed; its keys are {keys}")
    known = [*needed, *allowed]
    for key in given:
        if known and key not in known:
            raise ConfigError(f"{where}: unknown key '{key}'; {nearest(str(key), known)}")
    missing = [key for key in needed if key not in given]
    if missing:
        raise ConfigError(f"{where}: no '{missing[0]}'; {', '.join(needed)} are needed; add it")
    return given


def _list(given: Any, where: str, slots: Slots) -> tuple[str, ...]:
    if not isinstance(given, list) or not given:
        raise ConfigError(
            f"{where[:-1]}: {_shown(given)} given; a list of one or more texts is needed; write '- \"…\"'"
        )
    for number, template in enumerate(given, 1):
        _template(template, f"{where} number {number}", slots)
    return tuple(given)


def _template(text: Any, where: str, slots: Slots, *, may_be_empty: bool = False) -> None:
    """Refuse what is no text, lacks a slot that is needed, or has one that nothing fills."""
    if not isinstance(text, str) or not (text.strip() or may_be_empty):
        raise ConfigError(f"{where}: {_shown(text)} given; a text is needed; write one in quotes")
    needed, allowed = slots
    there = slots_of(text)
    for slot in there:
        if slot not in needed and slot not in allowed:
            hint = nearest(slot, [*needed, *allowed], "known slots:")
            raise ConfigError(f"{where}: unknown slot {{{slot}}} in {_shown(text)}; {hint}")
    for slot in needed:
        if slot not in there:
            raise ConfigError(f"{where}: slot {{{slot}}} is not in {_shown(text)}; it is needed; put it in")


def _answer_is_last(template: str, answer: str, where: str) -> None:
    *_, (before, slot), (after, _) = parse_slots(template)
    if slot != answer or after or slots_of(template).count(answer) > 1:
        raise ConfigError(
            f"{where}: {_shown(template)} given; {{{answer}}}, which is the answer, stands once and at "
            f"the end; move it"
        )
    if not before:
        raise ConfigError(
            f"{where}: {_shown(template)} given; between {{{answer}}} and the slot before it text or a line "
            f"break is needed; put \\n there"
        )


def _shown(given: Any) -> str:
    text = str(given).replace("\n", "\\n")
    return "nothing" if given in (None, "", [], {}) else f"'{cut(text)}'"
