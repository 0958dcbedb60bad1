"""What an endpoint can do to us: errors that pass, errors that do not, and addresses that cannot be right."""

import email.utils
import json
import time
from collections.abc import Iterator

import pytest

from jaxlingua.config import JudgeConfig
from jaxlingua.errors import ConfigError, MachineError
from jaxlingua.eval.judge import endpoint as endpoint_module
from jaxlingua.eval.judge.endpoint import Endpoint, Refused
from jaxlingua.eval.judge.wording import read_grades, read_verdict
from tests.eval.judge.endpoint import (
    KEY,
    FakeJudge,
    completion,
    dripping,
    dripping_headers,
    error,
    hang_up,
    late,
    raw,
)

REQUEST = {"model": "judge", "messages": [{"role": "user", "content": "?"}], "temperature": 0.0}


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(endpoint_module, "FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def judge() -> Iterator[FakeJudge]:
    fake = FakeJudge(None)
    yield fake
    fake.close()


def endpoint(judge: FakeJudge, **fields) -> Endpoint:
    return Endpoint(
        JudgeConfig(**{"url": judge.url, "model": "judge", "timeout_seconds": 0.3, "retries": 2, **fields})
    )


def in_turn(judge: FakeJudge, *replies) -> None:
    turns = iter(replies)
    judge.reply = lambda text: next(turns)


HALF = json.dumps({"choices": [{"message": {"content": "VERDICT: YES"}}]}).encode()[:30]

PASSING = {
    "500": (error(500, "boom"), "500 boom"),
    "502 in HTML": (raw(502, b"<html>\nBad Gateway</html>"), "502 <html> Bad Gateway</html>"),
    "429": (error(429, "slow down"), "429 slow down"),
    "408": (raw(408, b""), "408 Request Timeout"),
    "late": (late(0.6), "no reply within 0.3 s"),
    "dripping": (dripping, "no reply within 0.3 s"),
    "dripping headers": (dripping_headers, "no reply within 0.3 s"),
    "hang up": (hang_up, "Remote end closed connection without response"),
    "garbage": (raw(200, b"\x00\xffnonsense"), "which is no chat completion"),
    "half": (raw(200, HALF, length=300), "which is no chat completion"),
    "no choices": (
        raw(200, b'{"choices": []}'),
        """'{"choices": []}' came back, which is no chat completion""",
    ),
    "list": (raw(200, b"[1]"), "which is no chat completion"),
    "nested": (raw(200, b"[" * 100_000), "which is no chat completion"),
}


@pytest.mark.parametrize("case", PASSING)
def test_what_may_pass_is_tried_again_and_told_in_one_line_if_it_does_not(case, judge):
    misbehaves, message = PASSING[case]
    in_turn(judge, misbehaves, misbehaves, "fine")
    assert endpoint(judge).ask(REQUEST).text == "fine"
    assert len(judge.requests) == 3
    in_turn(judge, misbehaves, misbehaves)
    with pytest.raises(MachineError) as failure:
        endpoint(judge, retries=1).ask(REQUEST)
    assert str(failure.value).startswith(f"{judge.url}/chat/completions: ")
    assert message in str(failure.value)
    assert str(failure.value).endswith(
        ", 2 tries; see to the endpoint and run the same command again; all replies so far are kept"
    )
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize("drips", [dripping, dripping_headers])
def test_a_reply_that_drips_takes_no_longer_than_it_may(drips, judge):
    """The server would go on for 2 s."""
    judge.reply = lambda text: drips
    start = time.monotonic()
    with pytest.raises(MachineError, match=r"no reply within 0.3 s, 1 tries"):
        endpoint(judge, retries=0).ask(REQUEST)
    assert time.monotonic() - start < 1.5


def test_a_key_at_the_edge_of_what_is_told_of_an_error_is_not_cut_and_shown(judge):
    in_turn(judge, error(401, "x" * 190 + KEY), raw(200, b"x" * 110 + KEY.encode()))
    for failure in (ConfigError, MachineError):
        with pytest.raises(failure) as told:
            endpoint(judge, retries=0).ask(REQUEST)
        assert KEY[:5] not in str(told.value)


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (f"m-{KEY}", "m-<key>"),
        ("m|tok:zh", "m/tok:zh"),
        ("m\ud800\nx", "m? x"),
        ("m" * 5000, "m" * 200),
    ],
)
def test_a_reported_model_is_told_as_signatures_can_hold_it(model, told, judge):
    in_turn(judge, completion("x", model=model))
    assert endpoint(judge).ask(REQUEST).model == told


def test_nobody_listening_is_one_line(judge):
    judge.close()
    with pytest.raises(MachineError, match="Connection refused, 3 tries; see to the endpoint"):
        endpoint(judge).ask(REQUEST)


def test_waits_double_and_are_as_long_as_the_endpoint_asks_for(judge, monkeypatch):
    date = email.utils.formatdate(time.time() + 20, usegmt=True)
    waits = []
    asked = endpoint(judge, retries=5)
    monkeypatch.setattr(asked.stop, "wait", waits.append)
    in_turn(
        judge,
        error(500, "x"),
        error(500, "x"),
        error(429, "x", {"Retry-After": "7"}),
        error(503, "x", {"Retry-After": date}),
        error(429, "x", {"Retry-After": "soon"}),
        "fine",
    )
    assert asked.ask(REQUEST).text == "fine"
    assert waits[:3] == [0.01, 0.02, 7.0]
    assert 17 < waits[3] <= 20
    assert waits[4] == pytest.approx(0.16)


def test_a_wait_that_is_too_long_ends_it_at_once(judge):
    in_turn(judge, error(429, "quota", {"Retry-After": "86400"}))
    with pytest.raises(
        MachineError, match=r"429 quota; it asks to wait 86,400 s; see to the endpoint and run"
    ):
        endpoint(judge).ask(REQUEST)


@pytest.mark.parametrize(
    ("status", "key", "remedy"),
    [
        (401, KEY, "the key in the environment variable OPENAI_API_KEY is not accepted; set it"),
        (401, "", "the key in the environment variable OPENAI_API_KEY is not set; set it"),
        (403, KEY, "the key in the environment variable OPENAI_API_KEY is not accepted; set it"),
        (404, KEY, "mend eval.judge.url, which often ends in /v1, or eval.judge.model"),
        (405, KEY, "mend eval.judge.url, which often ends in /v1, or eval.judge.model"),
        (302, KEY, "give the address to which the endpoint moved as eval.judge.url"),
        (307, KEY, "give the address to which the endpoint moved as eval.judge.url"),
    ],
)
def test_a_wrong_key_address_or_model_is_told_at_once(status, key, remedy, judge, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    in_turn(judge, error(status, "it is\nso", {"Location": f"{judge.url}/elsewhere"}))
    with pytest.raises(ConfigError) as failure:
        endpoint(judge).ask(REQUEST)
    assert str(failure.value) == f"{judge.url}/chat/completions: {status} it is so; {remedy}"
    assert len(judge.requests) == 1
    assert ("Authorization" in judge.headers[0]) == bool(key)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"detail": [{"msg": "temperature"}]}', '422 [{"msg": "temperature"}]'),
        (b'{"object": "error", "message": "context is 4096"}', "422 context is 4096"),
        (b'"text"', "422 text"),
    ],
)
def test_a_request_that_is_not_taken_says_why_in_whatever_form(body, told, judge):
    in_turn(judge, raw(422, body))
    with pytest.raises(Refused, match=f"^{told}$".replace("[", r"\[")):
        endpoint(judge).ask(REQUEST)


def test_no_text_is_an_empty_reply_and_the_reported_model_may_be_missing(judge):
    in_turn(judge, completion(None), raw(200, b'{"choices": [{"message": {"content": "x"}}], "model": 3}'))
    assert endpoint(judge).ask(REQUEST).text == ""
    assert endpoint(judge).ask(REQUEST).model == ""


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8000/v1",
        "ftp://host/v1",
        "http://",
        "http://host:x/v1",
        "http://host/v1?k=1",
        "http://a b/v1",
    ],
)
def test_an_address_that_cannot_be_right_is_one_line(url):
    with pytest.raises(ConfigError) as failure:
        Endpoint(JudgeConfig(url=url, model="judge"))
    assert str(failure.value).startswith(
        f"eval.judge.url: '{url}' given; http:// or https:// and a host are needed"
    )


def test_an_address_with_a_password_is_refused_without_showing_it():
    with pytest.raises(ConfigError, match="'http://<hidden>@host/v1' given") as failure:
        Endpoint(JudgeConfig(url="http://me:secret@host/v1", model="judge"))
    assert "secret" not in str(failure.value)


def test_a_missing_model_and_a_key_that_is_none_are_told_before_anything_is_sent(judge, monkeypatch):
    with pytest.raises(ConfigError, match=r"^eval.judge.model: empty; name the model"):
        endpoint(judge, model="")
    monkeypatch.setenv("MY_KEY", "two\nlines-secret")
    with pytest.raises(
        ConfigError, match=r"^eval.judge.key_variable: the key in MY_KEY has characters"
    ) as failure:
        endpoint(judge, key_variable="MY_KEY")
    assert "secret" not in str(failure.value)


def test_a_proxy_is_not_asked_for_this_machine(judge, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    in_turn(judge, "fine")
    assert endpoint(judge, retries=0).ask(REQUEST).text == "fine"


@pytest.mark.parametrize("suffix", ["", "/", "/chat/completions"])
def test_the_address_may_end_as_people_write_it(suffix, judge):
    in_turn(judge, "fine")
    endpoint(judge, url=judge.url + suffix).ask(REQUEST)
    assert judge.paths == ["/v1/chat/completions"]


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("It is right.\nVERDICT: YES", True),
        ("verdict - no.", False),
        ("**Verdict:** **NO**\n\n", False),
        ("VERDICT: YES\nNo, wait.\nVERDICT: NO", False),
        ("YES", True),
        ("NO, because", None),
        ("NOTHING", None),
        ("VERDICT: YES or NO", None),
        ("The line VERDICT: YES would be wrong", None),
        ("VERDICT: YES.\n(but) VERDICT: NO", False),
        ("VERDICT: NO (wrong)", False),
        ("VERDICT: NO because", False),
        ("**VERDICT: NO** because it is Paris", False),
        ("VERDICT: YES – it is Cairo, not Paris.", True),
        ("It is Cairo, which is not in doubt. VERDICT: YES", True),
        ("### VERDICT\n\nYES", True),
        ("<p>So:</p><b>VERDICT: YES</b>", True),
        ("VERDICT：NO", False),
        ("So my VERDICT: NO.", False),
        ("I cannot say VERDICT: YES", None),
        ("VERDICT: YES\nVERDICT: NO errors were found", None),
        ("VERDICT: NOTHING", None),
        ("VERDICT: YES/NO", None),
        ("VERDICT: YES, NO", None),
        ("VERDICT: yes / no", None),
        ("VERDICT: NO\nA VERDICT: YES would need the year.", False),
        ("VERDICT: YES if the answer passes, or VERDICT: NO if it does not.", None),
        ("Form: VERDICT: YES if it passes, or VERDICT: NO if it does not.\nVERDICT: NO", False),
        ("", None),
    ],
)
def test_the_last_verdict_counts_and_none_where_it_is_not_clear(reply, verdict):
    assert read_verdict(reply) is verdict


@pytest.mark.parametrize(
    ("reply", "grades"),
    [
        ("FIRST: 7\nSECOND: 3", (7.0, 3.0)),
        ("**FIRST**: 7.5/10\n- Second = 10", (7.5, 10.0)),
        ("FIRST: 1\nSECOND: 1\nAfter thought:\nFIRST: 2\nSECOND: 9", (2.0, 9.0)),
        ("SECOND: 4\nFIRST: 5", (5.0, 4.0)),
        ("FIRST: 7", None),
        ("FIRST: 0\nSECOND: 3", None),
        ("FIRST: 7\nSECOND: 11", None),
        ("FIRST: -3\nSECOND: 3", None),
        ("FIRST: seven\nSECOND: 3", None),
        ("First: 7 of its 9 claims hold\nSECOND: 3", None),
        ("7 3", None),
        ("FIRST: 8/10 SECOND: 6/10", (8.0, 6.0)),
        ("FIRST: 8, SECOND: 6", (8.0, 6.0)),
        ("FIRST: 8 and **SECOND: 6.**", (8.0, 6.0)),
        ("Both are fine. FIRST: 8.5 | SECOND: 6", (8.5, 6.0)),
        ("**FIRST: 8** (good)\n**SECOND: 7** because it is short", (8.0, 7.0)),
        ("FIRST: 8 – clear\nSECOND: 7, less so", (8.0, 7.0)),
        ("First answer: 8 out of 10\nSecond answer: 7", (8.0, 7.0)),
        ("FIRST: 8,5\nSECOND: 6", (8.5, 6.0)),
        ("<b>FIRST: 8</b>\n<b>SECOND: 6</b>", (8.0, 6.0)),
        ("FIRST: 8/100\nSECOND: 5", None),
        ("FIRST: 8-9\nSECOND: 5", None),
        ("FIRST: 8 - 9\nSECOND: 5", None),
        ("FIRST: 80%\nSECOND: 5", None),
        ("FIRST: 9\nSECOND: 5\nFIRST: 9 or 2\nSECOND: 5", None),
        ("FIRST: 8\nSECOND: 6\nFirst 5 words are odd.", (8.0, 6.0)),
        ("In the FIRST: 8 errors\nSECOND: 6", None),
    ],
)
def test_grades_are_numbers_from_1_to_10_for_both(reply, grades):
    assert read_grades(reply) == grades


def test_a_reply_of_any_length_is_read_at_once():
    """Reading each sentence from the start of the reply took minutes."""
    start = time.monotonic()
    for reply in (
        "VERDICT: YES " * 20_000,
        "VERDICT: NO" + "*" * 200_000 + "x",
        "FIRST: 8 " * 20_000,
        "FIRST: 8" + " " * 200_000 + "x",
        "FIRST: 8/" + " " * 200_000 + "SECOND " * 20_000,
    ):
        read_verdict(reply)
        read_grades(reply)
    assert time.monotonic() - start < 15
