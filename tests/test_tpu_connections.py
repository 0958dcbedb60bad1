"""tpu/*.sh where signals come twice, connections break, and a slice is not reached."""

import os
import signal
import subprocess

import pytest

from tests.cloud import AT, BUCKET, CONFIG, Cloud, wait_for


@pytest.fixture
def cloud(tmp_path):
    return Cloud(tmp_path / "cloud").small_clone()


def stop(cloud: Cloud) -> subprocess.Popen:
    """tpu/stop.sh, as far as to where it waits."""
    script = str(cloud.clone / "tpu/stop.sh")
    stopping = subprocess.Popen(
        ["bash", script, *AT], env=cloud.environment(), stdout=subprocess.PIPE, text=True
    )
    for line in stopping.stdout:
        if line.endswith(": saves and stops\n"):
            break
    return stopping


@pytest.mark.parametrize("by", ["two stops", "a machine that goes down"])
def test_a_run_that_saves_gets_no_second_sigterm(cloud, by):
    """The second would end it at once, with nothing saved."""
    cloud.have().run("setup", *AT)
    saved = cloud.folder / "saved"
    variables = {"UNTIL_train": str(cloud.folder / "never"), "SAVED": str(saved)}
    assert cloud.run("launch", *AT, *CONFIG, **variables).returncode == 0
    wait_for(cloud.trained)
    (log,) = (cloud.home() / "jaxlingua" / "launched").glob("*.log")
    wait_for(lambda: "python says" in log.read_text())
    stops = []
    if by == "two stops":
        stops = [stop(cloud), stop(cloud)]
    else:  # which tells every process
        for kind in (".training", ".pid"):
            os.kill(int(log.with_suffix(kind).read_text()), signal.SIGTERM)
    wait_for(lambda: "saves" in log.read_text())
    saved.touch()
    assert cloud.run("logs", *AT).returncode == 143
    for stopping in stops:
        assert "stopped, exit code 143" in stopping.stdout.read()
        assert stopping.wait() == 0


def test_a_command_that_gcloud_gives_again_does_what_it_did(cloud):
    """As it does when the connection breaks, after which the first may well have done its work."""
    cloud.have(hosts=2)
    setup = cloud.run("setup", *AT, "--data", "data/mine", BREAKS="tar -tzf")
    assert setup.returncode == 0, setup.stderr
    assert not (cloud.home() / "jaxlingua.tar.gz").exists()
    never = str(cloud.folder / "never")
    launch = cloud.run("launch", *AT, *CONFIG, BUCKET, BREAKS="worker.sh start", UNTIL_train=never)
    assert launch.returncode == 0, launch.stderr
    wait_for(lambda: len(cloud.trained()) == 2)
    assert cloud.run("stop", *AT, BREAKS="worker.sh stop").returncode == 0
    assert len(cloud.trained()) == 2
    assert cloud.run("logs", *AT).returncode == 143


def test_a_slice_that_is_not_reached_is_told(cloud):
    cloud.have(slices=2).run("setup", *AT, "--slices", "2")
    done = cloud.run("launch", *AT, "--slices", "2", *CONFIG, BUCKET, UNREACHED="my-tpu-1")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "error: my-tpu: started on 1 of 2 hosts; run tpu/stop.sh, then this again"
    )
    assert "It goes on by itself" not in done.stdout


def test_a_clone_that_was_not_sent_is_not_installed(cloud):
    """The archive of the setup before is gone, else it would be installed again, and nobody told."""
    cloud.have(slices=2)
    assert cloud.run("setup", *AT, "--slices", "2").returncode == 0
    again = cloud.run("setup", *AT, "--slices", "2", SENDS_NOTHING="1")
    assert again.returncode != 0
    assert "ssh-add ~/.ssh/google_compute_engine" in again.stdout
