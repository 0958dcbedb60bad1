"""Which sentences are compared: those of translations, the same ones in all languages."""

from pathlib import Path

import pytest

from jaxlingua.analysis.alignment.sentences import Sentences, read_sentences, translations, with_tokens
from jaxlingua.config import CldrSource, Config
from jaxlingua.data.cldr import open_cldr
from jaxlingua.errors import ConfigError, DataError
from tests.tiny import tiny_tokenizer

DEVTEST = "flores200_dataset/devtest/{}.devtest"


def write(folder: Path, **texts: list[str]) -> None:
    for language, them in texts.items():
        path = folder / DEVTEST.format(language)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(them) + "\n", "utf-8")


def read(folder: Path, *tasks: str, **changes) -> Sentences:
    asked = {"tasks": list(tasks), "data_folder": str(folder), **changes}
    return read_sentences(translations(Config.model_validate({"eval": asked})), {})


def test_the_same_sentences_in_all_languages_however_many_tasks_name_them(tmp_path):
    write(
        tmp_path,
        eng_Latn=["one", "two", "three"],
        deu_Latn=["eins", "zwei", "drei"],
        fra_Latn=["un", "deux", "trois"],
    )
    found = read(
        tmp_path,
        "flores.eng_Latn-deu_Latn",
        "flores.deu_Latn-eng_Latn",
        "flores.fra_Latn-eng_Latn",
        "xquad.eng_Latn",
    )
    assert found.texts == {
        "eng_Latn": ("one", "two", "three"), "deu_Latn": ("eins", "zwei", "drei"), "fra_Latn": ("un", "deux", "trois"),
    }  # fmt: skip
    assert found.pairs == (("eng_Latn", "deu_Latn"), ("fra_Latn", "eng_Latn"))
    assert (found.source, found.available, len(found.ids)) == ("flores", 3, 3)


@pytest.mark.parametrize(
    "arm", [{"labels": "target"}, {"align": "query", "parallel": "flores.dev"}, {"exemplars": "mono"}]
)
def test_what_a_run_is_asked_in_is_no_part_of_its_sentences(arm, tmp_path):
    """Neither labels nor the text that exemplars would be of are there."""
    write(tmp_path, eng_Latn=["one", "two"], deu_Latn=["eins", "zwei"])
    found = read(tmp_path, "flores.eng_Latn-deu_Latn", in_context=arm)
    assert found == read(tmp_path, "flores.eng_Latn-deu_Latn")


def test_a_sentence_that_is_empty_in_one_language_is_dropped_in_all_and_counted(tmp_path):
    write(
        tmp_path,
        eng_Latn=["one", " ", "three", "four"],
        deu_Latn=["eins", "zwei", "drei", "vier"],
        fra_Latn=["un", "deux", "", "quatre"],
    )
    found = read(tmp_path, "flores.eng_Latn-deu_Latn", "flores.eng_Latn-fra_Latn")
    assert found.texts == {
        "eng_Latn": ("one", "four"),
        "deu_Latn": ("eins", "vier"),
        "fra_Latn": ("un", "quatre"),
    }
    assert found.left_out == {"no text in eng_Latn": 1, "no text in fra_Latn": 1}  # once, in whichever task
    assert (len(found.ids), found.available) == (2, 2)


def test_a_sentence_that_a_file_does_not_have_is_counted_as_such(tmp_path):
    """Of Tatoeba's pairs each has a file of its own, which leaves nothing out."""
    home = tmp_path / "tatoeba" / "v1"
    home.mkdir(parents=True)
    for code, count in (("deu", 2), ("ell", 5)):
        (home / f"tatoeba.{code}-eng.eng").write_text("".join(f"sentence {n}\n" for n in range(count)))
        (home / f"tatoeba.{code}-eng.{code}").write_text("a\n" * count)
    found = read(tmp_path, "tatoeba.eng_Latn-deu_Latn", "tatoeba.eng_Latn-ell_Grek")
    assert found.left_out == {"not in all languages": 3}
    assert (len(found.ids), found.available) == (2, 2)


def test_each_sentence_that_is_dropped_is_counted_once_for_all_files(tmp_path):
    """Files that both lack sentences and have empty ones: of 6, numbers 0 and 1 are in all languages."""
    home = tmp_path / "tatoeba" / "v1"
    home.mkdir(parents=True)
    for code, texts in (("deu", "a\nb\nc\n\n"), ("ell", "a\nb\n\n\ne\nf\n"), ("fra", "a\nb\nc\nd\n\n")):
        lines = texts.count("\n")
        (home / f"tatoeba.{code}-eng.eng").write_text("".join(f"sentence {n}\n" for n in range(lines)))
        (home / f"tatoeba.{code}-eng.{code}").write_text(texts)
    found = read(tmp_path, *(f"tatoeba.{code}-eng_Latn" for code in ("deu_Latn", "ell_Grek", "fra_Latn")))
    assert found.left_out == {"no text in deu_Latn": 1, "no text in ell_Grek": 1, "no text in fra_Latn": 1, "not in all languages": 1}  # fmt: skip
    assert (len(found.ids), sum(found.left_out.values())) == (2, 4)


def test_a_sample_is_of_the_sentences_that_all_languages_have(tmp_path):
    """What is not in the sample of one task is not left out."""
    empty = [f"texte {n}" if n % 2 else "" for n in range(40)]
    write(
        tmp_path,
        eng_Latn=[f"sentence {n}" for n in range(40)],
        deu_Latn=[f"Satz {n}" for n in range(40)],
        fra_Latn=empty,
    )
    found = read(tmp_path, "flores.eng_Latn-deu_Latn", "flores.eng_Latn-fra_Latn", items=12)
    assert (len(found.ids), found.available) == (12, 20)
    assert found.left_out == {"no text in fra_Latn": 20}
    assert found.ids == read(tmp_path, "flores.eng_Latn-fra_Latn", items=12).ids


def test_eval_items_says_how_many_and_texts_that_were_not_translated_are_counted(tmp_path):
    english = [f"sentence {n}" for n in range(9)]
    write(tmp_path, eng_Latn=english, deu_Latn=[*english[:4], *(f"Satz {n}" for n in range(5))])
    assert len(read(tmp_path, "flores.eng_Latn-deu_Latn", items=5).ids) == 5
    found = read(tmp_path, "flores.eng_Latn-deu_Latn")
    assert found.untranslated == {"eng_Latn-deu_Latn": 4}


def test_sentences_of_a_source_are_those_of_the_languages_asked(tmp_path):
    source = open_cldr("phrases", CldrSource(languages=["eng_Latn", "deu_Latn", "ell_Grek"], records=30))
    config = Config.model_validate(
        {"data": {"sources": {"phrases": source.config}}, "eval": {"tasks": ["phrases.eng_Latn-ell_Grek"]}}
    )
    found = read_sentences(translations(config), {"phrases": source})
    assert list(found.texts) == ["eng_Latn", "ell_Grek"]
    assert found.texts["ell_Grek"][0] == source.records("all")[0].texts["ell_Grek"]


def test_a_sentence_without_tokens_is_dropped_in_all_languages():
    texts = {"eng_Latn": ("a", "", "c"), "deu_Latn": ("x", "y", "z")}
    found = with_tokens(
        Sentences("s", "all", ("0", "1", "2"), texts, (("eng_Latn", "deu_Latn"),), 3, {}), [tiny_tokenizer()]
    )
    assert found.texts == {"eng_Latn": ("a", "c"), "deu_Latn": ("x", "z")}
    assert found.left_out == {"no token": 1}


@pytest.mark.parametrize(
    ("tasks", "error", "message"),
    [
        ([], ConfigError, "eval.tasks: none given; parallel sentences are needed; add a translation, such as"),
        (["xquad.eng_Latn"], ConfigError, "eval.tasks: xquad.eng_Latn given; parallel sentences are needed"),
        (["xquad.eng_Latn-deu_Latn"], ConfigError, "given, which are no translations; parallel sentences are needed"),
        (["flores.eng_Latn-deu_Latn", "flores.dev.eng_Latn-deu_Latn"], ConfigError, "translations of flores.devtest and flores.dev given"),
        (["flores.eng_Latn-fra_Latn"], DataError, "'flores' has 1 sentences in all of eng_Latn, fra_Latn .left out: no text in fra_Latn 2"),
        (["flores.eng_Latn-xho_Latn"], DataError, "xho_Latn"),
        (["floress.eng_Latn-deu_Latn"], ConfigError, "flores"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused(tasks, error, message, tmp_path):
    write(
        tmp_path, eng_Latn=["one", "two", "three"], deu_Latn=["eins", "zwei", "drei"], fra_Latn=["un", "", ""]
    )
    dev = tmp_path / "flores200_dataset" / "dev"
    dev.mkdir()
    for name in ("eng_Latn", "deu_Latn"):
        (dev / f"{name}.dev").write_text("one\ntwo\n")
    (tmp_path / "xquad").mkdir()
    for name in ("en", "de"):
        text = '{"data": [{"paragraphs": [{"context": "a b", "qas": [{"id": "1", "question": "c?", "answers": [{"text": "a", "answer_start": 0}]}]}]}]}'
        (tmp_path / "xquad" / f"xquad.{name}.json").write_text(text)
    with pytest.raises(error, match=message):
        read(tmp_path, *tasks)


def test_numbers_that_stand_for_other_sentences_in_each_pair_are_refused(tmp_path):
    """Sentence 0 of Tatoeba's German pairs is not sentence 0 of its Greek ones."""
    home = tmp_path / "tatoeba" / "v1"
    home.mkdir(parents=True)
    for code, english in (("deu", "one\ntwo\n"), ("ell", "dog\ncat\n")):
        (home / f"tatoeba.{code}-eng.eng").write_text(english)
        (home / f"tatoeba.{code}-eng.{code}").write_text("a\nb\n")
    assert read(tmp_path, "tatoeba.eng_Latn-deu_Latn").texts["eng_Latn"] == ("one", "two")
    with pytest.raises(DataError, match="sentence 0: not the eng_Latn text that another task has"):
        read(tmp_path, "tatoeba.eng_Latn-deu_Latn", "tatoeba.eng_Latn-ell_Grek")
