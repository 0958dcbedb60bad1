"""A storage service on this machine: gcp-storage-emulator, and what it lacks for our tests.

Added are threads, preconditions (ifGenerationMatch) and the generation of what is read, a list of what was
asked, and failures on demand.
"""

import io
import logging
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers.buckets import create_bucket
from gcp_storage_emulator.server import RequestHandler, Router, _read_raw_data
from gcp_storage_emulator.storage import Storage
from google.cloud import storage

BUCKET = "bucket"


class _PreconditionFailed(Exception):
    pass


class _Storage(Storage):
    """One that refuses to replace another version than the one that was named."""

    wanted: int | None = None  # generation in the request at hand; 0: no object

    def create_file(self, bucket_name, file_name, content, file_obj, file_id=None):
        self._check(bucket_name, file_name)
        return super().create_file(bucket_name, file_name, content, file_obj, file_id)

    def delete_file(self, bucket_name, file_name):
        self._check(bucket_name, file_name)
        return super().delete_file(bucket_name, file_name)

    def _check(self, bucket_name, file_name):
        there = 0
        with suppress(NotFound):
            there = int(self.get_file_obj(bucket_name, file_name)["generation"])
        if self.wanted not in (None, there):
            raise _PreconditionFailed


class Emulator:
    """The service; `url` is a folder in it that no other test uses."""

    def __init__(self):
        logging.getLogger("gcp_storage_emulator").setLevel(logging.CRITICAL)
        logging.getLogger("api").setLevel(logging.CRITICAL)
        self.storage = _Storage(use_memory_fs=True)
        create_bucket(BUCKET, self.storage)
        self.asked: list[str] = []
        self.failures: list[Callable[..., bool]] = []
        self.mutex = threading.RLock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self))
        self.server.handle_error = lambda *_: None  # clients that hang up
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.folders = 0

    @property
    def url(self) -> str:
        return f"gs://{BUCKET}/{self.prefix}"

    @property
    def prefix(self) -> str:
        return f"team/run-{self.folders}"

    def names(self) -> set[str]:
        """Names of all objects in `url`."""
        files, _ = self.storage.get_file_list(BUCKET, f"{self.prefix}/")
        return {file["name"].removeprefix(f"{self.prefix}/") for file in files}

    def read(self, name: str) -> bytes:
        return self.storage.get_file(BUCKET, f"{self.prefix}/{name}")

    def content(self) -> dict[str, bytes]:
        """All objects in `url` by name."""
        return {name: self.read(name) for name in self.names()}

    def put(self, name: str, content: bytes) -> None:
        """An object as any client would write it."""
        storage.Client().bucket(BUCKET).blob(f"{self.prefix}/{name}").upload_from_string(content)

    def remove(self, name: str) -> None:
        self.storage.delete_file(BUCKET, f"{self.prefix}/{name}")

    def download(self, folder: Path) -> Path:
        """All objects in `url` as files."""
        for name, content in self.content().items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return folder

    @contextmanager
    def failing(
        self, status: int | None, containing: str = "", times: float = 1, is_done=False
    ) -> Iterator[None]:
        """Answer requests whose "METHOD path" contains a text with `status`; None breaks the connection.

        Args:
            times: so often.
            is_done: whether what was asked is done before.
        """
        left = times

        def fail(request: str, answer: Callable[[int | None, bool], None]) -> bool:
            nonlocal left
            if containing not in request or left <= 0:
                return False
            left -= 1
            answer(status, is_done)
            return True

        self.failures.append(fail)
        try:
            yield
        finally:
            self.failures.remove(fail)

    def environment(self) -> dict[str, str]:
        """What a process needs to take this for the storage of Google."""
        return {
            "STORAGE_EMULATOR_HOST": self.address,
            "TENSORSTORE_GCS_HTTP_URL": self.address,
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",
        }


class _Handler(RequestHandler):
    def __init__(self, emulator, *arguments):
        self.emulator = emulator
        super().__init__(emulator.storage, *arguments)

    def do_GET(self):
        body = _read_raw_data(self) or b""  # not under the mutex: it may come late
        del self.headers["Transfer-Encoding"], self.headers["Content-Length"]
        self.headers["Content-Length"] = str(len(body))
        self.rfile = io.BytesIO(body)
        request = f"{self.command} {unquote(self.path)}"
        with self.emulator.mutex:
            self.emulator.asked.append(request)
            if not any(fail(request, self.fail) for fail in self.emulator.failures):
                self.route()

    do_POST = do_PUT = do_DELETE = do_PATCH = do_GET

    def route(self):
        wanted = parse_qs(urlsplit(self.path).query).get("ifGenerationMatch")
        self.storage.wanted = int(wanted[0]) if wanted else None
        self.generation = self.read_generation()
        try:
            Router(self).handle(self.command)
        except _PreconditionFailed:
            self.refuse(412)

    def read_generation(self):
        """Of the object whose content is asked for; the writer of arrays fails now and then without."""
        address = urlsplit(self.path)
        name = re.search(rf"/b/{BUCKET}/o/(.+)", unquote(address.path))
        if self.command != "GET" or name is None or "media" not in parse_qs(address.query).get("alt", []):
            return None
        with suppress(NotFound):
            return self.storage.get_file_obj(BUCKET, name[1])["generation"]

    def end_headers(self):
        if getattr(self, "generation", None):
            self.send_header("X-Goog-Generation", self.generation)
        super().end_headers()

    def fail(self, status, is_done):
        answer = self.wfile
        if is_done:
            self.wfile = io.BytesIO()
            self.route()
        self.wfile = answer
        if status:
            self.refuse(status)
        self.close_connection = True

    def refuse(self, status):
        content = b'{"error": {"message": "refused"}}'
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@cache
def _one() -> Emulator:
    """One for all tests: tensorstore and gcsfs keep the address that they saw first."""
    emulator = Emulator()
    os.environ.update(emulator.environment())
    return emulator


def fresh_emulator() -> Emulator:
    """The service with a new, empty folder."""
    emulator = _one()
    emulator.folders += 1
    emulator.asked.clear()
    return emulator
