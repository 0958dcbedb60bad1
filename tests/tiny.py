"""The tiny world that tests share: a model, and what it reads."""

from dataclasses import replace
from functools import cache

from jaxlingua.data.example import Example
from jaxlingua.model.presets import PRESETS, LlamaConfig
from jaxlingua.tokens import fast, learned
from jaxlingua.tokens.tokenizer import Tokenizer


# ── model ────────────────────────────────────────────────────────────────────
def tiny_llama_config(**changes: object) -> LlamaConfig:
    """Two layers of width 64, four query heads on two key heads, in float32; `changes` replace fields."""
    return replace(PRESETS["tiny-test"], **changes)


# ── languages and tokenizer ──────────────────────────────────────────────────
# English is English. The others are made up: Thai writes no spaces and puts marks on its letters, Hebrew runs
# from right to left, Greek shares no letter with English. They differ in word order too.
TINY_LANGUAGES = ("eng_Latn", "tha_Thai", "heb_Hebr", "ell_Grek")

_SUBJECTS = ("dog", "cat", "bird", "child", "king", "fish", "teacher", "friend", "farmer", "horse")
_VERBS = ("sees", "likes", "finds", "follows", "hears")
_OBJECTS = ("house", "boat", "stone", "garden")
_ADJECTIVES = ("small", "red", "old", "quiet", "warm")
_ENGLISH = (*_SUBJECTS, *_VERBS, *_OBJECTS, *_ADJECTIVES)
_SYLLABLES = {
    "tha_Thai": ("กิ", "มา", "นู", "ตี้", "ปะ"),
    "heb_Hebr": ("של", "ומ", "בר", "כת", "דג"),
    "ell_Grek": ("κα", "λο", "νι", "με", "ρου"),
}


def _word(language: str, english: str) -> str:
    number = _ENGLISH.index(english)
    return english if language == "eng_Latn" else "".join(_SYLLABLES[language][i] for i in divmod(number, 5))


def _sentence(language: str, line: int) -> str:
    subject, verb = _SUBJECTS[line % 10], _VERBS[line // 10 % 5]
    adjective, object_ = _ADJECTIVES[line * 7 % 5], _OBJECTS[line // 50 % 4]
    words = {
        "eng_Latn": (subject, verb, adjective, object_),
        "tha_Thai": (subject, verb, object_, adjective),
        "heb_Hebr": (verb, subject, object_, adjective),
        "ell_Grek": (subject, adjective, object_, verb),
    }[language]
    return ("" if language == "tha_Thai" else " ").join(_word(language, word) for word in words)


@cache
def tiny_parallel() -> dict[str, tuple[str, ...]]:
    """200 different lines that mean the same in each language."""
    return {language: tuple(_sentence(language, line) for line in range(200)) for language in TINY_LANGUAGES}


@cache
def tiny_tokenizer(vocab_size: int = 384) -> Tokenizer:
    """A byte-level BPE with <pad>=0, <s>=1 and </s>=2, learned on the parallel set."""
    texts = [line for lines in tiny_parallel().values() for line in lines]
    return fast.from_files(learned.learn(texts, vocab_size), "tests/tiny.py")


def tiny_translations(direction: str = "eng_Latn-tha_Thai", source: str = "tiny") -> list[Example]:
    """One example per line: the sentence, a line break, its translation as the answer."""
    source_language, target_language = direction.split("-")
    lines = zip(tiny_parallel()[source_language], tiny_parallel()[target_language], strict=True)
    return [
        Example(
            source,
            i,
            target_language,
            f"{given}\n{answer}",
            ((len(given) + 1, len(given) + 1 + len(answer)),),
        )
        for i, (given, answer) in enumerate(lines)
    ]
