"""Tokenizers of BLEU that are models: found, downloaded, absent, damaged. Scores are in tests/reference."""

from pathlib import Path

import pytest
import sentencepiece
from sacrebleu.tokenizers import tokenizer_spm

from jaxlingua.errors import DataError
from jaxlingua.eval.metrics.translation import make_bleu, translation_metrics


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A small SentencePiece model, out of sacreBLEU's sight."""
    prefix = tmp_path_factory.mktemp("model") / "small"
    lines = [f"the {i} small dogs run over field number {i * i}" for i in range(50)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_prefix=str(prefix), vocab_size=60, minloglevel=2
    )
    return prefix.with_suffix(".model")


@pytest.fixture
def address(monkeypatch):
    """Sets where sacreBLEU would download a tokenizer from."""

    def set_address(tokenizer: str, url: str) -> None:
        monkeypatch.setitem(tokenizer_spm.SPM_MODELS, tokenizer, {"url": url, "signature": tokenizer})

    monkeypatch.setattr(tokenizer_spm, "SACREBLEU_DIR", tokenizer_spm.SACREBLEU_DIR)
    return set_address


def test_an_absent_tokenizer_is_downloaded_into_the_folder_that_is_named_now(
    model, address, tmp_path, monkeypatch
):
    monkeypatch.setenv("SACREBLEU", str(tmp_path))
    address("flores101", model.as_uri())
    bleu, origin = make_bleu("flores101")
    assert [path.name for path in (tmp_path / "models").iterdir()] == [model.name]
    assert bleu.tokenizer("the dogs").startswith("▁")
    assert origin.startswith("|spm:")


def test_spm_is_the_old_name_of_flores101(model, tmp_path, monkeypatch, address, caplog):
    monkeypatch.setenv("SACREBLEU", str(tmp_path))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "sacrebleu_tokenizer_spm.model").write_bytes(model.read_bytes())
    signatures = {
        translation_metrics(["a"], [("a",)], "deu_Latn", name)[1].signature for name in ("spm", "flores101")
    }
    assert len(signatures) == 1
    assert "|tok:flores101|" in signatures.pop()
    assert not caplog.records


def test_without_a_network_one_line_says_which_file_to_put_where(address, tmp_path, monkeypatch):
    monkeypatch.setenv("SACREBLEU", str(tmp_path))
    address("flores200", "http://127.0.0.1:9/flores200sacrebleuspm")
    with pytest.raises(DataError) as refused:
        translation_metrics(["a"], [("a",)], "deu_Latn", "flores200")
    message = str(refused.value)
    assert message.startswith(
        f"eval.bleu_tokenizer: 'flores200' needs {tmp_path}/models/flores200sacrebleuspm"
    )
    assert (
        "put that file there, or into models of a folder that the environment variable SACREBLEU" in message
    )
    assert message.endswith("or set eval.bleu_tokenizer=auto")
    assert "\n" not in message
    assert list((tmp_path / "models").iterdir()) == []


def test_a_damaged_tokenizer_is_refused_by_its_path(tmp_path, monkeypatch, address):
    monkeypatch.setenv("SACREBLEU", str(tmp_path))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "flores200sacrebleuspm").write_text("<html>not found</html>")
    with pytest.raises(
        DataError, match="models/flores200sacrebleuspm, which is no SentencePiece model .*remove"
    ):
        make_bleu("flores200")


def test_two_models_under_one_name_have_two_signatures(model, address, tmp_path, monkeypatch):
    """sacreBLEU calls both tok:flores200."""
    monkeypatch.setenv("SACREBLEU", str(tmp_path))
    path = tmp_path / "models" / "flores200sacrebleuspm"
    path.parent.mkdir()
    path.write_bytes(model.read_bytes())
    first = translation_metrics(["a"], [("a",)], "deu_Latn", "flores200")[1].signature
    changed = sentencepiece.SentencePieceProcessor(model_file=str(model)).serialized_model_proto()
    path.write_bytes(changed + b"\x1a\x00")  # an empty field more
    second = translation_metrics(["a"], [("a",)], "deu_Latn", "flores200")[1].signature
    assert "|tok:flores200|" in first
    assert first != second
    assert first.partition("|spm:")[0] == second.partition("|spm:")[0]
