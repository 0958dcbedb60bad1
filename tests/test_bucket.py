"""Run folders in a bucket, against an emulator of the storage service on this machine."""

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from google.auth import exceptions as auth
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxlingua import bucket
from jaxlingua.errors import ConfigError, MachineError
from tests.buckets import fresh_emulator

pytestmark = pytest.mark.xdist_group("bucket")


@pytest.fixture
def there(tmp_path, monkeypatch):
    """The emulator; as in a real run, but the clocks run 50 times as fast."""
    monkeypatch.setenv("JAXLINGUA_CACHE", str(tmp_path / "kept"))
    monkeypatch.setattr(bucket, "RENEW_SECONDS", 0.2)
    monkeypatch.setattr(bucket, "STALE_SECONDS", 0.9)
    monkeypatch.setattr(bucket, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(bucket, "RETRY_SECONDS", 1.0)
    bucket._client.cache_clear()
    return fresh_emulator()


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def uploads(emulator) -> list[str]:
    """Names of the files that were uploaded, without the lock."""
    return [line for line in emulator.asked if "/upload/" in line and "ifGenerationMatch" not in line]


# ── the working copy ──────────────────────────────────────────────────────────────────────────────────────


def test_what_a_run_writes_is_there_after_it_and_found_by_the_next_one_elsewhere(
    there, tmp_path, monkeypatch
):
    all_bytes = bytes(range(256)) * 3 + b"\r\n--==\r\n\n"
    with bucket.working_copy(there.url, is_primary=True) as copy:
        assert list(copy.path.iterdir()) == [copy.path / "cache"]
        write(copy.path, metrics="1\n", evals__base__news="née\n", cache__documents="many")
        (copy.path / "events.tfevents").write_bytes(all_bytes)
        (copy.path / "empty").touch()
        (copy.path / ".config.yaml.partial").touch()
    assert there.names() == {"metrics", "evals/base/news", "events.tfevents", "empty"}
    assert not copy.path.exists()

    monkeypatch.setenv("JAXLINGUA_CACHE", str(tmp_path / "another machine"))
    with bucket.working_copy(there.url, is_primary=True) as copy:
        assert (copy.path / "events.tfevents").read_bytes() == all_bytes
        assert (copy.path / "evals" / "base" / "news").read_text() == "née\n"
        assert (copy.path / "empty").read_bytes() == b""
        assert not list((copy.path / "cache").iterdir())


def test_only_what_changed_is_carried_and_what_was_removed_is_removed_there(there):
    with bucket.working_copy(there.url, is_primary=True) as copy:
        write(copy.path, config="a", metrics="1\n", report="old", evals__base="x")
        copy.carry()
        assert len(uploads(there)) == 4
        there.asked.clear()
        copy.carry()
        assert not uploads(there)
        with (copy.path / "metrics").open("a") as file:
            file.write("2\n")
        (copy.path / "report").unlink()
        copy.carry()
        assert len(uploads(there)) == 1
        assert there.read("metrics") == b"1\n2\n"
        assert there.names() == {"config", "metrics", "evals/base", ".lock"}


def test_a_resumed_run_carries_nothing_that_it_fetched(there):
    with bucket.working_copy(there.url, is_primary=True) as copy:
        write(copy.path, config="a", metrics="1\n")
    there.asked.clear()
    with bucket.working_copy(there.url, is_primary=True) as copy:
        (copy.path / "config").unlink()
    assert not uploads(there)
    assert there.names() == {"metrics"}


def test_checkpoints_and_exports_are_not_fetched(there):
    with bucket.working_copy(there.url, is_primary=True) as copy:
        write(copy.path, config="a", checkpoints__4__state="never carried", export__model="weights")
    assert there.names() == {"config", "export/model"}
    bucket._object("bucket", f"{there.prefix}/checkpoints/4/state").upload_from_string("large")
    with bucket.working_copy(there.url, is_primary=True) as copy:
        assert sorted(path.name for path in copy.path.iterdir()) == ["cache", "config"]
    assert there.names() == {"config", "export/model", "checkpoints/4/state"}


def test_a_thread_carries_while_the_run_goes_on(there, monkeypatch):
    monkeypatch.setattr(bucket, "CARRY_SECONDS", 0.05)
    with bucket.working_copy(there.url, is_primary=True) as copy:
        write(copy.path, metrics="1\n")
        wait_for(lambda: "metrics" in there.names())


def test_what_was_written_before_an_error_is_carried(there):
    with suppress(KeyboardInterrupt), bucket.working_copy(there.url, is_primary=True) as copy:
        write(copy.path, metrics="1\n")
        raise KeyboardInterrupt
    assert there.names() == {"metrics"}


def test_other_processes_read_their_own_copy_and_write_nothing(there):
    with bucket.working_copy(there.url, is_primary=True) as first:
        write(first.path, config="a")
        first.carry()
        with bucket.working_copy(there.url, is_primary=False) as second:
            assert second.path != first.path
            assert (second.path / "config").read_text() == "a"
            write(second.path, config="b", more="c")
            second.carry()
        assert there.names() == {"config", ".lock"}
        assert there.read("config") == b"a"


def test_tokenized_documents_are_kept_here_for_the_next_run_and_left_copies_are_removed(there):
    with bucket.working_copy(there.url, is_primary=True) as copy:
        write(copy.path, cache__documents="many")
        left = copy.path.parent.with_name("copy-of-a-killed-process")
        left.mkdir()
        with bucket.working_copy(there.url, is_primary=False) as other:
            assert not left.exists()
            assert copy.path.exists()
            assert (other.path / "cache" / "documents").read_text() == "many"
    with bucket.working_copy(there.url, is_primary=True) as copy:
        assert (copy.path / "cache" / "documents").read_text() == "many"


def test_a_removed_copy_does_not_empty_the_bucket(there):
    with bucket.working_copy(there.url, is_primary=True) as copy:
        write(copy.path, config="a")
        copy.carry()
        copy.path.rename(copy.path.with_name("moved"))
        with pytest.raises(MachineError, match="the working copy of gs://bucket/.* was removed"):
            copy.carry()
        copy.path.with_name("moved").rename(copy.path)
    assert there.names() == {"config"}


def test_an_object_that_would_lie_outside_of_the_folder_is_refused(there, monkeypatch):
    monkeypatch.setattr(bucket.WorkingCopy, "_names_there", lambda _: iter(["evals/../../../out"]))
    with (
        pytest.raises(ConfigError, match="name 'evals/../../../out', which lies outside of the run folder"),
        bucket.working_copy(there.url, is_primary=True),
    ):
        pass


# ── one run at a time ─────────────────────────────────────────────────────────────────────────────────────


def test_a_second_run_is_refused_while_the_first_gives_signs_of_life(there, monkeypatch):
    monkeypatch.setattr(bucket, "STALE_SECONDS", 40.0)
    said = []
    with bucket.working_copy(there.url, is_primary=True):
        began = time.monotonic()
        with pytest.raises(MachineError) as refused:
            open_alone(there.url, say=said.append)
        assert time.monotonic() - began < 35
    me = f"{os.uname().nodename}, pid {os.getpid()}"
    assert str(refused.value) == (
        f"{there.url}: another process trains here ({me}); one at a time is allowed; wait for it or stop it, "
        f"or choose another run.folder"
    )
    assert said == [
        f"{there.url}: {me} trains here, or was killed; going on if its lock stays as it is for 40 s"
    ]


def test_the_lock_is_gone_after_an_orderly_end(there):
    said = []
    for _ in range(2):
        with bucket.working_copy(there.url, is_primary=True, say=said.append):
            assert ".lock" in there.names()
        assert there.names() == set()
    assert not said


def killed(there) -> bucket._Lock:
    """The lock of a run that was killed with it."""
    lock = bucket._Lock(there.url, print)
    lock.take()
    return lock


def test_the_lock_of_a_killed_run_is_taken_over_after_a_while(there):
    killed(there)
    said = []
    started = time.monotonic()
    with bucket.working_copy(there.url, is_primary=True, say=said.append):
        assert time.monotonic() - started >= bucket.STALE_SECONDS
    assert len(said) == 1


def test_of_two_that_take_over_one_wins(there):
    killed(there)
    won, lost, end = [], [], threading.Event()

    def run():
        try:
            with bucket.working_copy(there.url, is_primary=True, say=lambda _: None) as copy:
                won.append(copy)
                end.wait(300)
        except MachineError as error:
            lost.append(str(error))

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(won) + len(lost) == 3)
    end.set()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert all("another process trains here" in error for error in lost)


def test_a_run_whose_lock_was_taken_away_stops_at_its_next_carry_and_changes_nothing(there):
    said = []
    other = bucket._Lock(there.url, print)

    def run():
        with bucket.working_copy(there.url, is_primary=True, say=said.append) as copy:
            write(copy.path, metrics="1\n")
            other._write(other._seen().generation)
            copy.carry()

    with pytest.raises(MachineError) as stopped:
        run()
    assert str(stopped.value) == (
        f"{there.url}: another process took this run over, because this one gave no sign for 1 s; one at a time "
        f"is allowed; stop the other, and run the same command again"
    )
    assert there.names() == {".lock"}
    assert there.read(".lock") == json.dumps({**other._holder, "count": "1"}).encode()
    assert set(said) <= {str(stopped.value)}


def test_a_run_is_told_by_its_thread_that_it_was_taken_over(there, monkeypatch):
    monkeypatch.setattr(bucket, "RENEW_SECONDS", 0.02)
    said = []
    with suppress(MachineError), bucket.working_copy(there.url, is_primary=True, say=said.append):
        other = bucket._Lock(there.url, print)
        wait_for(lambda: other._write(other._seen().generation))
        wait_for(lambda: said)
    assert len(said) == 1
    assert "another process took this run over" in said[0]


def test_a_lost_answer_does_not_lock_a_run_out_of_its_own_folder(there):
    """The request is repeated, and what is found there is ourselves."""
    for kind in ("ifGenerationMatch=0", "ifGenerationMatch=1"):
        with (
            there.failing(None, containing=kind, is_done=True),
            bucket.working_copy(there.url, is_primary=True),
        ):
            pass
        assert there.names() == set()


def test_a_run_killed_in_its_middle_loses_at_most_what_it_had_not_carried(there):
    script = (
        "import sys, time; from jaxlingua import bucket\n"
        "with bucket.working_copy(sys.argv[1], is_primary=True) as copy:\n"
        "    (copy.path / 'metrics').write_text('1\\n')\n"
        "    copy.carry()\n"
        "    (copy.path / 'metrics').write_text('1\\n2\\n')\n"
        "    print(copy.path, flush=True)\n"
        "    time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, there.url], stdout=subprocess.PIPE, text=True
    ) as run:
        left = Path(run.stdout.readline().strip())
        run.kill()
    said = []
    with bucket.working_copy(there.url, is_primary=True, say=said.append) as copy:
        assert (copy.path / "metrics").read_text() == "1\n"
        assert not left.exists()
        assert left.name == copy.path.name == there.prefix.rpartition("/")[2]
    assert f"pid {run.pid} trains here, or was killed" in said[0]


# ── bad days ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", [503, 429, None])
def test_a_service_that_is_busy_for_a_moment_is_asked_again(there, status, monkeypatch):
    monkeypatch.setattr(bucket, "RETRY_SECONDS", 20.0)
    with bucket.working_copy(there.url, is_primary=True) as copy:
        write(copy.path, metrics="1\n")
        with there.failing(status, containing="/upload/", times=2):
            copy.carry()
        assert there.read("metrics") == b"1\n"


@pytest.mark.parametrize(("status", "cause"), [(503, "503"), (None, "ConnectionError")])
def test_a_network_that_fails_is_told_once_and_what_it_kept_back_is_carried_later(
    there, monkeypatch, status, cause
):
    monkeypatch.setattr(bucket, "CARRY_SECONDS", 0.05)
    said = []
    with bucket.working_copy(there.url, is_primary=True, say=said.append) as copy:
        with there.failing(status, times=float("inf")):
            write(copy.path, metrics="1\n")
            with pytest.raises(MachineError) as told:
                copy.carry()
            wait_for(lambda: said)
        assert str(told.value) == (
            f"{there.url}: Google Cloud Storage cannot be reached ({cause}); a network is needed; run the same "
            f"command again when there is one"
        )
        wait_for(lambda: "metrics" in there.names())
        wait_for(lambda: len(said) == 2)
        assert said == [f"{told.value}; tried again every 0 s", f"{there.url}: reached again"]


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (403, "permission denied by Google Cloud Storage; listing, reading, writing and deleting of objects"),
        (401, "no valid credentials for Google Cloud Storage ("),
    ],
)
@pytest.mark.parametrize("refused", ["GET", "POST", "ifGenerationMatch=1"])
def test_a_missing_permission_is_told_before_anything_is_done(there, status, told, refused):
    with (
        there.failing(status, containing=refused, times=float("inf")),
        pytest.raises(ConfigError) as error,
        bucket.working_copy(there.url, is_primary=True),
    ):
        pytest.fail("the run began")
    assert str(error.value).startswith(f"{there.url}: {told}")


def test_a_bucket_that_is_absent_is_told_as_such(there):
    for ask in (bucket.read_text, bucket.exists, bucket.listing, open_alone):
        with pytest.raises(ConfigError, match="there is no bucket 'nowhere', or it may not be seen"):
            ask("gs://nowhere/run")


def open_alone(url, **options):
    with bucket.working_copy(url, is_primary=True, **options):
        pass


@pytest.mark.parametrize(
    ("error", "raised", "told"),
    [
        (auth.DefaultCredentialsError("none"), ConfigError, "(DefaultCredentialsError); those of an account"),
        (auth.RefreshError("expired"), ConfigError, "(RefreshError); those of an account are needed"),
        (auth.TransportError("no route"), MachineError, "cannot be reached (TransportError); a network"),
    ],
)
def test_credentials_that_are_absent_or_expired_are_told(there, monkeypatch, error, raised, told):
    def fail():
        raise error

    monkeypatch.setattr(bucket, "_client", fail)
    with pytest.raises(raised) as caught:
        open_alone(there.url)
    assert told in str(caught.value)


def test_without_gcsfs_it_is_told_what_to_install(there, monkeypatch):
    monkeypatch.setattr(bucket.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"gcsfs is not installed; .* pip install 'jaxlingua\[gcs\]'"):
        open_alone(there.url)


@pytest.mark.parametrize(
    "url", ["s3://bucket/run", "gs:/bucket/run", "gs://", "gs:///run", "gs://Bucket/run"]
)
def test_other_places_than_gs_are_refused(url):
    assert bucket.is_bucket(url)
    with pytest.raises(ConfigError) as error:
        open_alone(url)
    assert str(error.value) == (
        f"run.folder: '{url}' given; a folder of this machine or gs://bucket/path is allowed; write it so"
    )


def test_folders_of_this_machine_are_no_buckets():
    assert not any(map(bucket.is_bucket, ["runs/a", "/runs/a", "a:b", "~/x", "./gs:", "runs/gs://x"]))


def test_a_cache_that_cannot_be_written_is_told(there, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("JAXLINGUA_CACHE", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="working copy of gs://.* cannot be made there .*JAXLINGUA_CACHE"):
        open_alone(there.url)
    assert there.names() == set()


# ── reading alone, and Orbax ──────────────────────────────────────────────────────────────────────────────


def test_single_objects_are_read_and_listed(there):
    with bucket.working_copy(there.url, is_primary=True) as copy:
        write(copy.path, config="née", evals__base="123456789")
    assert bucket.read_text(f"{there.url}/config") == "née"
    assert bucket.exists(there.url)
    assert bucket.exists(f"{there.url}//evals/")
    assert bucket.exists(f"{there.url}/config")
    assert not bucket.exists(f"{there.url}/conf")
    with pytest.raises(FileNotFoundError):
        bucket.read_text(f"{there.url}/conf")
    # The check value of CRC-32C in its standard, 0xe3069283.
    assert bucket.listing(there.url)["evals/base"] == (9, "4waSgw==")
    assert bucket.listing(f"{there.url}/evals").keys() == {"base"}
    assert bucket.listing(f"{there.url}/eval") == {}


def test_orbax_saves_a_sharded_tree_to_a_bucket_and_restores_it_on_another_mesh(there):
    import orbax.checkpoint as ocp
    from etils import epath

    def sharded(devices):
        return NamedSharding(Mesh(np.array(jax.devices()[:devices]), ("data",)), PartitionSpec("data"))

    there_step = epath.Path(f"{there.url}/checkpoints/4")
    tree = {"embed": jax.device_put(jnp.arange(4096.0).reshape(64, 64), sharded(4)), "step": jnp.int32(4)}
    with ocp.AsyncCheckpointer(ocp.CompositeCheckpointHandler("state", "meta")) as checkpointer:
        args = ocp.args.Composite(state=ocp.args.StandardSave(tree), meta=ocp.args.JsonSave({"stage": "one"}))
        checkpointer.save(there_step, args)
        checkpointer.wait_until_finished()
        abstract = {
            "embed": jax.ShapeDtypeStruct((64, 64), jnp.float32, sharding=sharded(8)),
            "step": jax.ShapeDtypeStruct(
                (), jnp.int32, sharding=NamedSharding(sharded(8).mesh, PartitionSpec())
            ),
        }
        restored = checkpointer.restore(
            there_step,
            ocp.args.Composite(state=ocp.args.StandardRestore(abstract), meta=ocp.args.JsonRestore()),
        )
    np.testing.assert_array_equal(restored.state["embed"], tree["embed"])
    assert restored.state["embed"].sharding.num_devices == 8
    assert restored.meta == {"stage": "one"}
    there_now = bucket.listing(f"{there.url}/checkpoints")
    assert {
        f"4/{name}" for name in ("_CHECKPOINT_METADATA", "meta/metadata", "state/_METADATA")
    } <= there_now.keys()


def test_what_another_process_writes_is_seen_at_once(there):
    """gcsfs keeps what it listed for ever, unless it is told otherwise."""
    from etils import epath

    folder = epath.Path(there.url) / "checkpoints"
    bucket.exists(there.url)
    for step in (1, 2):
        bucket._object("bucket", f"{there.prefix}/checkpoints/{step}/meta").upload_from_string("x")
        assert len(list(folder.iterdir())) == step
        assert (folder / str(step)).exists()


@pytest.mark.parametrize("before", ["", "fsspec"])
def test_tensorflow_is_not_taken_for_buckets_and_nothing_listed_is_kept(there, before):
    """Also where a local path was used before: etils remembers what it found then."""
    script = (
        "import sys; from etils import epath; epath.Path('/').exists()\n"
        "if sys.argv[1]: import fsspec\n"
        "import jaxlingua.bucket\n"
        "assert 'google.cloud.storage' not in sys.modules and 'gcsfs' not in sys.modules\n"
        "import gcsfs\n"
        "backend = epath.Path('gs://bucket/x')._backend\n"
        "print(type(backend).__name__, backend._get_filesystem('gcs').dircache.use_listings_cache)"
    )
    command = [sys.executable, "-c", script, before]
    ours = ("EPATH_USE_TF", "FSSPEC_GCS")  # set here already
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.stdout.split() == ["_FileSystemSpecBackend", "False"], done.stderr


def wait_for(condition, seconds=10.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.02)
