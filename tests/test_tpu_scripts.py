"""tpu/*.sh against a cloud in a folder: what they call, what they refuse, what they do on the workers."""

import os
import re
import shutil
import signal
import subprocess

import pytest

from jaxlingua.plan.topology import topology_of
from tests.cloud import AT, BUCKET, CONFIG, GKE, ROOT, Cloud, wait_for

SCRIPTS = ("create", "setup", "launch", "logs", "stop", "fetch", "delete", "gke")


@pytest.fixture
def cloud(tmp_path):
    return Cloud(tmp_path / "cloud").small_clone()


# ── dry runs ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("script", "arguments", "there"),
    [
        ("create", (*AT, "--project", "my-project", "--topology", "v5e:2x4", "--spot"), None),
        ("create", (*AT, "--topology", "v6e:4x4", "--queued"), None),
        ("create", (*AT, "--topology", "v4:2x2x4", "--slices=2", "--spot"), None),
        ("setup", (*AT, "--data", "data/mine", "--hf-token", "clone with space/untracked file.txt"), (2, 1)),
        ("setup", (*AT, "--slices", "2"), (1, 2)),
        ("launch", (*AT, *CONFIG, "data.folder=a 'b' $c", "run.seed=1"), (1, 1)),
        ("launch", (*AT, "--slices", "2", *CONFIG, BUCKET), (1, 2)),
        ("logs", AT, (1, 1)),
        ("logs", (*AT, "--slices", "2", "--worker", "all"), (1, 2)),
        ("stop", AT, (2, 1)),
        ("fetch", (*AT, "--run", "runs/it's mine", "--to", "here"), (1, 1)),
        ("fetch", (*AT, "--slices", "2", "--run", "/shared/mine", "--checkpoints"), (1, 2)),
        ("fetch", ("--run", "gs://my-bucket/runs/mine/"), None),
        ("delete", (*AT, "--yes"), (1, 1)),
        ("delete", (*AT, "--slices", "2", "--yes"), (1, 2)),
        ("gke", (*GKE, "--topology", "v5e:4x4", "--slices", "2", "--spot", r'run.seed="1\2" # & 3'), None),
    ],
)
def test_what_a_dry_run_prints_a_shell_reads_as_the_very_calls(tmp_path, script, arguments, there):
    dry, real = Cloud(tmp_path / "dry").small_clone(), Cloud(tmp_path / "real").small_clone()
    for cloud in (dry, real) if there else ():
        cloud.have(*there)
        for vm in (cloud.folder / "tpu-vm").iterdir():
            for host in range(there[0]):
                shutil.copytree(ROOT / "tpu", cloud.home(vm.name, host) / "jaxlingua" / "tpu")
    before = sorted(dry.folder.rglob("*"))
    printed = dry.run(script, *arguments, "--dry-run")
    assert (printed.returncode, printed.stderr) == (0, "")
    assert sorted(dry.folder.rglob("*")) == before, "a dry run calls nothing and makes nothing"
    read = dry.shell(["-e", "-c", printed.stdout])
    done = real.run(script, *arguments)
    assert read.returncode == done.returncode, (read.stderr, done.stderr)
    assert dry.calls("gcloud") + dry.calls("kubectl") == real.calls("gcloud") + real.calls("kubectl") != []


def test_a_dry_run_needs_no_gcloud(cloud):
    tools = cloud.folder / "tools"
    tools.mkdir()
    for tool in ("bash", "cat", "dirname", "basename", "git", "mktemp", "rm"):
        (tools / tool).symlink_to(shutil.which(tool))
    dry = cloud.run("launch", *AT, *CONFIG, "--dry-run", PATH=str(tools))
    assert dry.returncode == 0, dry.stderr
    real = cloud.run("launch", *AT, *CONFIG, PATH=str(tools))
    assert (real.returncode, real.stderr) == (
        2,
        "error: gcloud: not found; install it: https://cloud.google.com/sdk\n",
    )


# ── create and delete ────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("topology", "kind", "version"),
    [
        ("v5e:2x4", ["--accelerator-type", "v5litepod-8"], "v2-alpha-tpuv5-lite"),
        ("v6e:16x16", ["--accelerator-type", "v6e-256"], "v2-alpha-tpuv6e"),
        ("v5p:2x2x1", ["--accelerator-type", "v5p-8"], "v2-alpha-tpuv5"),
        ("v4:4x4x8", ["--type", "v4", "--topology", "4x4x8"], "tpu-ubuntu2204-base"),
    ],
)
def test_chips_are_asked_for_by_the_names_of_google_cloud(cloud, topology, kind, version):
    assert cloud.run("create", *AT, "--topology", topology).returncode == 0
    assert cloud.calls() == [
        [
            "gcloud",
            "compute",
            "tpus",
            "tpu-vm",
            "create",
            "my-tpu",
            "--zone",
            "us-west4-a",
            *kind,
            "--version",
            version,
        ]
    ]


def test_every_topology_that_can_be_made_can_be_planned():
    text = (ROOT / "tpu" / "common.sh").read_text()
    cases = re.findall(r'^    ([v0-9a-z| ]+)\) known="([0-9x ]+)"', text, re.M)
    named = [
        f"{chip}:{shape}"
        for chips, shapes in cases
        for chip in chips.split(" | ")
        for shape in shapes.split()
    ]
    assert len(named) > 30
    for name in named:
        topology_of(name)


def test_a_queued_resource_is_waited_for_with_a_line_for_each_answer(cloud):
    states = "WAITING_FOR_RESOURCES,PROVISIONING,ACTIVE"
    done = cloud.run("create", *AT, "--topology", "v5e:4x4", "--queued", STATES=states)
    assert done.returncode == 0, done.stderr
    lines = [f"my-tpu: {state} after 0 min" for state in states.split(",")]
    assert done.stdout.splitlines()[-3:] == lines
    assert "--node-id" in cloud.calls()[0]


def test_a_vm_that_could_not_be_made_is_told_and_whether_it_is_there(cloud):
    (cloud.folder / "tpu-vm").rmdir()  # so that the stand-in fails
    done = cloud.run("create", *AT, "--topology", "v5e:2x4")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "error: my-tpu: gcloud ended with exit code 1; no such TPU VM is shown; 'gcloud compute tpus tpu-vm list --zone us-west4-a' "
        "tells if it comes later, and costs; where there is no capacity, --queued waits for it"
    )
    (cloud.folder / "tpu-vm").mkdir()
    cloud.have()
    done = cloud.run("create", *AT, "--topology", "v5e:2x4", STATES="CREATING")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "error: my-tpu: gcloud ended with exit code 1; it is there, CREATING, and costs; tpu/delete.sh deletes it"
    )


@pytest.mark.parametrize("state", ["FAILED", "SUSPENDED"])
def test_a_queued_resource_that_will_never_come_is_told(cloud, state):
    done = cloud.run("create", *AT, "--topology", "v5e:4x4", "--slices", "2", STATES=f"PROVISIONING,{state}")
    assert done.returncode == 1
    assert done.stderr == (
        f"error: my-tpu: the request is {state}; tpu/delete.sh --queued removes it; then ask again, or in another zone\n"
    )
    assert cloud.calls()[0][8:12] == ["--node-count", "2", "--node-prefix", "my-tpu"]


def test_nothing_is_deleted_before_its_name_is_typed(cloud):
    cloud.have()
    refused = cloud.run("delete", *AT, typed="my-tpo\n")
    assert refused.returncode == 2
    assert "error: 'my-tpo' typed, not my-tpu; nothing was deleted" in refused.stderr
    assert [call[4] for call in cloud.calls()] == ["describe"]
    done = cloud.run("delete", *AT, typed="my-tpu\n")
    assert done.returncode == 0, done.stderr
    assert [call[3:5] for call in cloud.calls()[2:]] == [
        ["tpu-vm", "delete"],
        ["tpu-vm", "list"],
        ["queued-resources", "list"],
    ]


def test_a_vm_of_a_queued_resource_is_deleted_with_it(cloud):
    cloud.run("create", *AT, "--topology", "v5e:2x4", "--queued")
    refused = cloud.run("delete", *AT, "--yes")
    assert refused.stderr == "error: --name: 'my-tpu' belongs to the queued resource my-tpu; give --queued\n"
    (cloud.folder / "tpu-vm" / "my-tpu").unlink()  # as while the request waits
    refused = cloud.run("delete", *AT, "--yes", STATES="WAITING_FOR_RESOURCES")
    assert refused.stderr == (
        "error: --name: 'my-tpu' is a queued resource, WAITING_FOR_RESOURCES; give --queued, or --slices if it is several\n"
    )
    assert cloud.run("delete", *AT, "--yes", "--queued").returncode == 0
    gone = cloud.run("delete", *AT, "--yes")
    assert gone.stderr == (
        "error: --name: gcloud shows no TPU VM or queued resource 'my-tpu' in us-west4-a; "
        "'gcloud compute tpus tpu-vm list --zone us-west4-a' shows what is there\n"
    )
    assert not [*(cloud.folder / "tpu-vm").iterdir(), *(cloud.folder / "queued-resources").iterdir()]


# ── setup ────────────────────────────────────────────────────────────────────


def test_a_setup_sends_installs_and_checks_on_every_worker(cloud):
    done = cloud.have(hosts=2).run("setup", *AT, "--data", "data/mine/", "--hf-token", "python")
    assert done.returncode == 0, done.stderr
    for host in range(2):
        sent = cloud.home(host=host) / "jaxlingua"
        assert (sent / "untracked file.txt").read_text() == "sent"
        assert not (sent / "gone.txt").exists()
        assert not (sent / "ignored.txt").exists()
        assert (sent / "data/mine/lines.txt").read_text() == "sent when asked for"
        token = cloud.home(host=host) / ".cache/huggingface/token"
        assert token.stat().st_mode & 0o077 == 0
    installs = [["venv", "--quiet", "--python", "3.12", ".venv"], ["pip", "install", "--quiet"]]
    assert sorted(call[1:4] for call in cloud.calls("uv")) == sorted([call[:3] for call in installs] * 2)
    assert [call[2] for call in cloud.calls("python")] == ["jaxlingua.doctor"] * 2
    assert not any(cloud.folder.glob("jaxlingua-*")), "the archive is gone"


def test_a_second_setup_keeps_what_was_made_there_and_removes_what_is_no_longer_sent(cloud):
    cloud.have().run("setup", *AT)
    there = cloud.home() / "jaxlingua"
    (there / "runs").mkdir()
    (cloud.clone / "untracked file.txt").unlink()
    assert cloud.run("setup", *AT).returncode == 0
    assert (there / "runs").is_dir()
    assert not (there / "untracked file.txt").exists()
    assert sum(call[1] == "venv" for call in cloud.calls("uv")) == 1


def test_a_machine_that_the_doctor_refuses_is_told(cloud):
    assert cloud.have(hosts=2).run("setup", *AT, EXIT_doctor="1").returncode == 1


# ── launch, logs, stop, fetch ────────────────────────────────────────────────


def test_a_launch_trains_on_all_workers_and_the_logs_end_as_it_does(cloud):
    cloud.have(hosts=2).run("setup", *AT)
    done = cloud.run("launch", *AT, *CONFIG, "data.folder=a 'b' $c", BUCKET, EXIT_train="2")
    assert done.returncode == 0, done.stderr
    first = cloud.run("logs", *AT)
    assert first.returncode == 2, first.stderr
    assert first.stdout.splitlines()[-1] == "python says jaxlingua.train"
    both = cloud.run("logs", *AT, "--worker", "all")
    assert both.returncode == 2
    assert len(re.findall(r"^\S+: python says jaxlingua\.train$", both.stdout, re.M)) == 2
    calls = sorted(cloud.trained(), key=lambda call: call[-1]["JAX_PROCESS_ID"])
    words = [
        "python",
        "-m",
        "jaxlingua.train",
        "configs/a.yaml",
        "data.folder=a 'b' $c",
        BUCKET,
        "run.platform=tpu",
    ]
    assert [call[:-1] for call in calls] == [words, words]
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=cloud.clone, capture_output=True, text=True, check=True
    )
    assert {call[-1]["JAXLINGUA_COMMIT"] for call in calls} == {f"{head.stdout.strip()}-dirty"}


def test_a_platform_that_is_given_is_left_alone(cloud):
    cloud.have().run("setup", *AT)
    for overrides in (["run.platform=cpu"], ["tracking.name=on run.platform=cpu"]):
        cloud.run("launch", *AT, *CONFIG, *overrides)
        cloud.run("logs", *AT)
    assert [call[4:-1] for call in cloud.trained()] == [
        ["run.platform=cpu"],
        ["tracking.name=on run.platform=cpu", "run.platform=tpu"],
    ]


def test_a_configuration_that_is_another_there_is_told_before_anything_starts(cloud):
    cloud.have().run("setup", *AT)
    (cloud.clone / "configs" / "a.yaml").write_text("run: {seed: 1}\n")
    for config in ("configs/a.yaml", "ignored.txt"):
        done = cloud.run("launch", *AT, "--config", config)
        assert done.returncode == 2
        assert done.stderr.endswith(
            f": {config}: not as it is in your clone; run tpu/setup.sh again; what git ignores is sent with --data\n"
        )
    assert cloud.trained() == []


def test_a_training_outlives_the_connection_and_refuses_another_until_it_is_stopped(cloud):
    cloud.have(hosts=2).run("setup", *AT)
    never = str(cloud.folder / "never")
    launch = subprocess.Popen(
        ["bash", str(cloud.clone / "tpu/launch.sh"), *AT, *CONFIG, BUCKET],
        env=cloud.environment(UNTIL_train=never),
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert launch.wait() == 0
    wait_for(lambda: len(cloud.trained()) == 2)
    os.killpg(launch.pid, signal.SIGHUP)  # as of a connection that breaks
    for script, arguments in (("launch", (*CONFIG, BUCKET)), ("setup", ())):
        refused = cloud.run(script, *AT, *arguments, UNTIL_train=never)
        assert refused.returncode == 2
        assert refused.stderr.count("a training goes on here (launched/") == 2, refused.stderr
    assert len(cloud.trained()) == 2
    stopped = cloud.run("stop", *AT)
    assert stopped.returncode == 0, stopped.stderr
    assert stopped.stdout.count("stopped, exit code 143") == 2
    assert cloud.run("logs", *AT).returncode == 143
    assert cloud.run("stop", *AT).stdout.count("no training goes on") == 2
    assert cloud.run("launch", *AT, *CONFIG, BUCKET).returncode == 0, "and then another may start"


def test_no_worker_starts_where_another_is_busy(cloud):
    cloud.have(hosts=2).run("setup", *AT)
    never = str(cloud.folder / "never")
    start = [str(cloud.home() / "jaxlingua/tpu/worker.sh"), "start"]
    assert cloud.shell([*start, "1", "configs/a.yaml"], UNTIL_train=never).returncode == 0
    assert cloud.shell([*start, "2", "configs/a.yaml"]).returncode == 2
    assert cloud.run("launch", *AT, *CONFIG, BUCKET).returncode == 2
    wait_for(lambda: cloud.trained())
    assert cloud.run("stop", *AT).returncode == 0
    assert len(cloud.trained()) == 1


def test_a_training_whose_machine_was_started_anew_is_told(cloud):
    cloud.have().run("setup", *AT)
    launched = cloud.home() / "jaxlingua" / "launched"
    assert "no training was started here" in cloud.run("logs", *AT).stderr
    launched.mkdir()
    (launched / "current").write_text("launched/1\n")
    (launched / "1.pid").write_text(f"{os.getpid()}\n")  # now another process's
    (launched / "1.log").write_text("step 7\n")
    done = cloud.run("logs", *AT)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (1, "step 7")
    assert "ended without an exit code" in done.stderr


@pytest.mark.parametrize("script", ["launch", "logs", "stop"])
def test_a_vm_that_is_not_set_up_is_told(cloud, script):
    done = cloud.have().run(script, *AT, *(CONFIG if script == "launch" else ()))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "error: --name: 'my-tpu' is not set up; run tpu/setup.sh first"


def test_slices_are_reached_through_their_queued_resource(cloud):
    cloud.have(slices=2).run("setup", *AT, "--slices", "2")
    assert cloud.run("launch", *AT, "--slices", "2", *CONFIG, BUCKET).returncode == 0
    assert cloud.run("logs", *AT, "--slices", "2", "--worker", "all").returncode == 0
    assert len(cloud.trained()) == 2
    assert {call[3] for call in cloud.calls("gcloud") if call[4] == "ssh"} == {"queued-resources"}


def test_a_spot_vm_is_told_of(cloud):
    cloud.have().run("setup", *AT)
    done = cloud.run("launch", *AT, *CONFIG, SPOT="True")
    assert "A spot VM that is taken away does not come back" in done.stdout
    assert "only a run in a bucket goes on then" in done.stdout


@pytest.mark.parametrize("is_whole", [False, True])
def test_a_run_is_fetched_from_the_first_worker(cloud, is_whole):
    run = cloud.have().home() / "jaxlingua" / "runs" / "mine"
    (run / "checkpoints" / "4").mkdir(parents=True)
    (run / "report.md").write_text("good")
    done = cloud.run(
        "fetch", *AT, "--run", "runs/mine", "--to", "here", *(("--checkpoints",) if is_whole else ())
    )
    assert done.returncode == 0, done.stderr
    assert (cloud.folder / "here/mine/report.md").read_text() == "good"
    assert (cloud.folder / "here/mine/checkpoints").exists() == is_whole


# ── the scripts themselves ───────────────────────────────────────────────────


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_tells_every_option(script):
    path = ROOT / "tpu" / f"{script}.sh"
    done = subprocess.run(["bash", str(path), "--help"], capture_output=True, text=True, check=True)
    read = re.search(r'read_options "([a-z -]*)" "([a-z -]*)"', path.read_text())
    for option in (read[1] + " " + read[2]).split():
        assert re.search(rf"^(usage:.*| +)--{option}\b", done.stdout, re.M), option
    assert os.access(path, os.X_OK)


def test_the_scripts_are_clean_and_run_on_the_old_bash_of_macos():
    """bash 3.2 has no ${word@Q}, no associative arrays, no mapfile, no ${word,,}, and takes ${empty[@]} for unset.

    It is not run here: what is looked for is what it is known to lack.
    """
    scripts = sorted((ROOT / "tpu").glob("*.sh"))
    assert {path.stem for path in scripts} == {*SCRIPTS, "common", "worker"}
    done = subprocess.run(
        ["shellcheck", "-x", *map(str, scripts)], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.stdout + done.stderr == ""
    for path in scripts:
        code = "\n".join(line for line in path.read_text().splitlines() if not line.lstrip().startswith("#"))
        for newer in ("@Q}", "declare -A", "mapfile", "readarray", ",,}", "^^}", "local -n", "wait -n", "|&"):
            assert newer not in code, (path.name, newer)
        for array in ("rest", "less"):
            bare = re.sub(rf'\$\{{{array}\[@\]\+"\$\{{{array}\[@\]\}}"\}}', "", code)
            assert f"${{{array}[@]}}" not in bare or path.stem in ("launch", "gke"), (path.name, array)
