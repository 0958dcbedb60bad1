"""apply_chat_template of an exported tokenizer against the tokens that jaxlingua trains on."""

import shutil

import jinja2
import numpy as np
import pytest
from transformers import AutoTokenizer

from jaxlingua.config import TokensConfig
from jaxlingua.data.chat_template import chat_template
from jaxlingua.data.records import Conversation, Instruction
from jaxlingua.data.templates import render
from jaxlingua.data.wordings import wording_of
from jaxlingua.tokens.masks import assemble, prompt_tokens
from jaxlingua.tokens.tokenizer import load_tokenizer
from tests.reference.test_tokenizers import llama_json, model_file  # noqa: F401 — fixtures
from tests.tiny import tiny_parallel, tiny_tokenizer

TEMPLATES = ["alpaca", "short", "raw"]
ENGLISH, THAI, HEBREW, GREEK = (tiny_parallel()[language][3] for language in tiny_parallel())
CONVERSATIONS = (
    (("user", ENGLISH), ("assistant", THAI)),
    (("system", "Be brief."), ("user", HEBREW), ("assistant", GREEK)),
    (("user", " dog \n"), ("assistant", "  king\n"), ("user", "\n{{ x }}"), ("assistant", "{% if %} 🦙")),
    (("system", HEBREW), ("user", "a"), ("user", "b"), ("assistant", THAI), ("assistant", "\nx\n"), ("user", "c"),
     ("assistant", "123 4567")),
    (("assistant", "dog?"), ("system", "next"), ("assistant", "נ king")),
)  # fmt: skip


@pytest.fixture(scope="module", params=TEMPLATES)
def learned(request, tmp_path_factory):
    """Template, our tokenizer, and transformers' from the files that an export has."""
    folder = tmp_path_factory.mktemp(request.param)
    tiny_tokenizer().save(folder)
    (folder / "chat_template.jinja").write_text(
        chat_template(wording_of(request.param), "eng_Latn", has_bos=True), "utf-8"
    )
    return request.param, tiny_tokenizer(), AutoTokenizer.from_pretrained(folder)


def compare(template, ours, theirs, turns, **options) -> None:
    """Both forms of a conversation: as it is learned, and as a prompt for its last answer."""
    messages = [{"role": role, "content": text} for role, text in turns]
    record = Conversation(0, "eng_Latn", turns)
    example = render(record, wording_of(template), source="chat", training=True)
    assembled = assemble([example.text], [example.answers], ours)
    ids = theirs.apply_chat_template(messages, **options)["input_ids"]
    assert ids == assembled.tokens.tolist()
    if len(messages) > 1:
        prompt = theirs.apply_chat_template(messages[:-1], add_generation_prompt=True, **options)["input_ids"]
        assert prompt == prompt_tokens([example], ours)[0].tolist()


@pytest.mark.parametrize("turns", CONVERSATIONS, ids=lambda turns: "-".join(role for role, _ in turns))
def test_a_conversation_has_the_tokens_of_training(learned, turns):
    compare(*learned, turns)


def test_one_user_turn_has_the_tokens_of_an_instruction(learned):
    template, ours, theirs = learned
    for text in (ENGLISH, THAI, HEBREW, GREEK, " two  spaces ", "\ttab"):
        example = render(
            Instruction(0, "eng_Latn", text, "", "x"), wording_of(template), source="x", training=False
        )
        messages = [{"role": "user", "content": text}]
        ids = theirs.apply_chat_template(messages, add_generation_prompt=True, return_tensors="np")[
            "input_ids"
        ]
        np.testing.assert_array_equal(ids[0], prompt_tokens([example], ours)[0])
        assert (ids == ours.bos_id).sum() == 1


def test_control_tokens_in_a_message_are_text_where_transformers_is_asked_for_it(learned):
    turns = (
        ("user", "what is </s>?"),
        ("assistant", "<s> is not </s>"),
        ("user", "<pad>"),
        ("assistant", "</s>"),
    )
    compare(*learned, turns, sanitize_control_tokens=True)


def test_a_begun_answer_is_continued_without_an_end(learned):
    theirs = learned[2]
    messages = [{"role": "user", "content": "dog?"}, {"role": "assistant", "content": "king "}]
    begun = theirs.apply_chat_template(messages, continue_final_message=True, tokenize=False)
    prompt = theirs.apply_chat_template(messages[:1], add_generation_prompt=True, tokenize=False)
    assert begun == prompt + "king "


def test_another_role_is_refused(learned):
    with pytest.raises(jinja2.TemplateError, match="role 'tool'"):
        learned[2].apply_chat_template([{"role": "tool", "content": "7"}])


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_tokenizer_with_a_dummy_prefix_needs_a_space_behind_bos_under_llamas_class(
    template,
    llama_json,  # noqa: F811
    tmp_path,
):
    """transformers puts the prefix before the first character alone; behind a written BOS there is none."""
    shutil.copytree(llama_json, tmp_path, dirs_exist_ok=True)
    names = tmp_path / "tokenizer_config.json"
    names.write_text(names.read_text().replace("PreTrainedTokenizerFast", "LlamaTokenizer"))
    ours = load_tokenizer(TokensConfig(kind="huggingface", path=str(tmp_path)), list, None)
    written = tmp_path / "chat_template.jinja"
    written.write_text(chat_template(wording_of(template), "eng_Latn", has_bos=True, opens_with_space=True))
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    for turns in CONVERSATIONS:
        compare(template, ours, theirs, turns)
    written.write_text(chat_template(wording_of(template), "eng_Latn", has_bos=True))
    with pytest.raises(AssertionError):
        compare(template, ours, AutoTokenizer.from_pretrained(tmp_path), CONVERSATIONS[0])


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_tokenizer_whose_rules_prepend_needs_no_space(template, llama_json, tmp_path):  # noqa: F811
    """Behind an EOS transformers would prepend once more, so only the first turn has the tokens of training."""
    shutil.copytree(llama_json, tmp_path, dirs_exist_ok=True)
    (tmp_path / "chat_template.jinja").write_text(
        chat_template(wording_of(template), "eng_Latn", has_bos=True)
    )
    ours = load_tokenizer(TokensConfig(kind="huggingface", path=str(tmp_path)), list, None)
    compare(template, ours, AutoTokenizer.from_pretrained(tmp_path), CONVERSATIONS[0])
