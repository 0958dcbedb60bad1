"""Old text encoded twice: what changed is counted, and shown."""

import json
from collections import Counter

import pytest

from jaxlingua.tokens import fast
from jaxlingua.tokens.extend.changes import Change, changes_of, own_old_texts
from jaxlingua.tokens.extend.words import count_words, most_frequent, write_bytes
from tests.tiny import tiny_parallel, tiny_tokenizer


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """The tiny tokenizer, and the same with one more piece, "zq", and one for two letters of Thai."""
    folder = tmp_path_factory.mktemp("planted")
    tiny_tokenizer().save(folder)
    rules = json.loads((folder / "tokenizer.json").read_text())
    thai = [write_bytes(letter) for letter in "ฮฮ"]
    for left, right in (("z", "q"), (thai[0][0], thai[0][1]), (thai[0][:2], thai[0][2]), tuple(thai)):
        rules["model"]["vocab"].setdefault(left + right, len(rules["model"]["vocab"]))
        if [left, right] not in rules["model"]["merges"]:
            rules["model"]["merges"].append([left, right])
    (folder / "tokenizer.json").write_text(json.dumps(rules))
    return fast.load(str(folder))


def test_a_planted_change_is_counted_token_by_token(planted):
    texts = ["dog sees", "zq", "dog zq zq! cat", "z q", ""]
    changes = changes_of(tiny_tokenizer(), planted, texts)
    before = sum(len(encoding.ids) for encoding in tiny_tokenizer().encode_batch(texts))
    assert (changes.texts, changes.changed_texts) == (5, 2)
    assert (changes.tokens_before, changes.tokens_after) == (before, before - 3)
    assert changes.changed_tokens == 6
    assert changes.examples == (
        Change("zq", ("z", "q"), ("zq",)),
        Change("dog zq zq! cat", ("z", "q"), ("zq",)),
    )


def test_bytes_of_characters_that_change_are_counted_each(planted):
    changes = changes_of(tiny_tokenizer(), planted, ["กิ ฮฮ dog", "กิ dog"])
    (before,) = tiny_tokenizer().encode_batch(["ฮฮ"])
    (example,) = changes.examples
    assert changes.changed_tokens == len(before.ids)
    assert (len(example.before), len(example.after)) == (len(before.ids), 1)
    assert "".join(example.before) == "".join(example.after) == write_bytes("ฮฮ")


def test_the_same_tokenizer_changes_nothing():
    texts = [line for lines in tiny_parallel().values() for line in lines[:20]]
    changes = changes_of(tiny_tokenizer(), tiny_tokenizer(), texts)
    assert (changes.changed_texts, changes.changed_tokens, changes.examples) == (0, 0, ())
    assert changes.tokens_before == changes.tokens_after > 100


def test_text_of_our_own_is_in_many_languages_and_leaves_out_what_is_asked():
    texts = own_old_texts()
    assert "Below is an instruction that describes a task." in " ".join(texts)
    assert any("37 kilometers" in text for text in texts)
    for text, language in (
        ("37 กิโลเมตร", "tha_Thai"),
        ("metni şu dile çevir", "tur_Latn"),
        ("37 kilometers", "eng_Latn"),
    ):
        assert any(text in other for other in texts)
        assert not any(text in other for other in own_old_texts([language]))


def test_words_are_cut_where_the_script_changes():
    parts = {"▁omah": 2, "▁3월": 1, "▁(don't": 1, "▁食べる世界abc": 1, "می\u200cخواهم": 1, "▁": 9, "12": 3}
    assert count_words(parts, is_bytes=False) == {
        "▁omah": 2,
        "월": 1,
        "don": 1,
        "t": 1,
        "▁食べる世界": 1,
        "abc": 1,
        "می\u200cخواهم": 1,
    }
    assert count_words({write_bytes(" 'omah ꦧꦱ"): 2}, is_bytes=True) == {
        write_bytes("omah"): 2,
        write_bytes(" ꦧꦱ"): 2,
    }


def test_of_too_many_words_the_most_frequent_ones_are_learned_from(monkeypatch):
    """And of equally frequent ones not those with the first letters."""
    rare = [chr(ord("a") + n % 26) * 2 + chr(ord("a") + n // 26) for n in range(100)]
    words = Counter({"often": 9, "mostly": 5} | dict.fromkeys(rare, 1))
    assert most_frequent(words) == words
    monkeypatch.setattr("jaxlingua.tokens.extend.words.MOST_CHARACTERS", 11 + 3 * 50)
    taken = most_frequent(words)
    assert taken == most_frequent(Counter(dict(reversed(words.items()))))
    assert {"often", "mostly"} < set(taken)
    assert len(taken) == 2 + 50
    kept_late = sum(word in taken for word in sorted(rare)[50:])
    assert 10 < kept_late < 40
