"""generation_config.json: generation stops where training taught the model to stop."""

import copy
import json
import warnings

import pytest
from transformers import GenerationConfig
from transformers.utils import logging

from jaxlingua.checkpoint.huggingface.generation_config import generation_config

# As Llama 3.1 Instruct has it: three stops, no padding token, sampling.
LLAMA = {
    "bos_token_id": 128000,
    "do_sample": True,
    "eos_token_id": [128001, 128008, 128009],
    "temperature": 0.6,
    "top_p": 0.9,
    "transformers_version": "4.42.3",
}
OURS = {"bos_id": 1, "eos_id": 2, "pad_id": 0}


def trained(published, **ids):
    return generation_config(published, **{**OURS, **ids}, is_trained=True)


def loaded(content, folder, caplog) -> GenerationConfig:
    """Read by transformers, which may say nothing about it."""
    (folder / "generation_config.json").write_text(json.dumps(content))
    logging.get_logger("transformers").propagate = True
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config = GenerationConfig.from_pretrained(folder)
        config.validate(strict=True)
    assert not caplog.records
    return config


@pytest.mark.parametrize(
    "published", [LLAMA, {"eos_token_id": None}, {}, {"eos_token_id": 5, "pad_token_id": -1}]
)
def test_what_was_published_is_kept_where_nothing_was_trained(published):
    before = copy.deepcopy(published)
    content = generation_config(published, **OURS, is_trained=False)
    assert content == before
    content["eos_token_id"] = 7
    assert published == before, "the caller's is another object"


@pytest.mark.parametrize(
    ("published", "expected"),
    [
        (2, 2),
        (7, [2, 7]),
        (0, [2, 0]),
        (None, 2),
        ([], 2),
        ([2], [2]),
        ([7, 2], [7, 2]),
        ([7, 8], [2, 7, 8]),
    ],
)
def test_a_trained_model_stops_at_our_end_and_where_it_stopped_before(published, expected):
    given = {"eos_token_id": published, "top_k": 5}
    before = copy.deepcopy(given)
    assert trained(given)["eos_token_id"] == expected
    assert given == before
    assert trained({"top_k": 5}) == {"top_k": 5, "eos_token_id": 2, "bos_token_id": 1, "pad_token_id": 0}


def test_begin_and_padding_are_set_only_where_there_are_none():
    assert trained({"bos_token_id": 9, "pad_token_id": 0, "eos_token_id": 2}, pad_id=4) == {
        "bos_token_id": 9,
        "pad_token_id": 0,
        "eos_token_id": 2,
    }
    assert trained({"bos_token_id": None, "pad_token_id": None})["bos_token_id"] == 1
    assert "bos_token_id" not in trained({}, bos_id=None)


@pytest.mark.parametrize("is_trained", [True, False])
def test_without_a_published_one_it_is_greedy_with_our_tokens(is_trained, tmp_path, caplog):
    content = generation_config(None, **OURS, is_trained=is_trained)
    assert content == {"do_sample": False, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = loaded(content, tmp_path, caplog)
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (1, 2, 0)
    assert not config.do_sample


@pytest.mark.parametrize(
    "content",
    [
        trained(LLAMA, bos_id=128000, eos_id=2, pad_id=2),
        generation_config(LLAMA, **OURS, is_trained=False),
        generation_config(None, bos_id=None, eos_id=2, pad_id=2, is_trained=True),
    ],
)
def test_transformers_takes_it_without_a_word(content, tmp_path, caplog):
    config = loaded(content, tmp_path, caplog)
    for name, value in content.items():
        assert name == "transformers_version" or getattr(config, name) == value
    assert not config.update(**content), "nothing in it is unknown to transformers"
