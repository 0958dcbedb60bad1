"""A judge on this machine: an HTTP server in a thread that answers as told, and counts."""

import json
import re
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-tests-only-314159"


class FakeJudge:
    """`reply` gets the text of a request and gives the judge's text, or a function that misbehaves."""

    def __init__(self, reply: Callable[[str], Any]):
        self.reply = reply
        self.requests: list[dict] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.most_at_once = 0
        self._now = 0
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                outer._handle(self)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # clients that hang up
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self._lock:
            self.requests.append(body)
            self.headers.append(dict(handler.headers))
            self.paths.append(handler.path)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            answer = self.reply(body["messages"][0]["content"])
            answer(handler) if callable(answer) else completion(answer)(handler)
        finally:
            with self._lock:
                self._now -= 1


def completion(text: str | None, model: str = "judge-2026-01") -> Callable:
    message = {"role": "assistant", "content": text}
    content = {"object": "chat.completion", "model": model, "choices": [{"index": 0, "message": message}]}
    return raw(200, json.dumps(content).encode())


def raw(
    status: int, body: bytes, headers: dict[str, str] | None = None, length: int | None = None
) -> Callable:
    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)
        handler.wfile.flush()
        handler.close_connection = True

    return send


def error(status: int, message: str, headers: dict[str, str] | None = None) -> Callable:
    return raw(status, json.dumps({"error": {"message": message, "type": "x"}}).encode(), headers)


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True
    handler.connection.close()


def late(seconds: float) -> Callable:
    def send(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(seconds)
        completion("VERDICT: YES")(handler)

    return send


def dripping(handler: BaseHTTPRequestHandler) -> None:
    """A byte now and then, each within the time of a reply, and never the last."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    for _ in range(40):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.05)


def dripping_headers(handler: BaseHTTPRequestHandler) -> None:
    """A byte of a header now and then, each within the time of a reply."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Wait: ")
    for _ in range(40):
        handler.wfile.write(b"a")
        handler.wfile.flush()
        time.sleep(0.05)


def between(text: str, tag: str) -> str:
    """What stands between <tag-MARK> and </tag-MARK> in a request, MARK being that of its first tag."""
    mark = re.search(r"<task-([0-9a-f]{12})>", text)[1]
    return text.split(f"<{tag}-{mark}>\n", 1)[1].split(f"\n</{tag}-{mark}>", 1)[0]
