"""A run folder in a bucket of Google Cloud Storage: a working copy here, carried there as it grows.

All code works with the copy's `Path`. Checkpoints are the exception: Orbax writes them straight into the
bucket. A killed run loses what it wrote since the last carry, and finds the rest again on any machine.

    .lock in the bucket     who trains there; renewed while that goes on
    <cache>/runs/<run>-*/copy-*/<run>   the copy, gone when the run ends
    <cache>/runs/<run>-*/cache          tokenized documents, kept here for the next run and never carried
"""

import fcntl
import functools
import hashlib
import importlib.util
import json
import logging
import os
import re
import shutil
import socket
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from jaxlingua.errors import ConfigError, JaxlinguaError, MachineError, one_line

# Orbax reaches buckets through etils.epath, which would take TensorFlow where that is installed, and gcsfs.
os.environ.setdefault("EPATH_USE_TF", "false")
# Else gcsfs asks for the bucket's type over gRPC, and waits 60 s where only HTTP gets through.
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
# Else it keeps for ever what it once listed, and other processes write there too.
os.environ.setdefault("FSSPEC_GCS", '{"use_listings_cache": false}')
# The same where they are imported, and have read that, already.
if "etils.epath.gpath" in sys.modules:
    getattr(sys.modules["etils.epath.gpath"]._is_tf_installed, "cache_clear", lambda: None)()
if "fsspec" in sys.modules:
    sys.modules["fsspec"].config.conf.setdefault("gcs", {}).setdefault("use_listings_cache", False)

# What it logs, with a traceback, it raises as well.
logging.getLogger("gcsfs").setLevel(logging.CRITICAL)

CARRY_SECONDS = 30.0
RENEW_SECONDS = 10.0
# The holder had four chances to renew; by the clock of the one who waits, so clocks need not agree.
STALE_SECONDS = 45.0
POLL_SECONDS = 1.0
RETRY_SECONDS = 60.0  # of a request that meets no network or a busy service
TRANSFERS = 8  # at once

LOCK = ".lock"
NOT_CARRIED = ("cache", "checkpoints")
NOT_FETCHED = (*NOT_CARRIED, "export")
PARTIAL_ENDINGS = (".partial", ".tmp")

Say = Callable[[str], None]


def is_bucket(folder: str) -> bool:
    """Whether `folder` names a place in a bucket rather than on this machine."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", folder) is not None


def exists(url: str) -> bool:
    """Whether there is an object `url`, or one beneath it. Raises: as `working_copy`."""
    bucket, name = _split(url)
    with in_one_line(url):
        beneath = _client().list_blobs(
            bucket, prefix=f"{name}/" if name else "", max_results=1, **_patience()
        )
        return any(True for _ in beneath) or bool(name and _object(bucket, name).exists(**_patience()))


def read_text(url: str) -> str:
    """The text of an object. Raises: FileNotFoundError if there is none, else as `working_copy`."""
    from google.api_core.exceptions import NotFound

    bucket, name = _split(url)
    with in_one_line(url):
        try:
            return _object(bucket, name).download_as_bytes(**_patience()).decode("utf-8")
        except NotFound:
            list(_client().list_blobs(bucket, max_results=1, **_patience()))  # tells of an absent bucket
    raise FileNotFoundError(2, "no such object", url)


def listing(url: str) -> dict[str, tuple[int, str]]:
    """Size in bytes and crc32c (base64) of every object beneath `url`, by its name from there on."""
    bucket, name = _split(url)
    prefix = f"{name}/" if name else ""
    with in_one_line(url):
        found = _client().list_blobs(bucket, prefix=prefix, **_patience())
        return {blob.name[len(prefix) :]: (blob.size, blob.crc32c) for blob in found if blob.name != prefix}


def move(url: str, target: str) -> None:
    """Give all objects beneath `url` names beneath `target`, in the same bucket, in place of what is there.

    Raises: as `working_copy`.
    Cost: nothing is read here; the service copies within itself.
    """
    (bucket, name), (_, new_name) = _split(url), _split(target)
    home = _client().bucket(bucket)

    def move_one(blob: Any) -> None:
        # A rewrite, so that none is too large for the time of one request.
        moved, token = home.blob(new_name + blob.name[len(name) :]), None
        while True:
            token, _, _ = moved.rewrite(blob, token=token, **_patience())
            if token is None:
                break
        blob.delete(**_patience())

    with in_one_line(url), ThreadPoolExecutor(TRANSFERS) as pool:
        there = _client().list_blobs(bucket, prefix=f"{new_name}/", **_patience())
        list(pool.map(lambda blob: blob.delete(**_patience()), list(there)))
        list(pool.map(move_one, list(_client().list_blobs(bucket, prefix=f"{name}/", **_patience()))))


@contextmanager
def working_copy(folder: str, *, is_primary: bool, say: Say | None = None) -> Iterator["WorkingCopy"]:
    """The files of a run in a bucket, here; what changes is carried there every 30 s and at the end.

    Args:
        is_primary: whether this is process 0, which alone locks the folder and carries. The others get what
            is there when they ask: after process 0 has it.
        say: told what one should know while it goes on, such as the wait for the lock of a killed run; None
            prints it on stderr.
    Raises: ConfigError where there is no such bucket, no permission, no credentials; MachineError where it
        cannot be reached, or another process trains there.
    Cost: 45 s where a killed run left its lock.
    """
    say = say or _print
    with ExitStack() as stack:
        lock = _Lock(folder, say) if is_primary else None
        if lock:
            with in_one_line(folder):
                lock.take()
            stack.callback(lock.release)
            stack.enter_context(_every(RENEW_SECONDS, lock.renew_quietly))
        path = stack.enter_context(_local_folder(folder))
        copy = WorkingCopy(folder, path, lock, say)
        copy.fetch()
        if lock:
            stack.enter_context(_carried(copy, say))
        yield copy


@contextmanager
def _carried(copy: "WorkingCopy", say: Say) -> Iterator[None]:
    """Carry now and then, and at the end however it comes; a failure does not hide what ended the run."""
    try:
        with _every(CARRY_SECONDS, copy.carry_quietly):
            yield
    except BaseException as ending:
        try:
            copy.carry()
        except JaxlinguaError as error:
            if one_line(error) != one_line(ending):
                say(f"{one_line(error)}; the last changes are lost")
        raise
    copy.carry()


class WorkingCopy:
    """A folder of this machine that stands for one in a bucket."""

    def __init__(self, url: str, path: Path, lock: "_Lock | None", say: Say):
        self.url = url
        self.path = path
        self._bucket, name = _split(url)
        self._prefix = f"{name}/" if name else ""
        self._lock = lock
        self._say = say
        self._carrying = threading.Lock()
        self._carried: dict[str, tuple[int, int]] = {}  # size and time of each file as it is there
        self._is_failing = False

    def fetch(self) -> None:
        """Bring what is there, but for the large folders."""
        with in_one_line(self.url):
            names = list(self._names_there())
            with ThreadPoolExecutor(TRANSFERS) as pool:
                list(pool.map(self._download, names))

    def carry(self) -> None:
        """Make the bucket as the copy is: upload what is new or changed, remove what was removed here.

        By process 0; nothing in the others. Returns when it is done; any thread may call it.

        Raises: MachineError if the lock was lost to another run, or the bucket cannot be reached.
        """
        if self._lock is None:
            return
        with self._carrying, in_one_line(self.url):
            self._lock.renew()
            if not self.path.is_dir():
                raise MachineError(
                    f"{self.path}: the working copy of {self.url} was removed; it is needed until the run "
                    f"ends; run the same command again"
                )
            files = {name: _state(self.path / name) for name in self._names_here()}
            changed = [name for name, state in files.items() if state and state != self._carried.get(name)]
            with ThreadPoolExecutor(TRANSFERS) as pool:
                for wave in (False, True):
                    list(pool.map(self._upload, [name for name in changed if _tells_of_others(name) == wave]))
                list(pool.map(self._remove, self._carried.keys() - files.keys()))

    def carry_quietly(self) -> None:
        """As `carry`, for a thread: a failure is told once, until it is over."""
        try:
            self.carry()
        except JaxlinguaError as error:
            if not self._is_failing and not (self._lock and self._lock.is_lost):
                self._say(f"{one_line(error)}; tried again every {CARRY_SECONDS:.0f} s")
            self._is_failing = True
        else:
            if self._is_failing:
                self._say(f"{self.url}: reached again")
            self._is_failing = False

    def _names_there(self) -> Iterator[str]:
        found = _client().list_blobs(self._bucket, prefix=self._prefix, delimiter="/", **_patience())
        blobs = [blob.name for blob in found]  # before found.prefixes, which are known only then
        for prefix in found.prefixes:
            if prefix[len(self._prefix) : -1] not in NOT_FETCHED:
                blobs += [
                    blob.name for blob in _client().list_blobs(self._bucket, prefix=prefix, **_patience())
                ]
        for name in (blob[len(self._prefix) :] for blob in blobs):
            if not _is_passing(name) and not name.endswith("/"):  # some tools leave "folder/" objects
                yield name

    def _names_here(self) -> Iterator[str]:
        for folder, folders, files in os.walk(self.path):
            if Path(folder) == self.path:
                folders[:] = [name for name in folders if name not in NOT_CARRIED]
            for file in files:
                name = (Path(folder) / file).relative_to(self.path).as_posix()
                if not _is_passing(name):
                    yield name

    def _download(self, name: str) -> None:
        from google.api_core.exceptions import NotFound

        if ".." in PurePosixPath(name).parts or name.startswith("/"):
            raise ConfigError(
                f"{self.url}: an object has the name '{name}', which lies outside of the run folder; "
                f"names without '..' are allowed; remove it"
            )
        path = self.path / name
        with suppress(NotFound):  # removed since it was listed
            content = _object(self._bucket, self._prefix + name).download_as_bytes(**_patience())
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            self._carried[name] = _state(path) or (0, 0)

    def _upload(self, name: str) -> None:
        path = self.path / name
        with (
            suppress(FileNotFoundError),
            path.open("rb") as file,
        ):  # removed meanwhile: the next carry sees it
            status = os.fstat(file.fileno())
            # No more than its size: it may be growing.
            _object(self._bucket, self._prefix + name).upload_from_file(
                file, size=status.st_size, checksum="crc32c", **_patience()
            )
            self._carried[name] = (status.st_size, status.st_mtime_ns)

    def _remove(self, name: str) -> None:
        from google.api_core.exceptions import NotFound

        with suppress(NotFound):
            _object(self._bucket, self._prefix + name).delete(**_patience())
        self._carried.pop(name, None)


def _tells_of_others(name: str) -> bool:
    """Whether a file says that others beside it are there, so that it must come after them."""
    return name == "config.yaml" or name.endswith("/scores.json")


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _is_passing(name: str) -> bool:
    """Locks, and files that are being written to be moved to their name."""
    last = name.rpartition("/")[2]
    return last.startswith(".") or last.endswith(PARTIAL_ENDINGS)


def _state(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_size, status.st_mtime_ns


# ── one run at a time ─────────────────────────────────────────────────────────────────────────────────────


class _Lock:
    """The object `.lock`, written only in place of the version that was seen: two cannot both hold it.

    Nothing in a bucket goes with a process that is killed: its lock is one that is no longer renewed.
    """

    def __init__(self, url: str, say: Say):
        self._url = url
        self._say = say
        bucket, name = _split(url)
        self._bucket = bucket
        self._name = f"{name}/{LOCK}" if name else LOCK
        self._holder = {"host": socket.gethostname(), "pid": str(os.getpid()), "token": uuid.uuid4().hex}
        self._count = 0
        self._generation = 0
        self._writing = threading.Lock()
        self.is_lost = False

    def take(self) -> None:
        first, since = None, 0.0
        while True:
            seen = self._seen()
            if seen is None:
                if self._write(0):
                    break
            elif first is None:
                first, since = seen, time.monotonic()
                self._say(
                    f"{self._url}: {_who(seen)} trains here, or was killed; going on if its lock stays as "
                    f"it is for {STALE_SECONDS:.0f} s"
                )
            elif seen.generation != first.generation:
                raise self._taken(seen)
            elif time.monotonic() - since >= STALE_SECONDS:
                if self._write(first.generation):
                    break
                raise self._taken(self._seen() or seen)
            time.sleep(POLL_SECONDS)
        self.renew()  # replacing an object takes a permission of its own; better known now

    def renew(self) -> None:
        """Raises: MachineError if another run has it now."""
        with self._writing:
            if not self.is_lost and not self._write(self._generation):
                self.is_lost = True
        if self.is_lost:
            raise MachineError(
                f"{self._url}: another process took this run over, because this one gave no sign for "
                f"{STALE_SECONDS:.0f} s; one at a time is allowed; stop the other, and run the same "
                f"command again"
            )

    def renew_quietly(self) -> None:
        """As `renew`, for a thread; without a network until the next time."""
        was_lost = self.is_lost
        try:
            with in_one_line(self._url):
                self.renew()
        except JaxlinguaError as error:
            if self.is_lost and not was_lost:
                self._say(one_line(error))

    def release(self) -> None:
        """Remove it, if it is still this run's."""
        from google.api_core.exceptions import NotFound, PreconditionFailed

        with suppress(JaxlinguaError), in_one_line(self._url), suppress(NotFound, PreconditionFailed):
            _object(self._bucket, self._name).delete(if_generation_match=self._generation, **_patience())

    def _seen(self) -> Any:
        return _client().bucket(self._bucket).get_blob(self._name, **_patience())

    def _write(self, generation: int) -> bool:
        """Write it in place of `generation` (0: of nothing); False if that is no longer there."""
        from google.api_core.exceptions import PreconditionFailed

        self._count += 1
        written = _object(self._bucket, self._name)
        written.metadata = {**self._holder, "count": str(self._count)}
        content = json.dumps(written.metadata)
        try:
            written.upload_from_string(content, if_generation_match=generation, **_patience())
        except PreconditionFailed:
            # It was ourselves if the answer to a first try was lost on its way.
            written = self._seen()
            if written is None or written.metadata != {**self._holder, "count": str(self._count)}:
                return False
        self._generation = written.generation
        return True

    def _taken(self, seen: Any) -> MachineError:
        return MachineError(
            f"{self._url}: another process trains here ({_who(seen)}); one at a time is allowed; wait for it "
            f"or stop it, or choose another run.folder"
        )


def _who(seen: Any) -> str:
    told = seen.metadata or {}
    return f"{told.get('host', 'an unknown host')}, pid {told.get('pid', 'unknown')}"


@contextmanager
def _every(seconds: float, act: Callable[[], None]) -> Iterator[None]:
    """Let a thread act again and again while the context is open."""
    is_over = threading.Event()

    def go_on() -> None:
        while not is_over.wait(seconds):
            act()

    thread = threading.Thread(target=go_on, daemon=True, name="bucket")
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


# ── the place of the copy ─────────────────────────────────────────────────────────────────────────────────


@contextmanager
def _local_folder(url: str) -> Iterator[Path]:
    """A fresh folder of this process's own, with the kept `cache` inside; removed at the end.

    Under the user's cache and not in /tmp, where a machine may tidy away what was not read for ten days; a
    long run's config.yaml would then be missing in the copy, and be removed from the bucket as well. What
    killed processes left is removed by the next one.
    """
    bucket, name = _split(url)
    title = (name or bucket).rpartition("/")[2]
    place = (
        _cache_folder() / "runs" / f"{title}-{hashlib.sha256(f'{bucket}/{name}'.encode()).hexdigest()[:12]}"
    )
    try:
        (place / "cache").mkdir(parents=True, exist_ok=True)
        with _flocked(place):
            for left in place.glob("copy-*"):
                with suppress(OSError), _flocked(left, wait=False):
                    shutil.rmtree(left)
            home = Path(tempfile.mkdtemp(prefix="copy-", dir=place))
            held = _flocked(home, wait=False)
            held.__enter__()
        path = home / title  # by which the report calls the run
        path.mkdir()
        (path / "cache").symlink_to(place / "cache")
    except (FileExistsError, NotADirectoryError, PermissionError, FileNotFoundError) as error:
        raise ConfigError(
            f"{place}: the working copy of {url} cannot be made there ({error.strerror}); a folder that can "
            f"be written is allowed; give one as JAXLINGUA_CACHE"
        ) from None
    try:
        yield path
    finally:
        shutil.rmtree(home, ignore_errors=True)
        held.__exit__(None, None, None)


def _cache_folder() -> Path:
    return Path(os.environ.get("JAXLINGUA_CACHE", "~/.cache/jaxlingua")).expanduser().absolute()


@contextmanager
def _flocked(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a folder; the hold goes with the process. Raises: OSError if another has it, without `wait`."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(descriptor)


# ── the service ───────────────────────────────────────────────────────────────────────────────────────────


def _split(url: str) -> tuple[str, str]:
    """Bucket and name within it. Raises: ConfigError for what is no gs://bucket/path."""
    match = re.fullmatch(r"gs://([a-z0-9][a-z0-9._-]{1,220}[a-z0-9])(?:/+(.*))?", url)
    if not match:
        raise ConfigError(
            f"run.folder: '{url}' given; a folder of this machine or gs://bucket/path is allowed; write it so"
        )
    return match[1], re.sub("/+", "/", match[2] or "").strip("/")


@functools.cache
def _client() -> Any:
    from google.cloud import storage

    return storage.Client()


def _object(bucket: str, name: str) -> Any:
    return _client().bucket(bucket).blob(name)


def _patience() -> dict[str, Any]:
    """How long a request waits for an answer, and is asked again."""
    from google.cloud.storage.retry import DEFAULT_RETRY

    retry = DEFAULT_RETRY.with_delay(initial=0.5, maximum=8.0).with_timeout(RETRY_SECONDS)
    return {"timeout": (10.0, 60.0), "retry": retry}


@contextmanager
def in_one_line(url: str) -> Iterator[None]:
    """Tell in one line what the service, the network or the credentials have to say."""
    if importlib.util.find_spec("gcsfs") is None:
        raise ConfigError(
            f"{url}: gcsfs is not installed; a folder of this machine is allowed without it; run pip install "
            f"'jaxlingua[gcs]'"
        )
    try:
        yield
    except Exception as error:
        if (told := trouble(url, error)) is None:
            raise
        raise told from None


def trouble(url: str, error: BaseException) -> JaxlinguaError | None:
    """What the service, the network or the credentials have to say, in one line; None for any other error.

    Four clients reach a bucket: that of Google, the one of its credentials, gcsfs, and the writer of arrays.
    """
    import aiohttp
    import gcsfs.retry
    import requests
    from google.api_core import exceptions as api
    from google.auth import exceptions as auth
    from google.cloud.storage.exceptions import DataCorruption, InvalidResponse

    ours = (
        *(api.GoogleAPIError, auth.GoogleAuthError, DataCorruption, InvalidResponse),
        *(requests.RequestException, aiohttp.ClientError, gcsfs.retry.HttpError),
    )
    seen = None if isinstance(error, JaxlinguaError) else error
    while seen is not None:
        arrays = re.search(r"\[http_response_code='(\d+)'\]|\[curl_code='", str(seen))
        if isinstance(seen, ours):
            cause = seen.cause if isinstance(seen, api.RetryError) and seen.cause else seen
            answer = getattr(cause, "response", None)
            code = getattr(cause, "code", None) or getattr(answer, "status_code", None)
            return _explained(url, cause, str(code or type(cause).__name__))
        if arrays:
            return _explained(url, seen, arrays[1] or "no answer")
        if isinstance(seen, OSError) and str(seen).startswith("Forbidden: "):  # so gcsfs says it
            return _explained(url, seen, "403")
        seen = None if seen.__cause__ is seen else seen.__cause__  # as of an error raised from itself
    return None


def _explained(url: str, cause: BaseException, because: str) -> JaxlinguaError:
    from google.api_core import exceptions as api
    from google.auth import exceptions as auth

    bucket, _ = _split(url)
    if isinstance(cause, api.NotFound):
        return ConfigError(
            f"{url}: there is no bucket '{bucket}', or it may not be seen; one that exists is allowed; "
            f"make it with 'gcloud storage buckets create gs://{bucket}', or choose another run.folder"
        )
    if because == "403":
        return ConfigError(
            f"{url}: permission denied by Google Cloud Storage; listing, reading, writing and deleting "
            f"of objects is needed; grant roles/storage.objectUser on gs://{bucket} to this account"
        )
    is_network = isinstance(cause, auth.TransportError) or getattr(cause, "retryable", False)
    if because == "401" or (isinstance(cause, auth.GoogleAuthError) and not is_network):
        return ConfigError(
            f"{url}: no valid credentials for Google Cloud Storage ({because}); those of an account are "
            f"needed; run 'gcloud auth application-default login', or set GOOGLE_APPLICATION_CREDENTIALS"
        )
    return MachineError(
        f"{url}: Google Cloud Storage cannot be reached ({because}); a network is needed; run the same "
        f"command again when there is one"
    )
