"""One request to an OpenAI-compatible endpoint: patience for what passes, one line for what does not."""

import contextlib
import email.utils
import functools
import http.client
import json
import os
import re
import socket
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any

from jaxlingua.config import JudgeConfig
from jaxlingua.errors import ConfigError, MachineError, one_line

FIRST_WAIT_SECONDS = 0.5  # doubled with each further try
LONGEST_WAIT_SECONDS = 300.0
_REPLY_BYTES = 2**24
_CHUNK_BYTES = 2**16
_NAME_CHARACTERS = 200
_TOLD_CHARACTERS = 200
_PASSING = {408, 409, 425, 429}
_REFUSED = {400, 413, 422}
_SEE = "see to the endpoint and run the same command again; all replies so far are kept"


@dataclass(frozen=True, slots=True)
class Reply:
    """What the endpoint said, and which model it says that it is."""

    text: str
    model: str


class Refused(Exception):
    """The endpoint does not want this one request, such as a text longer than its context."""


class GivenUp(Exception):
    """Somebody else's request failed for good."""


class _Passing(Exception):
    """Worth another try, after some seconds if the endpoint says how many."""

    def __init__(self, what: str, wait_seconds: float = 0.0):
        super().__init__(what)
        self.wait_seconds = wait_seconds


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A request sent elsewhere would lose its text on the way, and carry the key to others."""

    def redirect_request(self, *_: Any) -> None:
        return None


class _Deadline:
    """Ends a connection once its time is over, whatever it is waiting for: a timeout is of single reads."""

    def __init__(self, seconds: float):
        self.is_over = False
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None  # of our own, so that nobody else closes or wraps it
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True
        self._timer.start()

    def connect(self, *args: Any) -> socket.socket:
        """As socket.create_connection."""
        connection = socket.create_connection(*args)
        with self._lock:
            self._socket = connection.dup()
        if self.is_over:
            self._end()
        return connection

    def close(self) -> None:
        self._timer.cancel()
        with self._lock:
            if self._socket:
                self._socket.close()
                self._socket = None

    def _end(self) -> None:
        with self._lock:
            self.is_over = True
            if self._socket:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)


class _Http(urllib.request.HTTPHandler):
    """Connections that end with the deadline of their request."""

    def http_open(self, request: Any) -> Any:
        return self.do_open(functools.partial(_connection, http.client.HTTPConnection, request), request)


class _Https(urllib.request.HTTPSHandler):
    """Connections that end with the deadline of their request."""

    def https_open(self, request: Any) -> Any:
        kind = functools.partial(_connection, http.client.HTTPSConnection, request)
        return self.do_open(kind, request, context=self._context)


def _connection(kind: type, request: Any, host: str, **options: Any) -> http.client.HTTPConnection:
    connection = kind(host, **options)
    connection._create_connection = request.deadline.connect
    return connection


class Endpoint:
    """Sends requests from any thread. The key is in no message, file or representation."""

    def __init__(self, judge: JudgeConfig):
        """Raises: ConfigError for an address, model or key that cannot be used; nothing is sent."""
        self.url = _address(judge.url)
        if not judge.model.strip():
            raise ConfigError("eval.judge.model: empty; name the model of the endpoint that shall judge")
        self.stop = threading.Event()  # set: all that wait for another try give up
        self._key = os.environ.get(judge.key_variable, "").strip()
        if not re.fullmatch(r"[!-~]*", self._key):
            raise ConfigError(
                f"eval.judge.key_variable: the key in {judge.key_variable} has characters that no key has; "
                "set it again"
            )
        self._judge = judge
        is_here = urllib.parse.urlsplit(self.url).hostname in ("localhost", "127.0.0.1", "::1")
        proxies = [urllib.request.ProxyHandler({})] if is_here else []
        self._opener = urllib.request.build_opener(_NoRedirect, _Http, _Https, *proxies)

    def ask(self, request: dict[str, Any]) -> Reply:
        """The reply to a request for a chat completion; errors and late replies are tried again.

        Raises: MachineError where all tries failed; ConfigError at once for a wrong key, address or model;
            Refused for a request that the endpoint does not take; GivenUp once `stop` is set.
        """
        tries = self._judge.retries + 1
        for number in range(tries):
            if self.stop.is_set():
                raise GivenUp
            try:
                return self._post(request)
            except _Passing as trouble:
                wait, what = trouble.wait_seconds, one_line(trouble)
            if wait > LONGEST_WAIT_SECONDS:
                raise MachineError(f"{self.url}: {what}; it asks to wait {wait:,.0f} s; {_SEE}")
            if number + 1 < tries:
                self.stop.wait(max(wait, FIRST_WAIT_SECONDS * 2**number))
        raise MachineError(f"{self.url}: {what}, {tries} tries; {_SEE}")

    def _post(self, request: dict[str, Any]) -> Reply:
        headers = {"Content-Type": "application/json", "User-Agent": "jaxlingua"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        sent = urllib.request.Request(self.url, json.dumps(request).encode(), headers, method="POST")
        seconds = self._judge.timeout_seconds
        sent.deadline = deadline = _Deadline(seconds)
        try:
            with self._opener.open(sent, timeout=seconds) as response:
                body = _read(response)
            if deadline.is_over:
                raise TimeoutError
        except urllib.error.HTTPError as error:
            with error:
                raise self._status(error) from None
        except (OSError, http.client.HTTPException) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            if deadline.is_over or isinstance(reason, TimeoutError | socket.timeout):
                raise _Passing(f"no reply within {seconds:g} s") from None
            told = getattr(reason, "strerror", None) or one_line(Exception(reason)) or type(reason).__name__
            raise _Passing(self._clean(told)) from None
        finally:
            deadline.close()
        return self._reply(body)

    def _reply(self, body: bytes) -> Reply:
        try:
            told = json.loads(body)
            text = told["choices"][0]["message"]["content"]
        except (ValueError, RecursionError, KeyError, IndexError, TypeError):
            text = 0
        if text is not None and not isinstance(text, str):
            start = self._clean(body.decode("utf-8", "replace"))[:120]
            raise _Passing(f"'{start}' came back, which is no chat completion")
        model = told.get("model")
        return Reply(self._clean(text or ""), self._name(model) if isinstance(model, str) else "")

    def _status(self, error: urllib.error.HTTPError) -> Exception:
        """What an error of the endpoint is to us."""
        try:
            body = error.read(4096).decode("utf-8", "replace")
        except (OSError, http.client.HTTPException):
            body = ""
        came = f"{error.code} {self._clean(_message(body) or str(error.reason))[:_TOLD_CHARACTERS]}".strip()
        if error.code in _PASSING or error.code >= 500:
            return _Passing(came, _retry_after(error.headers.get("Retry-After", "")))
        if error.code in _REFUSED:
            return Refused(came)
        remedy = "give the address to which the endpoint moved as eval.judge.url"
        if error.code in (401, 403):
            has_key = "is not accepted" if self._key else "is not set"
            remedy = f"the key in the environment variable {self._judge.key_variable} {has_key}; set it"
        elif error.code >= 400:
            remedy = "mend eval.judge.url, which often ends in /v1, or eval.judge.model"
        return ConfigError(f"{self.url}: {came}; {remedy}")

    def _clean(self, text: str) -> str:
        return text.replace(self._key, "<key>") if self._key else text

    def _name(self, model: str) -> str:
        """A reported name as signatures can hold it."""
        return part_of_signature(self._clean(model))[:_NAME_CHARACTERS]


def part_of_signature(text: str) -> str:
    """One line of what UTF-8 can write, without the sign between the parts of a signature.

    Example:
        >>> part_of_signature("judge|v2\\n\\ud800")
        'judge/v2 ?'
    """
    return " ".join(text.encode("utf-8", "replace").decode().replace("|", "/").split())


def _address(url: str) -> str:
    try:
        parts = urllib.parse.urlsplit(url.strip())
        is_usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable or parts.username or parts.query or parts.fragment or re.search(r"\s", url.strip()):
        shown = re.sub(r"//[^/@]*@", "//<hidden>@", url)
        raise ConfigError(
            f"eval.judge.url: '{shown}' given; http:// or https:// and a host are needed, without name, key "
            "or query; write it like http://127.0.0.1:8000/v1"
        )
    return url.strip().rstrip("/").removesuffix("/chat/completions") + "/chat/completions"


def _read(response: http.client.HTTPResponse) -> bytes:
    """The whole body, unless it is larger than any reply."""
    chunks = []
    size = 0
    while chunk := response.read1(_CHUNK_BYTES):
        chunks.append(chunk)
        size += len(chunk)
        if size > _REPLY_BYTES:
            raise OSError(0, f"a reply of more than {_REPLY_BYTES // 2**20} MiB")
    return b"".join(chunks)


def _message(body: str) -> str:
    """What an error says, out of the several forms that endpoints give it."""
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        return one_line(Exception(body))
    for name in ("error", "message", "detail"):
        if isinstance(told, dict) and name in told:
            told = told[name]
    return one_line(Exception(told if isinstance(told, str) else json.dumps(told)))


def _retry_after(value: str) -> float:
    """Seconds to wait; 0 where it is not said. It is given in seconds or as a date."""
    if re.fullmatch(r"\s*\d+(\.\d+)?\s*", value):
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0
