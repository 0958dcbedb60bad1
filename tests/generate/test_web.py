"""The page: what is asked reaches the models as they learned it, and comes back as it is written, in its direction."""

import dataclasses
import re
import socket
import threading
from collections.abc import Iterator
from urllib.request import urlopen

import pytest
import regex
import uvicorn
import yaml
from gradio_client import Client

from jaxlingua.config import Config
from jaxlingua.data.wordings import wording_of
from jaxlingua.errors import ConfigError, DataError
from jaxlingua.generate import address, web
from jaxlingua.generate.address import check_page, is_loopback, listen, url_of
from jaxlingua.generate.asking import Asker, Told
from jaxlingua.generate.columns import Answering, Column, text_html
from jaxlingua.generate.framing import Framing, Question
from jaxlingua.languages import LANGUAGES, script_of

LANGUAGES_OF_RUN = ["heb_Hebr", "eng_Latn", "deu_Latn"]
ASKED = {"max_new_tokens": 8, "temperature": 0.0, "seed": 0}


class Teller(Asker):
    """Stands for an `Asker`: says the words it was given, each once it may."""

    def __init__(
        self, name: str, words: str = "three short words", *, may: threading.Semaphore | None = None
    ):
        self.name, self.words, self.may = name, words, may
        self.config = Config.model_validate({"generate": {"max_new_tokens": 8}})
        self.framing = Framing(wording_of("alpaca"), True, "eng_Latn", "framed <as> in training")
        self.asked: list[Question] = []
        self.options: list[dict[str, object]] = []
        self.is_ended = threading.Event()

    def changed(self, **options: object) -> "Teller":
        if options["max_new_tokens"] == 0:
            raise ConfigError("generate.max_new_tokens: '0' given; whole number above 0 is allowed")
        self.options.append(options)
        return self

    def languages(self) -> list[str]:
        return LANGUAGES_OF_RUN

    def prompt(self, question: Question) -> str:
        if not question.text.strip():
            raise DataError("question: an empty text given; text is needed; write some")
        return f"<{question.text}> {{{question.given}}}"

    def stream(self, question: Question) -> Iterator[Told]:
        self.asked.append(question)
        if question.text == "break":
            raise RuntimeError("out of <memory>")
        words = self.words.split(" ")
        try:
            for number in range(1, len(words) + 1):
                if self.may is not None:
                    assert self.may.acquire(timeout=60)
                is_last = number == len(words)
                cut = 7 if question.text == "long" else 0
                yield Told(" ".join(words[:number]), "eos" if is_last else "", number, cut)
        finally:
            self.is_ended.set()


# ── columns ──────────────────────────────────────────────────────────────────
def last_of(tellers: list[Teller], question: Question, **changed: object) -> list[Column]:
    *_, last = Answering().columns(tellers, question, ASKED | changed, "me")
    return last


def test_columns_are_filled_one_after_the_other_and_each_text_begins_with_the_one_before():
    may = threading.Semaphore(0)
    shown = Answering().columns(
        [Teller("base", may=may), Teller("tuned", may=may)], Question("a"), ASKED, "me"
    )
    states = []
    for columns in shown:
        state = [re.sub("<[^>]*>", "", column.answer) for column in columns]
        if state not in states:
            states.append(state)
            may.release()  # each word is said once the one before was read
        if columns[0].status == "writes":
            assert columns[1] == Column("", "waits for its turn")
    words = ["three", "three short", "three short words"]
    assert states == [["", ""], *([word, ""] for word in words), *([words[-1], word] for word in words)]
    assert all(column.status.startswith("ended by itself · 3 tokens · first after ") for column in columns)


def test_a_stopped_answer_keeps_what_is_written_and_the_model_ends():
    may = threading.Semaphore(2)
    tellers = [Teller("base", "three short words more", may=may), Teller("tuned", may=may)]
    answering = Answering()
    for columns in answering.columns(tellers, Question("a"), ASKED, "me"):
        if "short" in columns[0].answer:
            answering.stop("somebody else")
            answering.stop("me")
            may.release()  # a model looks up after each word
    assert columns[0].status.startswith("stopped by you · ")
    assert "three short" in columns[0].answer
    assert columns[1] == Column("", "stopped by you", text_html("<a> {}", None))
    assert tellers[0].is_ended.wait(60)
    assert not tellers[1].asked


def test_a_reader_who_leaves_ends_the_answer_and_the_next_one_is_answered():
    may = threading.Semaphore(1)
    answering, left = Answering(), Teller("base", may=may)
    shown = answering.columns([left], Question("a"), ASKED, "me")
    assert "three" in [next(shown), next(shown)][-1][0].answer
    shown.close()
    may.release()
    assert left.is_ended.wait(60)
    *_, (last,) = answering.columns([Teller("base")], Question("a"), ASKED, "you")
    assert "three short words" in last.answer


def test_a_question_that_waits_for_those_of_others_can_be_stopped_and_the_next_is_answered():
    answering, teller = Answering(), Teller("base")
    answering.stop("me")  # nothing is asked
    answering.expect("me")
    answering.stop("me")
    *_, (stopped,) = answering.columns([teller], Question("a"), ASKED, "me")
    assert stopped.status == "stopped by you"
    assert not teller.asked
    answering.expect("me")
    *_, (whole,) = answering.columns([teller], Question("b"), ASKED, "me")
    assert "three short words" in whole.answer


def test_one_question_is_answered_at_a_time():
    may = threading.Semaphore(1)
    answering, first, second = Answering(), Teller("base", may=may), Teller("base")
    shown = answering.columns([first], Question("a"), ASKED, "me")
    assert "three" in [next(shown), next(shown)][-1][0].answer
    begun = threading.Event()
    second.stream = lambda question: [begun.set(), Told("b", "eos", 1, 0)][1:]
    waiting = threading.Thread(target=list, args=[answering.columns([second], Question("b"), ASKED, "you")])
    waiting.start()
    assert not begun.wait(0.5)
    may.release(2)
    assert "three short words" in list(shown)[-1][0].answer
    waiting.join(60)
    assert begun.is_set()


@pytest.mark.parametrize(
    ("question", "options", "told"),
    [
        (Question("  "), {}, "question: an empty text given; text is needed; write some"),
        (Question("a", direction=("deu_Latn",) * 2), {}, "From, To: German given for both; two languages"),
        (Question("a"), {"max_new_tokens": 0}, "generate.max_new_tokens: &#x27;0&#x27; given"),
        (
            Question("break"),
            {},
            "base: failed with RuntimeError: out of &lt;memory&gt;; the terminal tells more",
        ),
    ],
    ids=["empty", "same", "options", "failure"],
)
def test_what_goes_wrong_is_told_in_the_column_and_the_others_go_on(question, options, told, capsys):
    (column,) = last_of([Teller("base")], question, **options)
    assert column.status.startswith('<p class="note" role="alert">')
    assert told in column.status
    assert "Traceback" not in column.status
    assert ("Traceback" in capsys.readouterr().err) == (question.text == "break")


def test_a_prompt_that_was_cut_is_told():
    (column,) = last_of([Teller("base")], Question("long"))
    assert "7 tokens were cut from the beginning of the prompt" in column.status


def test_a_language_that_the_run_never_learned_is_told():
    learned, other = Teller("tuned"), Teller("base")
    learned.framing = dataclasses.replace(learned.framing, learned=("eng_Latn", "deu_Latn"))
    question = Question("a", direction=("eng_Latn", "jav_Latn"))
    of_learned, of_other = (column.status for column in last_of([learned, other], question))
    assert "Javanese is not among the languages of this run" in of_learned
    assert "English" not in of_learned
    assert "languages" not in of_other  # a model without a run may have read anything


@pytest.mark.parametrize(
    ("text", "language", "runs"),
    [
        ("PostgreSQL هو 12!", "arb_Arab", "rtl"),
        ("", "heb_Hebr", "rtl"),
        ("12:30", "heb_Hebr", "rtl"),
        ("at eight.", "heb_Hebr", "ltr"),
        ("ב-8:30 (Berlin)", "eng_Latn", "ltr"),
        ("בשמונה.", "eng_Latn", "rtl"),
        ("कल सुबह", "hin_Deva", "ltr"),
        ("בשמונה.", None, "auto"),
    ],
)
def test_a_text_runs_as_its_language_does_unless_all_its_letters_run_the_other_way(text, language, runs):
    assert f'dir="{runs}"' in text_html(text, language)


def test_a_text_is_shown_as_it_is_written():
    shown = text_html("<b>{{value}} ${1+1} &amp;", "zho_Hant")
    assert shown == ('<div class="text" dir="ltr" lang="zh-Hant">&lt;b&gt;{{value}} ${1+1} &amp;amp;</div>')


# ── address ──────────────────────────────────────────────────────────────────
def test_a_port_that_is_taken_is_refused_and_auto_takes_the_next(monkeypatch):
    with listen("127.0.0.1", "auto") as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            ConfigError, match=f"--port: {port} given, which another program listens on; .* leave --port out"
        ):
            check_page("127.0.0.1", port)
        monkeypatch.setattr(address, "FIRST_PORT", port)
        with listen("127.0.0.1", "auto") as free:
            assert free.getsockname()[1] > port
        monkeypatch.setattr(address, "_PORTS", 1)
        with pytest.raises(ConfigError, match=f"--port: auto given; {port} to {port} are all taken"):
            listen("127.0.0.1", "auto")
    listen("127.0.0.1", port).close()


@pytest.mark.parametrize(
    ("host", "told"),
    [("nobody.invalid", "--host: 'nobody.invalid' given, which has no address"), ("192.0.2.1", "--host: '192.0.2.1' given, which is no")],
)  # fmt: skip
def test_a_host_that_is_not_this_machine_is_refused(host: str, told: str):
    with pytest.raises(ConfigError, match=told):
        listen(host, "auto")


def test_only_this_machine_reaches_a_page_unless_asked_otherwise():
    with listen("localhost", "auto") as own, listen("0.0.0.0", "auto") as everybody:
        assert is_loopback(own)
        assert not is_loopback(everybody)
        assert own.getsockname()[0] == "127.0.0.1"
        assert url_of(everybody) == f"http://127.0.0.1:{everybody.getsockname()[1]}"
        # Another address of this machine, where Linux reaches it, finds nobody.
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.2", own.getsockname()[1]), timeout=5)


def test_without_gradio_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(address.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'pip install "jaxlingua\[web\]"'):
        check_page("127.0.0.1", "auto")


# ── page ─────────────────────────────────────────────────────────────────────
class Server(uvicorn.Server):
    """A server that a test can end; Ctrl-C ends those of users."""

    last: "Server"

    def run(self, sockets=None):
        Server.last = self
        super().run(sockets)


@pytest.fixture(scope="module")
def page() -> Iterator[tuple[str, list[Teller]]]:
    """Where a page is served, and its models."""
    tellers = [Teller("<base>", "שלום Berlin 12!"), Teller("tuned")]
    urls: list[str] = []
    said = threading.Event()

    def say(line: str) -> None:
        urls.extend(re.findall(r"http://\S+", line))
        said.set()

    connect = socket.socket.connect
    strange = []

    def watched(self: socket.socket, to: tuple) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and to[0] not in (
            "127.0.0.1",
            "::1",
            "localhost",
        ):
            strange.append(to)
        connect(self, to)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", watched)
        patch.setattr(uvicorn, "Server", Server)
        serving = threading.Thread(
            target=web.serve, args=[tellers], kwargs={"host": "127.0.0.1", "port": "auto", "say": say}
        )
        serving.start()
        assert said.wait(120)
        yield urls[0], tellers
        Server.last.should_exit = True
        serving.join(60)
        assert not serving.is_alive()
        assert not strange


@pytest.fixture(scope="module")
def client(page) -> Client:
    return Client(page[0], verbose=False)


def fetched(url: str) -> str:
    with urlopen(url, timeout=60) as answer:
        return answer.read().decode()


@pytest.mark.parametrize(
    ("way", "given", "question"),
    [
        (
            "translate",
            ["eng_Latn", "heb_Hebr", "at eight"],
            Question("at eight", direction=("eng_Latn", "heb_Hebr")),
        ),
        ("instruct", ["Name it.", "a dog", None], Question("Name it.", "a dog")),
        ("go_on", ["once"], Question("once", is_raw=True)),
    ],
)
def test_one_question_is_asked_of_every_model(page, client, way, given, question):
    shown = list(client.submit(*given, 5, 0.7, 3, api_name=f"/{way}"))
    assert len(shown) > 2
    runs = "rtl" if way == "translate" else "auto"
    assert shown[-1][0].startswith(f'<div class="text" dir="{runs}"')
    assert "שלום Berlin 12!" in shown[-1][0]
    assert "three short words" in shown[-1][3]
    for teller, status in zip(page[1], shown[-1][1::3], strict=True):
        assert status.startswith("ended by itself · 3 tokens")
        assert teller.asked[-1] == question
        assert teller.options[-1] == {"max_new_tokens": 5, "temperature": 0.7, "seed": 3}
    assert f"&lt;{question.text}&gt;" in shown[-1][2]


def test_a_button_first_says_that_its_reader_asks(client):
    """So that Stop finds the question while it is in the queue."""
    events = {one["id"]: one for one in client.config["dependencies"]}
    for way in ("translate", "instruct", "go_on"):
        (asking,) = [one for one in events.values() if one["api_name"] == way]
        before = events[asking["trigger_after"]]
        assert (before["queue"], asking["queue"]) == (False, True)
        assert {name for _, name in before["targets"]} == {"click", "submit"}


def test_the_languages_of_the_run_come_first_and_the_box_runs_as_they_do(page, client):
    boxes = {one["props"].get("label"): one["props"] for one in client.config["components"]}
    assert [code for _, code in boxes["From"]["choices"][:3]] == LANGUAGES_OF_RUN
    assert {code for _, code in boxes["To"]["choices"]} >= LANGUAGES.keys()
    assert (boxes["From"]["value"], boxes["To"]["value"]) == ("heb_Hebr", "eng_Latn")
    assert boxes["Text to translate"]["rtl"] is True
    assert boxes["Longest answer (tokens)"]["value"] == 8
    named = "<h2>&lt;base&gt;</h2><p class='quiet'>framed &lt;as&gt; in training</p>"
    assert named in [one["props"].get("value") for one in client.config["components"]]


def test_the_page_names_no_other_machine(page, client):
    index = fetched(page[0])
    parts = re.findall(r'<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)="([^"]+)"', index)
    assert len(parts) > 2
    sheets = [fetched(f"{page[0]}/{part.lstrip('./')}") for part in parts if part.endswith(".css")]
    sheets.append(fetched(f"{page[0]}/theme.css"))
    sheets.append(client.config["css"])
    wanted = [
        *parts,
        *(found for sheet in sheets for found in re.findall(r"(?:url\(|@import)\s*['\"]?([^'\")]+)", sheet)),
    ]
    assert not [part for part in wanted if re.match(r"(?:https?:)?//", part)]
    assert client.config["analytics_enabled"] is False
    assert not client.config["stylesheets"]


def test_another_host_is_warned_of(monkeypatch):
    class Ended:
        def __init__(self, config): ...
        def run(self, sockets): ...

    monkeypatch.setattr(uvicorn, "Server", Ended)
    told: list[str] = []
    web.serve([Teller("base")], host="0.0.0.0", port="auto", say=told.append)
    assert "warning: --host: 0.0.0.0 given; whoever reaches this machine there may use the models" in told


def test_every_example_is_in_the_script_of_its_language():
    examples = yaml.safe_load((web._PAGES / "examples.yaml").read_text("utf-8"))
    scripts = {"Hans": "Han", "Hant": "Han", "Jpan": "(Han|Hira|Kana)", "Hang": "Hang"}
    texts = {code: list(given) for code, given in examples["sentences"].items()}
    for code, given in examples["instructions"].items():
        texts.setdefault(code, []).extend(text for pair in given for text in pair)
        assert all(len(pair) == 2 for pair in given)
    for code, given in texts.items():
        script = scripts.get(script_of(code), script_of(code))
        for text in given:
            letters = regex.findall(r"\p{L}", text)
            inside = [
                letter
                for letter in letters
                if regex.match(
                    "|".join(rf"\p{{Script={one}}}" for one in script.strip("()").split("|")), letter
                )
            ]
            assert len(inside) >= len(letters) * 0.6, (code, text)


def test_examples_are_in_the_languages_of_the_run_and_phrases_where_it_learned_phrases():
    sentences = web._translations(LANGUAGES_OF_RUN, are_phrases=False)
    assert [sample[:2] for sample in sentences[:3]] == [
        ["heb_Hebr", "eng_Latn"],
        ["eng_Latn", "heb_Hebr"],
        ["deu_Latn", "heb_Hebr"],
    ]
    phrases = web._translations(["deu_Latn", "eng_Latn"], are_phrases=True)
    assert phrases[0] == ["deu_Latn", "eng_Latn", "in 3 Tagen"]
    assert web._instructions(["tha_Thai", "tet_Latn"])[0][1] == ""
