"""The wording of all prompts: slots, scripts, languages and what is said for labels."""

import itertools

import pytest

from jaxlingua import identify
from jaxlingua.eval.tasks.library import PROMPTS, read_prompts, read_task_file
from jaxlingua.eval.tasks.prompts import language_name
from jaxlingua.eval.tasks.schema import SLOT, Prompt, PromptSet

# The slots of each file's prompts; where there are several sets, a prompt has one of them.
READING = {"passage", "question", "answer1", "answer2", "answer3", "answer4"}
STORY = {"sentence1", "sentence2", "sentence3", "sentence4"}
SLOTS = {
    "cause": [{"premise", "ask", "choice1", "choice2"}, {"premise", "ask"}, {"premise", "connective"}],
    "emotion": [{"text"}],
    "nli": [{"premise", "hypothesis"}],
    "number": [{"question"}],
    "open": [{"instruction", "input"}],
    "paraphrase": [{"sentence1", "sentence2"}],
    "polarity": [{"text"}],
    "qa": [{"context", "question"}],
    "reading": [READING],
    "sentiment": [{"text"}],
    "story": [{*STORY, "ending1", "ending2"}, STORY],
    "topic": [{"text"}],
    "translation": [{"text", "source_language", "target_language"}],
}
# Labels whose texts are few and known: the prompt names them all.
NAMED = ("emotion", "nli", "paraphrase", "polarity", "sentiment", "topic")
# Letters that any script may show: the names of answers.
LETTERS = {"reading": "ABCD"}
# A wording of fewer letters is too short to identify; a language is likely from here on.
ENOUGH_LETTERS, LIKELY = 20, 0.1


def prompts_of(name: str) -> PromptSet:
    task = next(task for task in TASKS.values() if (task.prompts or task.kind) == name)
    return read_prompts(task, "", name)


TASKS = {
    path.stem: read_task_file(path.stem, "") for path in sorted((PROMPTS.parent / "files").glob("*.yaml"))
}
NATIVE = [
    (name, language, number, prompt)
    for name in SLOTS
    for language, prompts in prompts_of(name).native.items()
    for number, prompt in enumerate(prompts)
]
by_native = pytest.mark.parametrize(
    ("name", "language", "prompt"),
    [pytest.param(*each[:2], each[3], id=f"{each[0]}.{each[1]}.{each[2]}") for each in NATIVE],
)


def every(name: str) -> list[Prompt]:
    prompts = prompts_of(name)
    return [*prompts.english, *itertools.chain.from_iterable(prompts.native.values())]


def said(prompt: Prompt) -> str:
    """All words of a prompt, slots taken out."""
    words = [text for slot in prompt.words.values() for of in slot.values() for text in of.values()]
    return SLOT.sub(" ", " ".join([prompt.instruction, prompt.input, *prompt.choices.values(), *words]))


def test_there_are_no_other_files_of_prompts():
    assert {path.stem for path in PROMPTS.glob("*.yaml")} == SLOTS.keys()


@pytest.mark.parametrize("name", SLOTS)
def test_there_are_three_english_prompts_and_no_two_prompts_are_the_same(name):
    assert len(prompts_of(name).english) == 3
    texts = [(prompt.instruction, prompt.input) for prompt in every(name)]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("name", SLOTS)
def test_a_prompt_has_all_slots_of_its_task_once(name):
    for prompt in every(name):
        found = [match[1] for match in SLOT.finditer(f"{prompt.instruction} {prompt.input}")]
        assert len(set(found)) == len(found)
        assert set(found) in SLOTS[name], prompt


@by_native
def test_a_native_prompt_is_in_the_script_of_its_language(name, language, prompt):
    text = said(prompt).translate({ord(letter): " " for letter in LETTERS.get(name, "")})
    assert identify.share_in_script(text, language) == 1.0


@by_native
def test_a_native_prompt_is_in_its_language(name, language, prompt):
    """By an identifier that was trained on other text; some languages it does not know."""
    known, text = identify.known_language(language), said(prompt)
    if known and identify.letters(text) >= ENOUGH_LETTERS:
        assert identify.probabilities(text)[known] >= LIKELY


def test_most_native_prompts_are_long_enough_to_be_identified():
    long = [
        each
        for each in NATIVE
        if identify.known_language(each[1]) and identify.letters(said(each[3])) >= ENOUGH_LETTERS
    ]
    assert len(long) > 0.8 * len(NATIVE)


def test_chinese_prompts_are_written_in_the_characters_of_their_script():
    """A few characters that only one of both has, and both have to have."""
    simplified, traditional = "请译语读问题选择个说么", "請譯語讀問題選擇個說麼"
    for language, own, other in (
        ("zho_Hans", simplified, traditional),
        ("zho_Hant", traditional, simplified),
    ):
        text = "".join(said(prompt) for _, code, _, prompt in NATIVE if code == language)
        assert set(own) & set(text)
        assert not (set(other) - set(own)) & set(text)


@pytest.mark.parametrize("name", TASKS)
def test_what_is_said_for_labels_covers_them_and_no_text_begins_another(name):
    """By log-likelihood, a text that another one continues always wins."""
    task = TASKS[name]
    if task.kind != "choice":
        return
    for prompt in every(task.prompts):
        texts = dict(zip(task.values, task.choices, strict=True)) if task.choices else {}
        texts = {label: label for label in task.values} | texts | prompt.choices
        assert texts.keys() == task.values.keys()
        for one, other in itertools.permutations(texts.values(), 2):
            assert not other.startswith(one), (one, other)


@pytest.mark.parametrize("name", NAMED)
def test_a_prompt_names_all_that_may_be_answered(name):
    labels = next(task for task in TASKS.values() if task.prompts == name).values
    for prompt in every(name):
        for label in labels:
            assert prompt.choices.get(label, label) in prompt.instruction


def test_languages_of_indonesia_have_an_indonesian_name():
    """Unicode CLDR has not all of them, and a native prompt of a translation into Indonesian needs it."""
    prompts = prompts_of("translation")
    for task in ("nusax_translation", "nusatranslation"):
        names = [language_name(code, "ind_Latn", prompts, task) for code in TASKS[task].languages]
        assert len(set(names)) == len(names)


def test_language_tables_know_the_languages_that_the_benchmarks_have():
    """As many as were published, less those that the files say are left out."""
    published = {
        "afriqa": 8,
        "mgsm": 11,
        "mlqa": 7,
        "nusaparagraph_emotion": 10,
        "nusaparagraph_topic": 10,
        "nusatranslation": 12,
        "nusatranslation_sentiment": 11,
        "nusax_sentiment": 12,
        "nusax_translation": 12,
        "paws_x": 7,
        "tatoeba": 111,
        "tico19": 37,
        "tydiqa": 9,
        "xcopa": 11,
        "xnli": 15,
        "xquad": 12,
        "xstorycloze": 11,
    }
    tables = {name: task.languages for name, task in TASKS.items() if task.languages != "same"}
    assert {name: len(table) for name, table in tables.items()} == published | {"mi_eval": 9}
    for name, table in tables.items():
        assert len(set(table.values())) == len(table), name
