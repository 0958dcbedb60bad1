"""Documents: which tokens are learned, what is cut and counted, what is kept on disk."""

import errno
import os
import re
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlingua.data.example import Example
from jaxlingua.errors import DataError, MachineError
from jaxlingua.tokens import documents as documents_module
from jaxlingua.tokens import fast, learned, store
from jaxlingua.tokens.batches import one_pass
from jaxlingua.tokens.documents import prompt_tokens, tokenize
from tests.tiny import TINY_LANGUAGES, tiny_parallel, tiny_tokenizer, tiny_translations

LONG = 512


def document(documents, i):
    part = slice(documents.starts[i], documents.starts[i + 1])
    return documents.tokens[part], documents.target_mask[part]


def example(prompt: str, answer: str, index: int = 0) -> Example:
    return Example("news", index, "eng_Latn", prompt + answer, ((len(prompt), len(prompt) + len(answer)),))


@pytest.mark.parametrize("target", TINY_LANGUAGES)
@pytest.mark.parametrize("source", TINY_LANGUAGES)
def test_the_mask_covers_the_answer_and_its_end_in_every_script(source, target):
    tokenizer = tiny_tokenizer()
    examples = tiny_translations(f"{source}-{target}")[:20]
    documents = tokenize(examples, tokenizer, row_length_tokens=LONG)
    assert len(documents) == 20
    for i, wanted in enumerate(examples):
        tokens, mask = document(documents, i)
        assert tokens[0] == tokenizer.bos_id
        assert tokens[-1] == tokenizer.eos_id
        assert tokenizer.decode(tokens) == wanted.text
        assert tokenizer.decode(tokens[mask]) == wanted.answer_texts[0]
        assert tokenizer.decode(tokens[~mask]) == wanted.prompt
        assert mask[-1]
        assert np.count_nonzero(tokens == tokenizer.bos_id) == 1
        assert documents.target_tokens[i] == mask.sum()
        assert documents.target_bytes[i] == len(wanted.answer_texts[0].encode())


@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12), min_size=1, max_size=7
    )
)
@settings(max_examples=150, deadline=None)
def test_any_conversation_is_learned_where_its_answers_are(parts):
    """Texts alternate between asked and answered; answers come out of the mask exactly, each with an EOS."""
    tokenizer = tiny_tokenizer()
    bounds = np.cumsum([0, *map(len, parts)]).tolist()
    answers = tuple((bounds[i], bounds[i + 1]) for i in range(len(parts) - 1, -1, -2))[::-1]
    talk = Example("chat", 0, "eng_Latn", "".join(parts), answers)
    documents = tokenize([talk], tokenizer, row_length_tokens=LONG)
    tokens, mask = document(documents, 0)
    assert tokenizer.decode(tokens) == talk.text
    assert np.count_nonzero(tokens == tokenizer.bos_id) == 1
    assert np.count_nonzero(tokens == tokenizer.eos_id) == len(answers)
    runs = np.split(tokens[mask], np.flatnonzero(tokens[mask] == tokenizer.eos_id) + 1)[:-1]
    for run, answer in zip(runs, talk.answer_texts, strict=True):
        assert tokenizer.decode(run).endswith(answer), "a piece that begins in the prompt is learned whole"


def test_earlier_turns_of_a_conversation_are_read_and_not_learned():
    tokenizer = tiny_tokenizer()
    text = "dog?\nking.\ncat?\nbird."
    talk = Example("chat", 0, "eng_Latn", text, ((5, 10), (16, 21)))
    tokens, mask = document(tokenize([talk], tokenizer, row_length_tokens=LONG), 0)
    eos = np.flatnonzero(tokens == tokenizer.eos_id)
    assert mask[eos].all()
    assert tokenizer.decode(tokens[: eos[0]]) == "dog?\nking."
    assert tokenizer.decode(tokens[: eos[0]][mask[: eos[0]]]) == "king."
    assert tokenizer.decode(tokens[eos[0] :][mask[eos[0] :]]) == "bird."


def test_a_piece_that_straddles_prompt_and_answer_is_a_target():
    """Encoding the two apart would give pieces that the model never sees together."""
    tokenizer = tiny_tokenizer()
    (whole,) = tokenizer.encode_batch(["quiet"])
    assert whole.offsets.tolist() == [[0, 2], [2, 5]], "the test needs a piece 'qu'"
    for prompt, answer, learned_pieces in (("q", "uiet", 2), ("qui", "et", 1)):
        tokens, mask = document(tokenize([example(prompt, answer)], tokenizer, row_length_tokens=LONG), 0)
        assert tokens.tolist() == [tokenizer.bos_id, *whole.ids, tokenizer.eos_id]
        assert mask.sum() == learned_pieces + 1


def test_all_pieces_of_a_character_are_targets_where_it_is_learned():
    tokenizer = tiny_tokenizer()
    tokens, mask = document(tokenize([example("dog 🦙", "世")], tokenizer, row_length_tokens=LONG), 0)
    assert mask.sum() == 3 + 1
    assert tokenizer.decode(tokens[mask]) == "世"
    assert tokenizer.decode(tokens[~mask]) == "dog 🦙"


def test_plain_text_is_learned_from_its_first_character():
    tokenizer = tiny_tokenizer()
    line = tiny_parallel()["tha_Thai"][0]
    documents = tokenize([example("", line)], tokenizer, row_length_tokens=LONG)
    _, mask = document(documents, 0)
    assert mask.tolist() == [False] + [True] * (len(mask) - 1)
    assert documents.target_bytes.tolist() == [len(line.encode())]


def test_without_a_bos_none_is_put_and_the_first_token_is_no_target():
    """Nothing stands before it from which it could be predicted, so its bytes are not paid for either."""
    files = learned.learn(tiny_parallel()["eng_Latn"], 300)
    config = files["tokenizer_config.json"].replace(b'"bos_token": "<s>"', b'"bos_token": null')
    rules = re.sub(
        rb'"post_processor": \{.*?\n  \},', b'"post_processor": null,', files["tokenizer.json"], flags=re.S
    )
    tokenizer = fast.from_files({"tokenizer.json": rules, "tokenizer_config.json": config}, "no bos")
    assert tokenizer.bos_id is None
    documents = tokenize([example("", "xy")], tokenizer, row_length_tokens=LONG)
    tokens, mask = document(documents, 0)
    assert tokenizer.decode(tokens) == "xy"
    assert mask.tolist() == [False, True, True]
    assert documents.target_bytes.tolist() == [1]


def test_a_prompt_at_generation_is_the_beginning_of_the_document_in_training():
    tokenizer = tiny_tokenizer()
    text = "dog?\nking.\ncat?\nbird."
    talk = Example("chat", 0, "eng_Latn", text, ((5, 10), (16, 21)))
    for wanted in [talk, *tiny_translations()[:5]]:
        tokens, mask = document(tokenize([wanted], tokenizer, row_length_tokens=LONG), 0)
        (prompt,) = prompt_tokens([wanted], tokenizer)
        assert tokens[: len(prompt)].tolist() == prompt.tolist()
        assert mask[len(prompt) :].all()
    assert prompt_tokens(["dog", ""], tokenizer)[0].tolist() == [1, *tokenizer.encode_batch(["dog"])[0].ids]
    assert prompt_tokens(["dog", ""], tokenizer)[1].tolist() == [1]
    assert prompt_tokens([], tokenizer) == []


def test_what_is_cut_is_counted_and_its_bytes_are_not_paid_for():
    tokenizer = tiny_tokenizer()
    examples = [example("a\n", "b" * 30, 0), example("a\n", "b" * 3, 1), example("a" * 40, "b", 2)]
    documents = tokenize(examples, tokenizer, row_length_tokens=10)
    tokens, mask = document(documents, 0)
    assert documents.lengths.tolist() == [10, len(document(documents, 1)[0]) - 1]
    assert tokenizer.eos_id not in tokens, "the cut answer has no end, so none is learned"
    assert tokenizer.decode(tokens[mask]) == "b" * documents.target_bytes[0]
    assert documents.indices.tolist() == [0, 1]
    whole = tokenize(examples, tokenizer, row_length_tokens=LONG)
    (count,), (before,) = documents.counts.values(), whole.counts.values()
    assert (count.examples, count.documents, count.cut_documents) == (3, 2, 1)
    assert (count.dropped_without_target, count.dropped_too_long) == (1, 0)
    assert count.tokens == len(documents.tokens) == documents.lengths.sum() + 2
    assert count.cut_tokens == len(document(whole, 0)[0]) - 11
    assert count.target_tokens == documents.target_mask.sum() == documents.target_tokens.sum()
    assert count.target_bytes == documents.target_bytes.sum() < before.target_bytes == 34
    assert (before.documents, before.cut_tokens, before.dropped_without_target) == (3, 0, 0)


def test_long_documents_are_dropped_whole_and_counted_where_asked():
    tokenizer = tiny_tokenizer()
    examples = [example("a\n", "b" * 30, 0), example("a\n", "b" * 3, 1), example("a" * 40, "b", 2)]
    documents = tokenize(examples, tokenizer, row_length_tokens=10, too_long="drop")
    (count,) = documents.counts.values()
    assert documents.indices.tolist() == [1]
    assert (count.dropped_too_long, count.dropped_without_target, count.cut_tokens) == (2, 0, 0)


def test_a_document_that_just_fits_is_not_cut():
    """n tokens take n - 1 positions."""
    (length,) = tokenize([example("dog ", "king")], tiny_tokenizer(), row_length_tokens=LONG).lengths
    for row, cut in ((length, 0), (length - 1, 1)):
        documents = tokenize([example("dog ", "king")], tiny_tokenizer(), row_length_tokens=int(row))
        assert documents.counts["news", "eng_Latn"].cut_tokens == cut


def test_counts_are_told_apart_by_entry_and_language():
    mixed = [
        *tiny_translations("eng_Latn-tha_Thai", "a")[:5],
        *tiny_translations("eng_Latn-ell_Grek", "a")[:3],
    ]
    documents = tokenize(mixed, tiny_tokenizer(), row_length_tokens=LONG)
    assert {group: count.documents for group, count in documents.counts.items()} == {
        ("a", "tha_Thai"): 5,
        ("a", "ell_Grek"): 3,
    }
    assert documents.groups.tolist() == [0] * 5 + [1] * 3


def test_the_size_of_a_batch_of_work_changes_nothing(monkeypatch):
    examples = tiny_translations()
    expected = tokenize(examples, tiny_tokenizer(), row_length_tokens=12)
    monkeypatch.setattr(documents_module, "EXAMPLES_AT_ONCE", 7)
    told = []
    actual = tokenize(
        examples, tiny_tokenizer(), row_length_tokens=12, progress=lambda *done: told.append(done)
    )
    for name in store.ARRAYS:
        np.testing.assert_array_equal(getattr(actual, name), getattr(expected, name))
    assert actual.counts == expected.counts
    assert told[0] == (7, 200)
    assert told[-1] == (200, 200)


def test_half_a_surrogate_pair_is_refused_in_one_line():
    with pytest.raises(DataError) as error:
        tokenize([example("a", "b\ud83d", 7)], tiny_tokenizer(), row_length_tokens=LONG)
    assert str(error.value) == (
        "news (record 7): character 2 is half of a surrogate pair (U+D83D), which no text can hold; repair the file"
    )


# ── cache ────────────────────────────────────────────────────────────────────
def unusable(tokenizer):
    """The same tokenizer, but any use of it fails."""

    def refuse(texts, continuation):
        raise AssertionError("tokenized again")

    return replace(tokenizer, encode_pieces=refuse)


def test_a_second_run_reads_the_files_of_the_first(tmp_path):
    examples, settings = tiny_translations(), {"row_length_tokens": 12, "cache_folder": tmp_path / "cache"}
    first = tokenize(examples, tiny_tokenizer(), **settings)
    again = tokenize(examples, unusable(tiny_tokenizer()), **settings)
    fresh = tokenize(examples, tiny_tokenizer(), row_length_tokens=12)
    for documents in (first, again):
        assert isinstance(documents.tokens, store.FileArray)
        for name in store.ARRAYS:
            np.testing.assert_array_equal(getattr(documents, name), getattr(fresh, name))
            assert getattr(documents, name).dtype == getattr(fresh, name).dtype
        assert documents.counts == fresh.counts
        assert documents.group_names == fresh.group_names
        assert documents.fingerprint == fresh.fingerprint


@pytest.mark.parametrize("how", ["cut short", "the disk fails"])
def test_a_file_that_cannot_be_read_in_the_middle_of_a_run_is_one_line(tmp_path, monkeypatch, how):
    """Memory-mapped, either would end the process with SIGBUS and no word."""
    examples = tiny_translations()
    documents = tokenize(examples, tiny_tokenizer(), row_length_tokens=12, cache_folder=tmp_path)
    kept = one_pass({"news": documents}, row_length_tokens=12, batch_rows=4)
    kept.batch(0)
    (path,) = tmp_path.glob("*/tokens.npy")
    if how == "cut short":
        with path.open("r+b") as file:
            file.truncate(200)
        reason = "it was cut short while the run went on"
    else:
        monkeypatch.setattr(os, "pread", Mock(side_effect=OSError(errno.EIO, os.strerror(errno.EIO))))
        reason = "Input/output error"
    with pytest.raises(MachineError) as told:
        kept.batch(kept.steps - 1)
    assert str(told.value) == (
        f"{path}: cannot be read any more ({reason}); it is a cache that is made again; see to the disk and "
        f"run the same command again"
    )


@pytest.mark.parametrize("what", ["text", "answer", "language", "entry", "row", "too long", "tokenizer"])
def test_whatever_decides_the_result_makes_another_cache(tmp_path, what):
    examples, settings = tiny_translations()[:20], {"row_length_tokens": 12, "cache_folder": tmp_path}
    tokenize(examples, tiny_tokenizer(), **settings)
    tokenizer = unusable(tiny_tokenizer())
    last = examples[-1]
    ((start, end),) = last.answers
    match what:
        case "text":
            examples[-1] = replace(last, text=last.text.replace("\n", " "))
        case "answer":
            examples[-1] = replace(last, answers=((start + 1, end),))
        case "language":
            examples[-1] = replace(last, language="ell_Grek")
        case "entry":
            examples[-1] = replace(last, source="other")
        case "row":
            settings["row_length_tokens"] = 13
        case "too long":
            settings["too_long"] = "drop"
        case "tokenizer":
            tokenizer = replace(tokenizer, fingerprint="another")
    with pytest.raises(AssertionError, match="tokenized again"):
        tokenize(examples, tokenizer, **settings)


def test_an_interrupted_write_is_never_read_and_leaves_nothing(tmp_path, monkeypatch):
    examples, settings = tiny_translations(), {"row_length_tokens": 12, "cache_folder": tmp_path}
    with monkeypatch.context() as patch:
        patch.setattr(store.json, "dumps", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            tokenize(examples, tiny_tokenizer(), **settings)
    assert list(tmp_path.iterdir()) == []
    assert len(tokenize(examples, tiny_tokenizer(), **settings)) == 184


@pytest.mark.parametrize(
    "damage",
    ["truncated", "missing", "half a description", "zeroed", *(f"a bit of {n}" for n in store.ARRAYS)],
)
def test_a_damaged_cache_is_made_anew(tmp_path, damage):
    examples, settings = tiny_translations(), {"row_length_tokens": 12, "cache_folder": tmp_path}
    expected = np.array(tokenize(examples, tiny_tokenizer(), **settings).tokens)
    (folder,) = tmp_path.iterdir()
    match damage:
        case "truncated":
            content = (folder / "tokens.npy").read_bytes()
            (folder / "tokens.npy").write_bytes(content[: len(content) // 2])
        case "missing":
            (folder / "starts.npy").unlink()
        case "half a description":
            (folder / "documents.json").write_text('{"format": 2, "fing')
        case "zeroed":  # of the same length, as after a power cut
            content = (folder / "tokens.npy").read_bytes()
            (folder / "tokens.npy").write_bytes(content[:128] + bytes(len(content) - 128))
        case _:
            path = folder / f"{damage.removeprefix('a bit of ')}.npy"
            content = path.read_bytes()
            path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(AssertionError, match="tokenized again"):
        tokenize(examples, unusable(tiny_tokenizer()), **settings)
    np.testing.assert_array_equal(tokenize(examples, tiny_tokenizer(), **settings).tokens, expected)
    tokenize(examples, unusable(tiny_tokenizer()), **settings)
    assert list(tmp_path.iterdir()) == [folder]


def test_a_disk_that_fills_while_arrays_are_written_is_one_line(tmp_path, monkeypatch):
    """NumPy's tofile tells of it by an OSError without errno, which is not known as the machine's."""

    def full(*_):
        raise OSError("17186 requested and 992 written")

    documents = tokenize(tiny_translations(), tiny_tokenizer(), row_length_tokens=12)
    monkeypatch.setattr(store.np, "save", full)
    with pytest.raises(MachineError) as error:
        store.write(tmp_path / "x", documents)
    assert str(error.value) == (
        f"{tmp_path / 'x'}: 17186 requested and 992 written; the disk is probably full; "
        "free some space or set tokens.cache_folder"
    )
    assert list(tmp_path.iterdir()) == []


def test_two_processes_may_write_the_same_cache(tmp_path):
    documents = tokenize(tiny_translations(), tiny_tokenizer(), row_length_tokens=12)
    folder = tmp_path / "cache" / "x"
    store.write(folder, documents)
    store.write(folder, documents)
    assert [path.name for path in folder.parent.iterdir()] == ["x"]
    assert len(store.read(folder)) == 184


def test_no_examples_are_no_documents(tmp_path):
    documents = tokenize([], tiny_tokenizer(), row_length_tokens=12, cache_folder=tmp_path)
    assert len(documents) == 0
    assert documents.counts == {}


def test_an_example_that_does_not_end_has_no_eos():
    text = "see you later"
    open_, closed = (
        tokenize(
            [Example("old", 0, "eng_Latn", text, ((0, len(text)),), ends)],
            tiny_tokenizer(),
            row_length_tokens=64,
        )
        for ends in (False, True)
    )
    assert closed.tokens.tolist() == [*open_.tokens.tolist(), tiny_tokenizer().eos_id]
    assert closed.target_tokens.tolist() == [open_.target_tokens[0] + 1]
    assert open_.fingerprint != closed.fingerprint
