"""Google Cloud in a folder: a gcloud, a kubectl and a uv that record their calls, and workers that are folders."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]

# What the scripts are given in tests.
AT = ("--name", "my-tpu", "--zone", "us-west4-a")
CONFIG = ("--config", "configs/a.yaml")
BUCKET = "run.folder=gs://my-bucket/runs/mine"
GKE = ("--name", "my-run", "--image", "a/b:c", "--bucket", "my-bucket", *CONFIG)

# The flags that each command may have, of those that `gcloud COMMAND --help` names (Google Cloud SDK 528).
_KIND = "accelerator-type type topology spot"
_SSH = "zone worker"
FLAGS = {
    "compute tpus tpu-vm create": f"zone {_KIND} version",
    "compute tpus tpu-vm describe": "zone",
    "compute tpus tpu-vm delete": "zone",
    "compute tpus tpu-vm list": "zone",
    "compute tpus tpu-vm ssh": f"{_SSH} command",
    "compute tpus tpu-vm scp": f"{_SSH} recurse",
    "compute tpus queued-resources create": f"zone {_KIND} runtime-version node-id node-count node-prefix",
    "compute tpus queued-resources describe": "zone",
    "compute tpus queued-resources delete": "zone force",
    "compute tpus queued-resources list": "zone",
    "compute tpus queued-resources ssh": f"{_SSH} node batch-size command",
    "compute tpus queued-resources scp": f"{_SSH} node batch-size recurse",
    "compute tpus accelerator-types list": "zone",
    "services enable": "",
    "storage buckets create": "location",
    "storage buckets add-iam-policy-binding": "role member",
    "storage rsync": "recursive exclude",
    "storage cp": "recursive",
    "artifacts repositories create": "repository-format location",
    "auth configure-docker": "",
    "container clusters create": "location num-nodes workload-pool addons",
    "container clusters delete": "location",
    "container node-pools create": "location node-locations cluster machine-type num-nodes",
    "container node-pools delete": "location cluster",
}
EVERYWHERE = "project format quiet"

# Records every call as a line of JSON, and does what the scripts look at; a command or a flag that is not in the
# table is refused. A VM is a file with its number of hosts, a queued resource one with its number of slices; both lie
# in folders of their kind. describe prints the fields that it is asked for of what the API would answer. ssh runs a
# command in the home of each worker, all at once, as gcloud does, and once more where the connection is to break
# (BREAKS: part of the command); each worker finds the others through JAX's variables. A slice that cannot be reached
# (UNREACHED) is left out with a warning, as by queued-resources, whose scp may also send nothing and end with 0
# (SENDS_NOTHING; where ssh-agent has no key).
GCLOUD = f"""#!{sys.executable}
import json, os, re, shutil, subprocess, sys
from pathlib import Path
cloud, words = Path(os.environ["CLOUD"]), sys.argv[1:]
with open(cloud / "calls", "a") as calls:
    calls.write(json.dumps(["gcloud", *words]) + "\\n")
flags = {FLAGS!r}
command = next((" ".join(words[:n]) for n in (4, 3, 2) if " ".join(words[:n]) in flags), None)
allowed = (flags.get(command, "") + " {EVERYWHERE}").split()
wrong = [word for word in words if word.startswith("--") and word[2:].split("=")[0] not in allowed]
if command is None or wrong:
    sys.exit(f"ERROR: (gcloud) unrecognized arguments: {{wrong or words}}")
def printed(answer):
    fields = re.fullmatch(r"(csv\\[no-heading\\]|value)\\((.+)\\)", option("--format"))
    found = []
    for field in fields[2].split(","):
        path, value = re.fullmatch(r"([A-Za-z.]+?)(?:\\.(len|basename)\\(\\))?", field), answer
        for key in path[1].split("."):
            value = (value or {{}}).get(key)
        if path[2] == "len":
            value = len(value or [])
        elif path[2] == "basename" and value:
            value = value.split("/")[-1]
        found.append("" if value is None else str(value))
    print((",", "\\t")[fields[1] == "value"].join(found))
def option(name, default=None):
    return words[words.index(name) + 1] if name in words else default
kind, verb = (*words, None)[2:4]
vms, queue = cloud / "tpu-vm", cloud / "queued-resources"
if words[0] == "compute" and verb == "create":
    name, count = words[4], int(option("--node-count", "1"))
    if kind == "queued-resources":
        (queue / name).write_text(str(count))
    elif (vms / name).exists():
        sys.exit("ERROR: (gcloud) ALREADY_EXISTS: " + name)
    for i in range(count):
        (vms / (f"{{name}}-{{i}}" if count > 1 else name)).write_text(os.environ.get("HOSTS", "1"))
elif verb == "describe":
    file = cloud / kind / words[4]
    if not file.exists():
        sys.exit(1)
    states = os.environ.get("STATES", "").split(",")
    asked_before = sum(json.loads(line)[1:] == words for line in open(cloud / "calls")) - 1
    state = states[min(asked_before, len(states) - 1)] or ("READY" if kind == "tpu-vm" else "ACTIVE")
    count = int(file.read_text())
    if kind == "queued-resources":
        nodes = [{{"nodeId": f"{{words[4]}}-{{i}}"}} for i in range(count)]
        printed({{"state": {{"state": state}}, "tpu": {{"nodeSpec": nodes}}}})
    else:
        answer = {{"state": state, "networkEndpoints": [{{}}] * count, "schedulingConfig": {{}}}}
        if "SPOT" in os.environ:
            answer["schedulingConfig"]["spot"] = True
        if (queue / words[4]).exists():
            answer["queuedResource"] = f"projects/p/locations/z/queuedResources/{{words[4]}}"
        printed(answer)
elif verb == "delete":
    for file in (cloud / kind / words[4], *vms.glob(words[4] + "*" if kind == "queued-resources" else "no")):
        file.unlink()
elif verb in ("ssh", "scp"):
    remote = words[4] if verb == "ssh" else words[6].split(":")[0]
    wanted = option("--worker")
    several = kind == "queued-resources" and int((queue / remote).read_text())
    slices = [f"{{remote}}-{{i}}" for i in range(several)] if several else [remote]
    workers = []
    for number, vm in enumerate(slices if option("--node", "all") == "all" else slices[:1]):
        if several and vm == os.environ.get("UNREACHED"):
            print("WARNING: Could not prepare all nodes, attempting to ssh into the rest.", file=sys.stderr)
            continue
        hosts = int((vms / vm).read_text())
        for host in range(hosts) if wanted == "all" else [int(wanted)]:
            home = cloud / f"worker-{{vm}}-{{host}}"
            home.mkdir(exist_ok=True)
            found = {{"JAX_PROCESS_ID": str(len(workers)), "HOME": str(home)}}
            workers.append((home, os.environ | found))
    for _, env in workers:
        env["JAX_NUM_PROCESSES"] = str(len(workers))
    if verb == "scp":
        for home, _ in workers if "SENDS_NOTHING" not in os.environ else ():
            source, target = Path(words[5]), home / words[6].split(":", 1)[1]
            if target.is_dir():
                target = target / source.name
            if source.is_dir():
                shutil.copytree(source, target, dirs_exist_ok=True)
            else:
                shutil.copyfile(source, target)
    else:
        command = ["bash", "-c", option("--command")]
        for _ in range(1 + (os.environ.get("BREAKS", "\\0") in command[2])):
            running = [subprocess.Popen(command, cwd=home, env=env, stdin=subprocess.DEVNULL) for home, env in workers]
            codes = [process.wait() for process in running]
        sys.exit(next((code for code in codes if code), 0))
elif verb == "list":
    print("Listed 0 items.")
"""

KUBECTL = f"""#!{sys.executable}
import json, os, sys
with open(os.path.join(os.environ["CLOUD"], "calls"), "a") as calls:
    calls.write(json.dumps(["kubectl", *sys.argv[1:], sys.stdin.read()]) + "\\n")
sys.exit(int(os.environ.get("EXIT_kubectl", "0")))
"""

# Each worker has a name of its own.
HOSTNAME = """#!/bin/sh
basename "$HOME"
"""

# Makes the virtual environment, with the python that the cloud was made with.
UV = f"""#!{sys.executable}
import json, os, shutil, sys
with open(os.path.join(os.environ["CLOUD"], "calls"), "a") as calls:
    calls.write(json.dumps(["uv", *sys.argv[1:]]) + "\\n")
if sys.argv[1] == "venv":
    os.makedirs(".venv/bin")
    shutil.copy(os.path.join(os.environ["CLOUD"], "python"), ".venv/bin/python")
"""

# Records what it should have run. The training goes on until a file is there, or until SIGTERM comes and it has
# saved, which is when the file SAVED is there, if one is named; a second SIGTERM ends it at once, as one does a run.
PYTHON = f"""#!{sys.executable}
import json, os, signal, sys, time
module, told = sys.argv[2], {{name: os.environ.get(name) for name in ("JAX_PROCESS_ID", "JAXLINGUA_COMMIT")}}
def stop(*_):
    signal.signal(signal.SIGTERM, lambda *_: os._exit(99))
    print("saves", flush=True)
    while "SAVED" in os.environ and not os.path.exists(os.environ["SAVED"]):
        time.sleep(0.02)
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
with open(os.path.join(os.environ["CLOUD"], "calls"), "a") as calls:
    calls.write(json.dumps(["python", *sys.argv[1:], told]) + "\\n")
print("python says", module, flush=True)
until, end = os.environ.get("UNTIL_" + module.split(".")[1]), time.monotonic() + 60
while until and not os.path.exists(until) and time.monotonic() < end:
    time.sleep(0.02)
sys.exit(int(os.environ.get("EXIT_" + module.split(".")[1], "0")))
"""

REAL_PYTHON = f"""#!/bin/sh
exec {sys.executable} "$@"
"""


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


class Cloud:
    """A clone to launch from, a cloud to launch on, and what was called there."""

    def __init__(self, folder: Path, python: str = PYTHON):
        self.folder, self.clone = folder, folder / "clone with space"
        for made in ("tpu-vm", "queued-resources", "bin"):
            (folder / made).mkdir(parents=True)
        programs = {"gcloud": GCLOUD, "kubectl": KUBECTL, "uv": UV, "hostname": HOSTNAME}
        for path, content in (
            *((folder / "bin" / name, text) for name, text in programs.items()),
            (folder / "python", python),
        ):
            path.write_text(content)
            path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def small_clone(self) -> "Cloud":
        """With the scripts and a configuration, a deleted, an ignored and an untracked file."""
        shutil.copytree(ROOT / "tpu", self.clone / "tpu")
        (self.clone / "configs").mkdir()
        (self.clone / "data" / "mine").mkdir(parents=True)
        files = {
            "configs/a.yaml": "run: {}\n",
            "gone.txt": "deleted before it is sent",
            ".gitignore": "ignored.txt\ndata/\n",
            "ignored.txt": "not sent",
            "data/mine/lines.txt": "sent when asked for",
        }
        for name, content in files.items():
            (self.clone / name).write_text(content)
        self.commit()
        (self.clone / "gone.txt").unlink()
        (self.clone / "untracked file.txt").write_text("sent")
        return self

    def commit(self) -> None:
        """All that is there, as a commit that the same files give again."""
        author = ("-c", "user.name=a", "-c", "user.email=a@b")
        then = os.environ | {
            "GIT_AUTHOR_DATE": "2026-01-01T00:00Z",
            "GIT_COMMITTER_DATE": "2026-01-01T00:00Z",
        }
        for command in (["init", "-q"], ["add", "."], [*author, "commit", "-q", "-m", "one"]):
            subprocess.run(["git", *command], cwd=self.clone, env=then, check=True)

    def have(self, hosts: int = 1, slices: int = 1, name: str = "my-tpu") -> "Cloud":
        """TPU VMs that are there already."""
        if slices > 1:
            (self.folder / "queued-resources" / name).write_text(str(slices))
        for vm in [f"{name}-{i}" for i in range(slices)] if slices > 1 else [name]:
            (self.folder / "tpu-vm" / vm).write_text(str(hosts))
        return self

    def home(self, vm: str = "my-tpu", host: int = 0) -> Path:
        return self.folder / f"worker-{vm}-{host}"

    def environment(self, **variables: str) -> dict[str, str]:
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        kept = {"PATH": path, "HOME": str(self.folder), "TMPDIR": str(self.folder), "CLOUD": str(self.folder)}
        return kept | {"JAXLINGUA_POLL_SECONDS": "0"} | variables

    def run(
        self, script: str, *arguments: str, typed: str = "", **variables: str
    ) -> subprocess.CompletedProcess:
        """tpu/<script>.sh; the environment is but what the cloud needs."""
        return self.shell([str(self.clone / "tpu" / f"{script}.sh"), *arguments], typed, **variables)

    def shell(self, words: list[str], typed: str = "", **variables: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            ["bash", *words],
            env=self.environment(**variables),
            cwd=self.folder,
            input=typed,
            text=True,
            capture_output=True,
            timeout=300,
            check=False,
        )

    def trained(self) -> list[list]:
        """What jaxlingua.train was started with, of each worker."""
        return [call for call in self.calls("python") if call[2] == "jaxlingua.train"]

    def calls(self, program: str | None = None) -> list[list]:
        """What was called since the beginning, without this folder and what each call names anew."""
        file = self.folder / "calls"
        text = file.read_text() if file.exists() else ""
        text = re.sub(
            r"jaxlingua-\w{6}\.tar", "jaxlingua-XXXXXX.tar", text.replace(str(self.folder), "FOLDER")
        )
        text = re.sub(r"start \d{8}-\d{6}-\d+ ", "start LAUNCH ", text)
        found = [json.loads(line) for line in text.splitlines()]
        return [call for call in found if program in (None, call[0])]
