"""Extended tokenizers: old ids, new pieces, both files and both libraries, all kinds."""

import json
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as RustTokenizer
from tokenizers import models, pre_tokenizers
from transformers import AutoTokenizer

from jaxlingua.errors import TokenizerError
from jaxlingua.tokens import fast
from jaxlingua.tokens.extend import Extension, extend
from jaxlingua.tokens.extend.base import read_base, readers
from jaxlingua.tokens.extend.words import count_words
from tests.tokens.extend.bases import (
    BASES,
    NAMES,
    byte_level,
    new_texts,
    old_texts,
    phrases,
    read_proto,
    save,
    sentencepiece_model,
    with_json,
    without_model,
)

SCRIPTS = st.sampled_from("abé กิมาตี้κλν हिंदी ሰኞ ꦧꦱ 世界🦙\u200c\n ,1")
any_text = st.text(st.characters(exclude_categories=["Cs"]) | SCRIPTS, max_size=30)


@pytest.fixture(scope="module", params=BASES)
def base(request, tmp_path_factory) -> Path:
    return BASES[request.param](tmp_path_factory.mktemp("base") / "base")


@pytest.fixture(scope="module")
def extension(base) -> Extension:
    return extend(base, new_texts(), 300)


@pytest.fixture(scope="module")
def folder(extension, tmp_path_factory) -> Path:
    return write(extension, tmp_path_factory.mktemp("extended"))


def write(extension: Extension, folder: Path) -> Path:
    for name, content in extension.files.items():
        (folder / name).write_bytes(content)
    return folder


def cut(folder: Path, texts) -> list[list[str]]:
    """Into pieces, by the first file that is there, at the beginning of a document."""
    return readers(read_base(folder).files, str(folder))[0](list(texts))


# ── every kind ───────────────────────────────────────────────────────────────
def test_new_pieces_stand_behind_the_old_ones_which_keep_their_ids(base, folder, extension):
    old, new = read_base(base), read_base(folder)
    assert old.ids.items() <= new.ids.items()
    assert extension.first_id == old.first_id
    assert [piece.id for piece in extension.pieces] == list(range(old.first_id, extension.vocab_size))
    assert {piece.piece: piece.id for piece in extension.pieces} == {
        piece: number for piece, number in new.ids.items() if piece not in old.ids
    }
    assert len(extension.pieces) == 300


def test_new_text_takes_fewer_tokens_and_old_text_no_more(base, folder):
    before, after = cut(base, new_texts()), cut(folder, new_texts())
    if read_base(base).has_bytes or read_base(base).is_bytes:
        assert sum(map(len, after)) < 0.6 * sum(map(len, before))
    else:  # one <unk> stood for many characters
        assert sum("<unk>" in pieces for pieces in before) > 600
        assert not any("<unk>" in pieces for pieces in after)
    assert sum(map(len, cut(folder, old_texts()))) <= sum(map(len, cut(base, old_texts())))


def test_every_new_piece_is_what_its_own_characters_become(folder, extension):
    model = read_base(folder).model
    for piece in extension.pieces:
        assert [token.id for token in model.tokenize(piece.piece)] == [piece.id]


def test_a_new_piece_tells_its_text_and_what_was_written_for_it(base, extension):
    old = read_base(base)
    for piece in extension.pieces:
        assert list(piece.old_ids) == [token.id for token in old.model.tokenize(piece.piece)]
        assert len(piece.text) <= 16
    by_text = {piece.text: piece for piece in extension.pieces}
    assert len(by_text[" ኪሎሜትር"].old_ids) > 1
    assert sum(not piece.text for piece in extension.pieces) < (60 if old.is_bytes else 1)


def test_only_words_of_one_script_are_learned(extension, folder):
    is_bytes = read_base(folder).is_bytes
    for piece in extension.pieces:
        if len(piece.text.strip()) > 1:
            (word,) = count_words({piece.piece: 1}, is_bytes)
            assert word == piece.piece


@given(text=any_text)
@settings(max_examples=80, deadline=None)
def test_every_text_comes_back_as_it_did(base, folder, text):
    for before, after in zip(readers_of(base), readers_of(folder), strict=True):
        if "<unk>" not in (told := after([text])[0]):
            assert spell(told) == spell(before([text])[0]) or "<unk>" in before([text])[0]
    if (folder / "tokenizer.json").is_file():
        old, new = tokenizers_of(base), tokenizers_of(folder)
        for continuation in (False, True):
            (encoding,) = new.encode_batch([text], continuation=continuation)
            (was,) = old.encode_batch([text], continuation=continuation)
            assert new.decode(encoding.ids) == old.decode(was.ids) or not read_base(base).has_bytes


_KEPT: dict = {}


def readers_of(folder: Path):
    if ("readers", folder) not in _KEPT:
        _KEPT["readers", folder] = readers(read_base(folder).files, str(folder))
    return _KEPT["readers", folder]


def tokenizers_of(folder: Path):
    if ("fast", folder) not in _KEPT:
        _KEPT["fast", folder] = fast.load(str(folder))
    return _KEPT["fast", folder]


def spell(pieces: list[str]) -> bytes:
    """The text of pieces, with bytes as bytes."""
    return b"".join(
        bytes([int(piece[3:5], 16)]) if piece.startswith("<0x") and len(piece) == 6 else piece.encode()
        for piece in pieces
    )


def test_transformers_loads_it_with_our_ids(base, folder):
    old, new = AutoTokenizer.from_pretrained(base), AutoTokenizer.from_pretrained(folder)
    ours = readers_of(folder)[0]
    old_ids, ids = read_base(base).ids, read_base(folder).ids
    for text in [*new_texts()[::20], *old_texts()[::40], "<think> a</s>b", "12 ꦧꦱ 🦙\n"]:
        told = new(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        was = old(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        if was == [old_ids[piece] for piece in readers_of(base)[0]([text])[0]]:
            assert told == [ids[piece] for piece in ours([text])[0]], text
        else:  # a rule of their own
            assert text in ("<think> a</s>b", "12 ꦧꦱ 🦙\n"), text
    assert new.convert_tokens_to_ids("</s>") == old.convert_tokens_to_ids("</s>")


@pytest.mark.parametrize("added_class", ["LlamaTokenizer", "PreTrainedTokenizerFast"])
def test_a_class_with_rules_of_its_own_has_our_ids_where_it_had_them(added_class, tmp_path):
    """LlamaTokenizer builds itself anew from the pieces and merges of the file."""
    made = with_json(sentencepiece_model(tmp_path / "base"))
    settings = NAMES | {"unk_token": "<unk>", "tokenizer_class": added_class}
    (made / "tokenizer_config.json").write_text(json.dumps(settings))
    folder = write(extend(made, new_texts(), 300), tmp_path)
    theirs = AutoTokenizer.from_pretrained(folder)
    ids = read_base(folder).ids
    texts = [*new_texts()[::10], *old_texts()[::40], "12 ꦧꦱ 🦙\n"]
    for text, pieces in zip(texts, cut(folder, texts), strict=True):
        told = theirs(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        assert told == [ids[piece] for piece in pieces], text
    assert theirs.convert_tokens_to_ids(["<|end|>", "<think>", "</s>"]) == [
        ids["<|end|>"],
        ids["<think>"],
        ids["</s>"],
    ]
    assert len(theirs) == max(ids.values()) + 1


# ── both files ───────────────────────────────────────────────────────────────
@pytest.fixture(scope="module", params=[True, False], ids=["bytes", "no bytes"])
def both(request, tmp_path_factory) -> Path:
    """An extended folder with both files."""
    made = with_json(sentencepiece_model(tmp_path_factory.mktemp("both"), byte_fallback=request.param))
    return write(extend(made, new_texts(), 400), tmp_path_factory.mktemp("both extended"))


@given(text=any_text)
@settings(max_examples=150, deadline=None)
def test_both_files_give_the_same_ids(both, text):
    for fast_ids, own_ids in zip(*ids_of_both(both, text), strict=True):
        assert fast_ids == own_ids


def ids_of_both(folder: Path, text: str) -> tuple[list[list[int]], list[list[int]]]:
    """Of tokenizer.json and of tokenizer.model, at the beginning of a document and within one."""
    if ("both", folder) not in _KEPT:
        proto = read_proto(folder)
        processors = [sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())]
        proto.normalizer_spec.add_dummy_prefix = False
        processors.append(sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString()))
        _KEPT["both", folder] = processors
    fast_ids = [
        tokenizers_of(folder).encode_batch([text], continuation=within)[0].ids.tolist()
        for within in (False, True)
    ]
    return fast_ids, [own.encode(text) for own in _KEPT["both", folder]]


def test_both_files_give_the_same_ids_on_the_texts_themselves(both):
    for text in [*new_texts(), *old_texts(), "a<|end|>b"]:
        fast_ids, own_ids = ids_of_both(both, text)
        assert fast_ids == own_ids, text
    fast_ids, own_ids = ids_of_both(both, "a<think>b")  # tokenizer.json begins anew behind an added token
    assert fast_ids[1] == own_ids[1]


def test_numbers_that_only_the_json_had_are_pieces_of_their_names(both):
    pieces = read_proto(both).pieces
    ids = read_base(both).ids
    named = {token: pieces[ids[token]] for token in ("<|end|>", "<think>")}
    assert {token: (piece.piece, piece.type) for token, piece in named.items()} == {
        "<|end|>": ("<|end|>", 3),
        "<think>": ("<think>", 4),
    }
    assert [piece.piece for piece in pieces] == [
        piece for piece, _ in sorted(ids.items(), key=lambda item: item[1])
    ]


def test_an_old_piece_that_a_new_one_makes_possible_is_taken_by_both_files(tmp_path):
    """ "▁quiet" is old; where its halves are "▁qu" and "iet", and "iet" is new, tokenizer.json must say so."""
    made = with_json(sentencepiece_model(tmp_path / "base"))
    base = read_base(made)
    words = [
        f"{a}{b}" for a in ("ka", "lo", "ni", "me", "ru", "qu") for b in ("iet", "imb", "ogo", "ard", "ous")
    ]
    folder = write(extend(made, [" ".join(words), " ".join(reversed(words))] * 3, 60), tmp_path)
    before = read_base(folder).rules["model"]["merges"][: len(base.rules["model"]["merges"])]
    assert before != base.rules["model"]["merges"], "no new piece is half of an old one; take other words"
    for text in [" ".join(words), *words, *old_texts()]:
        fast_ids, own_ids = ids_of_both(folder, text)
        assert fast_ids == own_ids, text


# ── text that is to keep its tokens ──────────────────────────────────────────
@pytest.fixture(scope="module")
def old_words() -> list[str]:
    """Old text that shares words and bytes with the new."""
    return [*old_texts()[::3], *phrases("jv")[::2], *phrases("mr")[::2], "κλ 12 ሰኞ\n🦙"]


def test_kept_texts_keep_their_tokens_and_others_do_not(base, old_words, tmp_path):
    if not (read_base(base).is_bytes or read_base(base).has_bytes):  # the next test has what it cannot write
        written = cut(base, old_words)
        old_words = [text for text, pieces in zip(old_words, written, strict=True) if "<unk>" not in pieces]
    assert len(old_words) > 100
    folder = write(extend(base, new_texts(), 300, kept=old_words), tmp_path)
    for before, after in zip(readers_of(base), readers_of(folder), strict=True):
        assert before(old_words) == after(old_words)
    free = write(extend(base, new_texts(), 300), tmp_path)
    assert readers(read_base(free).files, "free")[0](old_words) != readers_of(base)[0](old_words)


def test_new_text_that_cannot_be_written_while_old_text_is_kept_is_refused(tmp_path):
    folder = sentencepiece_model(tmp_path, byte_fallback=False)
    with pytest.raises(TokenizerError) as error:
        extend(folder, new_texts(), 300, kept=["ก ሰ dog"])
    assert str(error.value) == (
        f"{folder}: has no piece and no bytes for 'ก', 'ሰ', which stand in text that is to keep its tokens too; "
        f"take them out of the texts, or let tokens change"
    )


def test_a_whole_part_of_kept_text_is_no_piece_where_whole_parts_come_first(tmp_path):
    """With ignore_merges a part that is a piece is taken whole, whatever pairs there are."""
    folder = byte_level(tmp_path / "base", ignore_merges=True)
    texts = ["λονι λονι κλονι κλονι"] * 3
    free = {piece.text for piece in extend(folder, texts, 40).pieces}
    kept = {piece.text for piece in extend(folder, texts, 40, kept=["dog λονι"]).pieces}
    assert " λονι" in free
    assert " λονι" not in kept


# ── more than once ───────────────────────────────────────────────────────────
def test_an_extension_can_be_extended(base, folder, extension, tmp_path):
    again = extend(folder, phrases("ka"), 60)
    assert again.first_id == extension.vocab_size
    more = write(again, tmp_path)
    before, after = cut(folder, phrases("ka")), cut(more, phrases("ka"))
    if read_base(base).is_bytes or read_base(base).has_bytes:
        assert sum(map(len, after)) < 0.6 * sum(map(len, before))
    assert not any("<unk>" in pieces for pieces in after)
    assert read_base(folder).ids.items() <= read_base(more).ids.items()
    if (more / "tokenizer.model").is_file() and (more / "tokenizer.json").is_file():
        for text in [*phrases("ka"), *new_texts()[::5]]:
            fast_ids, own_ids = ids_of_both(more, text)
            assert fast_ids == own_ids, text


def test_the_same_texts_in_another_order_give_the_same_files(base, extension):
    assert extend(base, new_texts()[::-1], 300).files == extension.files


# ── other files ──────────────────────────────────────────────────────────────
def test_files_of_older_layout_are_kept_valid(tmp_path):
    """Merges as one text, a vocab.json and a merges.txt beside, and added tokens in the configuration."""
    folder = byte_level(tmp_path / "base")
    rules = json.loads((folder / "tokenizer.json").read_text())
    rules["model"]["merges"] = [" ".join(pair) for pair in rules["model"]["merges"]]
    (folder / "tokenizer.json").write_text(json.dumps(rules))
    (folder / "vocab.json").write_text(json.dumps(rules["model"]["vocab"]))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(rules["model"]["merges"]) + "\n")
    (folder / "README.md").write_text("not of the tokenizer")
    added = {"<s>": 420, "</s>": 421, "<think>": 422}
    (folder / "added_tokens.json").write_text(json.dumps(added))
    extension = extend(folder, new_texts(), 50)
    written = json.loads(extension.files["tokenizer.json"])
    assert all(isinstance(pair, str) for pair in written["model"]["merges"])
    assert extension.files["merges.txt"].decode().splitlines()[1:] == written["model"]["merges"]
    vocabulary = json.loads(extension.files["vocab.json"])
    assert vocabulary | added == written["model"]["vocab"]
    assert set(extension.files) == {path.name for path in folder.iterdir()} - {"README.md"}
    assert extension.files["tokenizer_config.json"] == (folder / "tokenizer_config.json").read_bytes()


def test_bytes_that_a_byte_level_alphabet_lacks_come_first(tmp_path):
    folder = byte_level(tmp_path / "base", alphabet=False)
    assert "<unk>" not in cut(folder, ["ሰኞ"])[0]
    assert cut(folder, ["ሰኞ"]) == [[]], "what it does not have it leaves out"
    extension = extend(folder, phrases("am"), 120)
    assert not extension.pieces[0].old_ids
    new = write(extension, tmp_path)
    for text in phrases("am"):
        (encoding,) = fast.load(str(new)).encode_batch([text])
        assert fast.load(str(new)).decode(encoding.ids) == text


def test_line_breaks_and_rare_characters_stay_bytes_where_there_are_bytes(tmp_path):
    folder = without_model(with_json(sentencepiece_model(tmp_path / "base")))
    texts = ["ሰኞ\nሰኞ\n" * 2000, "🦙"]
    pieces = [piece.piece for piece in extend(folder, texts, 50).pieces]
    assert set("ሰኞ") <= set(pieces)
    assert not {"\n", "🦙"} & set(pieces)


# ── refused ──────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("texts", "count", "message"),
    [
        (["ሰኞ"], 0, "0 new pieces asked for; give at least 1"),
        ([], 9, "no words of letters in 0 texts, so no piece can be learned"),
        (["", " "], 9, "no words of letters in 2 texts"),
        (["12 ... 34!", "5\n"], 9, "pieces are made of letters alone; give text of the new language"),
        (["dog sees"], 9, "every word of 1 texts is one piece already, or none stands there twice"),
    ],
)
def test_what_gives_no_piece_is_refused_in_one_line(tmp_path, texts, count, message):
    folder = byte_level(tmp_path)
    with pytest.raises(TokenizerError) as error:
        extend(folder, texts, count)
    assert message in str(error.value)
    assert str(error.value).startswith(f"{folder}: ")
    assert "\n" not in str(error.value)


def test_fewer_pieces_than_asked_for_are_no_error(tmp_path):
    extension = extend(byte_level(tmp_path), ["ሰኞ ሰኞ ማክሰኞ"], 1000)
    assert 1 < len(extension.pieces) < 20
    assert "ሰኞ" in {piece.text for piece in extension.pieces}


def test_too_few_pieces_to_write_the_texts_are_refused(tmp_path):
    folder = sentencepiece_model(tmp_path, byte_fallback=False)
    with pytest.raises(
        TokenizerError, match=r"no piece and no bytes for \d+ characters of the texts, such as '"
    ):
        extend(folder, new_texts(), 5)


def test_a_model_type_that_is_no_bpe_is_refused(tmp_path):
    folder = sentencepiece_model(tmp_path, model_type="unigram", vocab_size=330)
    with pytest.raises(TokenizerError) as error:
        extend(folder, new_texts(), 5)
    assert str(error.value) == (
        f"{folder}/tokenizer.model: a Unigram model; only BPE can be extended; learn a tokenizer of its own with "
        f"tokens.kind=learned"
    )


@pytest.mark.parametrize("kind", ["Unigram", "WordPiece", "WordLevel"])
def test_a_json_that_is_no_bpe_is_refused(tmp_path, kind):
    words = {"Hello": 0, ",": 1, "world": 2, "1": 3, "[UNK]": 4, "a": 5, "b": 6, "<": 7, "</s>": 8, "<s>": 9}
    model = {
        "Unigram": lambda: models.Unigram([(word, -1.0) for word in words], 4),
        "WordPiece": lambda: models.WordPiece(words, unk_token="[UNK]"),
        "WordLevel": lambda: models.WordLevel(words, unk_token="[UNK]"),
    }[kind]()
    rust = RustTokenizer(model)
    rust.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(TokenizerError, match=f"tokenizer.json: a {kind} model; only BPE can be extended"):
        extend(save(tmp_path, rust), new_texts(), 5)


def test_a_bpe_of_another_kind_and_a_folder_without_files_are_refused(tmp_path):
    folder = byte_level(tmp_path)
    rules = json.loads((folder / "tokenizer.json").read_text())
    rules["pre_tokenizer"] = {"type": "Whitespace"}
    (folder / "tokenizer.json").write_text(json.dumps(rules))
    with pytest.raises(TokenizerError, match="a BPE that is neither byte-level nor SentencePiece-style"):
        extend(folder, new_texts(), 5)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(
        TokenizerError, match=r"no tokenizer.json and no tokenizer.model there; .* save_pretrained"
    ):
        extend(folder, new_texts(), 5)


def test_two_files_that_contradict_each_other_are_refused(tmp_path):
    folder = with_json(sentencepiece_model(tmp_path))
    proto = read_proto(folder)
    proto.pieces[300].piece, proto.pieces[301].piece = proto.pieces[301].piece, proto.pieces[300].piece
    (folder / "tokenizer.model").write_bytes(proto.SerializeToString())
    with pytest.raises(
        TokenizerError, match=r"is 300 in tokenizer.model and 301 in tokenizer.json; they must"
    ):
        extend(folder, new_texts(), 5)


# ── real text ────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("kind", ["byte-level", "json and model"])
def test_real_text_of_four_scripts(kind, shared_data, tmp_path):
    """English of the same sentences is the old text; half of the new is held out."""
    learned, held_out = [], []
    for language in ("hin_Deva", "arb_Arab", "ell_Grek", "jav_Latn"):
        lines = (shared_data / "flores200" / f"{language}.jsonl").read_text(encoding="utf-8").splitlines()
        texts = [json.loads(line)["text"] for line in lines[:200]]
        learned, held_out = learned + texts[::2], held_out + texts[1::2]
    lines = (shared_data / "flores200" / "eng_Latn.jsonl").read_text(encoding="utf-8").splitlines()
    english = [json.loads(line)["text"] for line in lines[:200]]
    base = BASES[kind](tmp_path / "base")
    for kept, share in (([], 0.62), (english, 0.72)):
        folder = write(extend(base, learned, 1000, kept=kept), tmp_path)
        before, after = cut(base, held_out), cut(folder, held_out)
        assert sum(map(len, after)) < share * sum(map(len, before))
        assert (cut(folder, english) == cut(base, english)) == bool(kept)
        if kind == "json and model":
            for text in held_out:
                fast_ids, own_ids = ids_of_both(folder, text)
                assert fast_ids == own_ids
