"""tpu/launch.sh against a gcloud of our own, which records its calls and plays the VM in a folder."""

import json
import os
import shlex
import shutil
import stat
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

LAUNCH = Path(__file__).parents[1] / "tpu" / "launch.sh"

# Records every call as a line of JSON; describe answers, scp copies into the folder VM, ssh runs there.
GCLOUD = f"""#!{sys.executable}
import json, os, shutil, subprocess, sys
arguments, vm = sys.argv[1:], os.environ["VM"]
with open(os.environ["CALLS"], "a") as calls:
    calls.write(json.dumps(arguments) + "\\n")
verb = arguments[3]
if verb == "describe":
    print(os.environ.get("STATE", "READY\\t1"))
    sys.exit(1 if "STATE" in os.environ and not os.environ["STATE"] else 0)
if verb == "scp":
    shutil.copy(arguments[4], os.path.join(vm, arguments[5].split(":", 1)[1]))
if verb == "ssh":
    command = arguments[arguments.index("--command") + 1]
    sys.exit(subprocess.run(["bash", "-c", command], cwd=vm, env=os.environ | {{"HOME": vm}}).returncode)
"""

# Makes the virtual environment with a python that records its arguments; exit codes as the test wants.
UV = f"""#!{sys.executable}
import os, sys
with open(os.environ["UV_CALLS"], "a") as calls:
    calls.write(" ".join(sys.argv[1:]) + "\\n")
if sys.argv[1] == "venv":
    os.makedirs(".venv/bin")
    with open(".venv/bin/python", "w") as python:
        python.write('''#!{sys.executable}
import json, os, sys
with open(os.environ["PYTHON_CALLS"], "a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + chr(10))
print("python says", sys.argv[2])
sys.exit(int(os.environ.get("EXIT_" + sys.argv[2].split(".")[1], "0")))
''')
    os.chmod(".venv/bin/python", 0o755)
"""


class Cloud:
    """A clone to launch from, a VM to launch on, and what was called."""

    def __init__(self, folder: Path):
        self.folder, self.clone, self.vm = folder, folder / "clone with space", folder / "vm"
        (self.clone / "tpu").mkdir(parents=True)
        (self.clone / "configs").mkdir()
        self.vm.mkdir()
        shutil.copy(LAUNCH, self.clone / "tpu")
        (self.clone / "configs" / "a.yaml").write_text("run: {}\n")
        (self.clone / "gone.txt").write_text("deleted before the launch")
        (self.clone / ".gitignore").write_text("ignored.txt\n")
        (self.clone / "ignored.txt").write_text("not sent")
        for command in (["init", "-q"], ["add", "."]):
            subprocess.run(["git", *command], cwd=self.clone, check=True)
        (self.clone / "gone.txt").unlink()
        (self.clone / "untracked file.txt").write_text("sent")
        (folder / "bin").mkdir()
        for name, content in (("gcloud", GCLOUD), ("uv", UV)):
            path = folder / "bin" / name
            path.write_text(content)
            path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def launch(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
        paths = {"CALLS": "calls", "UV_CALLS": "uv_calls", "PYTHON_CALLS": "python_calls", "VM": "vm"}
        environment = {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            **{name: str(self.folder / file) for name, file in paths.items()},
            **variables,
        }
        return subprocess.run(
            ["bash", str(self.clone / "tpu" / "launch.sh"), *arguments],
            env=environment,
            text=True,
            capture_output=True,
            timeout=60,
            check=False,
        )

    def recorded(self, file: str) -> list:
        path = self.folder / file
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def cloud(tmp_path):
    return Cloud(tmp_path)


NEEDED = ("--name", "mine", "--zone", "us-west4-a", "--config", "configs/a.yaml")


def test_a_launch_sends_installs_checks_and_trains(cloud):
    done = cloud.launch(
        *NEEDED, "--project", "my-project", "train.optimizer.peak_lr=1e-5", "data.folder=a 'b' $c"
    )
    assert done.returncode == 0, done.stderr
    calls = cloud.recorded("calls")
    assert [call[:4] for call in calls] == [
        ["compute", "tpus", "tpu-vm", verb] for verb in ("describe", "scp", "ssh", "ssh", "ssh")
    ]
    for call in calls:
        assert call[call.index("--zone") + 1] == "us-west4-a"
        assert call[call.index("--project") + 1] == "my-project"
        assert "mine" in (call[4], call[5].split(":")[0])
    assert cloud.recorded("python_calls") == [
        ["-m", "jaxlingua.doctor"],
        [
            "-m",
            "jaxlingua.train",
            "configs/a.yaml",
            "train.optimizer.peak_lr=1e-5",
            "data.folder=a 'b' $c",
            "run.platform=tpu",
        ],
    ]
    assert (cloud.folder / "uv_calls").read_text().splitlines() == [
        "venv --quiet --python 3.12 .venv",
        "pip install --quiet --python .venv/bin/python -e .[tpu]",
    ]
    assert "python says jaxlingua.train" in done.stdout, "what the training says is seen here"
    assert "scp --recurse mine:jaxlingua/runs . --zone us-west4-a --project my-project" in done.stdout


def test_the_clone_is_sent_as_it_lies_there(cloud):
    assert cloud.launch(*NEEDED).returncode == 0
    with tarfile.open(cloud.vm / "jaxlingua.tar.gz") as archive:
        assert set(archive.getnames()) == {
            "tpu/launch.sh",
            "configs/a.yaml",
            ".gitignore",
            "untracked file.txt",
        }
    assert not list(cloud.folder.glob("jaxlingua-*.tar.gz"))


def test_a_second_launch_keeps_the_environment(cloud):
    cloud.launch(*NEEDED)
    assert cloud.launch(*NEEDED).returncode == 0
    assert (cloud.folder / "uv_calls").read_text().count("venv --quiet") == 1
    assert [call[1] for call in cloud.recorded("python_calls")] == ["jaxlingua.doctor", "jaxlingua.train"] * 2


def test_a_platform_that_is_given_is_left_alone(cloud):
    cloud.launch(*NEEDED, "run.platform=cpu")
    assert cloud.recorded("python_calls")[-1] == [
        "-m",
        "jaxlingua.train",
        "configs/a.yaml",
        "run.platform=cpu",
    ]


def test_a_machine_that_the_doctor_refuses_is_not_trained_on(cloud):
    done = cloud.launch(*NEEDED, EXIT_doctor="1")
    assert done.returncode == 1
    assert [call[1] for call in cloud.recorded("python_calls")] == ["jaxlingua.doctor"]


def test_the_exit_code_of_the_training_is_that_of_the_launch(cloud):
    assert cloud.launch(*NEEDED, EXIT_train="2").returncode == 2


def test_a_dry_run_prints_what_a_run_would_do_and_does_nothing(cloud):
    """The printed words, read by a shell, are the very calls of the real run."""
    overrides = ("data.folder=a 'b' $c", "run.seed=1")
    dry = cloud.launch(*NEEDED, "--dry-run", *overrides)
    assert dry.returncode == 0, dry.stderr
    assert cloud.recorded("calls") == []
    printed, word_of = [], shlex.split(dry.stdout.split("The runs lie on the VM")[0])
    for word in word_of:
        if word in ("gcloud", "bash"):
            printed.append([])
        else:
            printed[-1].append(word)
    cloud.launch(*NEEDED, *overrides)
    ran = [call for call in cloud.recorded("calls") if call[3] != "describe"]
    assert [call[3:4] for call in printed[1:]] == [["scp"], ["ssh"], ["ssh"], ["ssh"]]
    assert printed[2:] == ran[1:]
    assert printed[1][5:] == ran[0][5:]  # but for the name of the archive


def test_a_dry_run_needs_no_gcloud(cloud):
    (cloud.folder / "bin" / "gcloud").unlink()
    tools = cloud.folder / "tools"
    tools.mkdir()
    for tool in ("bash", "dirname", "mktemp", "rm"):
        (tools / tool).symlink_to(shutil.which(tool))
    done = cloud.launch(*NEEDED, "--dry-run", PATH=str(tools))
    assert done.returncode == 0, done.stderr
    real = cloud.launch(*NEEDED, PATH=str(tools))
    assert (real.returncode, real.stderr) == (
        2,
        "error: gcloud: not found; install it: https://cloud.google.com/sdk\n",
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--name: not given; tpu/launch.sh --help shows all options"),
        (("--name", "mine"), "--zone: not given; tpu/launch.sh --help shows all options"),
        (("--name",), "--name: no value given; write --name VALUE"),
        (("--name", "--zone", "z"), "--name: no value given; write --name VALUE"),
        (
            (*NEEDED, "--zome", "z"),
            "--zome: unknown option; known are --name, --zone, --project, --config, --dry-run",
        ),
        (
            (*NEEDED, "other.yaml"),
            "'other.yaml': neither an option nor key=value; give the configuration with --config",
        ),
        (
            (*NEEDED[:-1], "configs/b.yaml"),
            "--config: no file 'configs/b.yaml' in CLONE; only what is in the clone is sent",
        ),
        ((*NEEDED[:-1], "/a.yaml"), "--config: '/a.yaml' is absolute; give a path within the clone, CLONE"),
    ],
)
def test_a_wrong_command_line_is_told_in_one_line_before_anything_is_spent(cloud, arguments, message):
    done = cloud.launch(*arguments)
    assert done.returncode == 2
    assert done.stderr == f"error: {message.replace('CLONE', str(cloud.clone))}\n"
    assert cloud.recorded("calls") == []


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("", "--name: gcloud knows no TPU VM 'mine' in us-west4-a; make one as tpu/README.md says"),
        ("STOPPED\t1", "--name: 'mine' is STOPPED; wait until it is READY, or start it"),
        ("READY\t4", "--name: 'mine' has 4 hosts; this script is for TPU VMs of one host"),
    ],
)
def test_a_vm_that_cannot_train_is_told_before_anything_is_sent(cloud, state, message):
    done = cloud.launch(*NEEDED, STATE=state)
    assert (done.returncode, done.stderr) == (2, f"error: {message}\n")
    assert [call[3] for call in cloud.recorded("calls")] == ["describe"]


def test_help_tells_every_option():
    done = subprocess.run(["bash", str(LAUNCH), "--help"], capture_output=True, text=True, check=True)
    for option in ("--name", "--zone", "--config", "--project", "--dry-run", "key=value"):
        assert option in done.stdout


def test_the_script_may_be_started_and_runs_on_the_old_bash_of_macos():
    """bash 3.2 has no ${word@Q}, no associative arrays, no mapfile and no ${word,,}."""
    assert os.access(LAUNCH, os.X_OK)
    code = "\n".join(
        line.split(" #")[0] for line in LAUNCH.read_text().splitlines() if not line.startswith("#")
    )
    for newer in ("@Q}", "declare -A", "mapfile", "readarray", ",,}", "^^}", "local -n"):
        assert newer not in code, newer
