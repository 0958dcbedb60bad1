"""The JobSet of tpu/gke.sh against its schemas and our own reading of GKE's variables; the Dockerfile's parts."""

import importlib.util
import re
import shlex
import subprocess
import tomllib

import jsonschema
import kubernetes_validate
import pytest
import yaml

from jaxlingua.config import ProcessesConfig
from jaxlingua.processes.environment import PORT, find_processes
from tests.cloud import ROOT

KUBERNETES = "1.32"  # nothing newer is used
DOCKERFILE = (ROOT / "tpu" / "Dockerfile").read_text()


def _object(required: tuple[str, ...] = (), **properties: object) -> dict:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


# The fields of jobset.x-k8s.io/v1alpha2 (JobSet 0.6 and newer) that a TPU training has a use for, written from its
# custom resource; no package ships that. Fields that are not named here are refused. Jobs have a schema of their own.
RULE = _object(
    ("name", "action"),
    name={"type": "string", "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"},
    action={"enum": ["FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"]},
    onJobFailureReasons={
        "type": "array",
        "items": {
            "enum": [
                *("BackoffLimitExceeded", "DeadlineExceeded", "FailedIndexes"),
                *("MaxFailedIndexesExceeded", "PodFailurePolicy"),
            ]
        },
        "uniqueItems": True,
    },
    targetReplicatedJobs={"type": "array", "items": {"type": "string"}},
)
JOBSET = _object(
    ("apiVersion", "kind", "metadata", "spec"),
    apiVersion={"const": "jobset.x-k8s.io/v1alpha2"},
    kind={"const": "JobSet"},
    metadata=_object(
        ("name",),
        name={"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"},
        annotations={"type": "object", "additionalProperties": {"type": "string"}},
        labels={"type": "object", "additionalProperties": {"type": "string"}},
    ),
    spec=_object(
        ("replicatedJobs",),
        failurePolicy=_object(
            maxRestarts={"type": "integer", "minimum": 0},
            rules={"type": "array", "items": RULE, "maxItems": 20},
        ),
        network={"type": "object"},
        ttlSecondsAfterFinished={"type": "integer", "minimum": 0},
        replicatedJobs={
            "type": "array",
            "items": _object(
                ("name", "template"),
                name={"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"},
                replicas={"type": "integer", "minimum": 0},
                template=_object(("spec",), metadata={"type": "object"}, spec={"type": "object"}),
            ),
        },
    ),
)


def rendered(*arguments: str) -> tuple[dict, dict]:
    """The JobSet of a dry run, and the Job that each of its slices becomes; both hold to their schemas."""
    words = [
        *("--name", "my-run", "--image", "registry/jaxlingua:1", "--bucket", "my-bucket"),
        *("--config", "configs/demo.yaml", *arguments, "--dry-run"),
    ]
    done = subprocess.run(
        ["bash", str(ROOT / "tpu" / "gke.sh"), *words], capture_output=True, text=True, check=True
    )
    jobset = yaml.safe_load(re.search(r"<<'END'\n(.*)\nEND\n", done.stdout, re.S)[1])
    jsonschema.validate(jobset, JOBSET)
    template = jobset["spec"]["replicatedJobs"][0]["template"]
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "my-run-slice-0"}, **template}
    kubernetes_validate.validate(job, KUBERNETES, strict=True)
    return jobset, job


@pytest.mark.parametrize(
    ("arguments", "slices", "hosts", "chips", "accelerator"),
    [
        (("--topology", "v5e:1x1"), 1, 1, 1, "tpu-v5-lite-podslice"),
        (("--topology", "v5e:2x4"), 1, 1, 8, "tpu-v5-lite-podslice"),
        (("--topology", "v5e:2x4", "--slices", "2"), 2, 2, 4, "tpu-v5-lite-podslice"),
        (("--topology", "v6e:4x4"), 1, 4, 4, "tpu-v6e-slice"),
        (("--topology", "v5p:2x2x2", "--slices", "3"), 3, 2, 4, "tpu-v5p-slice"),
        (("--topology", "v4:2x2x1", "--spot"), 1, 1, 4, "tpu-v4-podslice"),
    ],
)
def test_a_jobset_holds_to_its_schemas_and_has_one_pod_for_each_host(
    arguments, slices, hosts, chips, accelerator
):
    jobset, job = rendered(*arguments)
    pod = job["spec"]["template"]["spec"]
    assert jobset["spec"]["replicatedJobs"][0]["replicas"] == slices
    assert (job["spec"]["parallelism"], job["spec"]["completions"]) == (hosts, hosts)
    assert pod["containers"][0]["resources"]["limits"] == {"google.com/tpu": chips}
    selector = pod["nodeSelector"]
    assert selector["cloud.google.com/gke-tpu-accelerator"] == accelerator
    assert selector["cloud.google.com/gke-tpu-topology"] == arguments[1].split(":")[1]
    assert ("cloud.google.com/gke-spot" in selector) == ("--spot" in arguments)


def test_the_schemas_refuse_what_kubernetes_would():
    jobset, job = rendered("--topology", "v5e:2x4")
    jobset["spec"]["failurePolicy"]["restarts"] = 3
    with pytest.raises(jsonschema.ValidationError, match="restarts"):
        jsonschema.validate(jobset, JOBSET)
    job["spec"]["template"]["spec"]["container"] = []
    with pytest.raises(kubernetes_validate.ValidationError, match="container"):
        kubernetes_validate.validate(job, KUBERNETES, strict=True)


def test_the_arguments_arrive_as_they_were_given():
    overrides = ('a="x\\y" # & $z', "data.folder=/bucket/it's")
    _, job = rendered("--topology", "v5e:2x4", *overrides)
    assert job["spec"]["template"]["spec"]["containers"][0]["args"] == [
        *("configs/demo.yaml", *overrides),
        *("run.folder=gs://my-bucket/runs/my-run", "run.platform=tpu"),
    ]
    given = ("run.folder=gs://other/run", "run.platform=cpu")
    _, job = rendered("--topology", "v5e:2x4", *given)
    assert job["spec"]["template"]["spec"]["containers"][0]["args"] == ["configs/demo.yaml", *given]


def test_wrong_input_is_not_tried_again_and_all_else_is():
    """Exit code 2 fails the Job for a reason of its own, and that reason the JobSet."""
    jobset, job = rendered("--topology", "v5e:4x4")
    (on_exit,) = job["spec"]["podFailurePolicy"]["rules"]
    assert on_exit["action"] == "FailJob"
    assert on_exit["onExitCodes"] == {"containerName": "train", "operator": "In", "values": [2]}
    pod = job["spec"]["template"]["spec"]
    assert [container["name"] for container in pod["containers"]] == ["train"]
    assert pod["restartPolicy"] == "Never", "else a Job takes no podFailurePolicy"
    assert job["spec"]["backoffLimit"] == 0, "else one pod alone would be started anew"
    (rule,) = jobset["spec"]["failurePolicy"]["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])
    assert jobset["spec"]["failurePolicy"]["maxRestarts"] > 0


def test_the_variables_of_gke_tell_each_pod_its_place():
    """As GKE names the pods of this JobSet: two slices of two hosts; the ports are those that processes listen on."""
    _, job = rendered("--topology", "v5e:2x4", "--slices", "2")
    container = job["spec"]["template"]["spec"]["containers"][0]
    assert {PORT, PORT + 1} <= {port["containerPort"] for port in container["ports"]}
    seen = []
    for index in range(2):
        hosts = ",".join(f"my-run-slice-{index}-{host}.my-run" for host in range(2))
        for host in range(2):
            variables = {
                "TPU_SKIP_MDS_QUERY": "true",
                "TPU_WORKER_ID": str(host),
                "TPU_WORKER_HOSTNAMES": hosts,
                "MEGASCALE_NUM_SLICES": "2",
                "MEGASCALE_SLICE_ID": str(index),
                "MEGASCALE_COORDINATOR_ADDRESS": "my-run-slice-0-0.my-run",
            }
            place = find_processes(ProcessesConfig(), variables)
            assert (place.coordinator, place.count) == (f"my-run-slice-0-0.my-run:{PORT}", 4)
            seen.append(place.index)
    assert seen == [0, 1, 2, 3]
    alone = {"TPU_SKIP_MDS_QUERY": "true", "TPU_WORKER_ID": "0", "TPU_WORKER_HOSTNAMES": "localhost"}
    assert find_processes(ProcessesConfig(), alone) is None, "a slice of one host"


def test_one_pod_is_followed_and_what_goes_on_costing_is_told():
    """Of a Job with several pods `kubectl logs` takes any, and of those that a selector finds the last ten lines."""
    words = ["--name", "my-run", "--image", "a/b:c", "--bucket", "my-bucket", "--topology", "v5e:4x4"]
    done = subprocess.run(
        ["bash", str(ROOT / "tpu" / "gke.sh"), *words, "--config", "configs/demo.yaml", "--dry-run"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (
        "kubectl logs --follow --tail=-1 -l job-name=my-run-slice-0,batch.kubernetes.io/job-completion-index=0\n"
        in done.stdout
    )
    assert "The chips go on costing money: gcloud container node-pools delete" in done.stdout


# ── Dockerfile ───────────────────────────────────────────────────────────────


def lines(instruction: str) -> list[str]:
    return re.findall(rf"^{instruction} (.+)$", DOCKERFILE, re.M)


def test_the_dockerfile_copies_and_installs_what_there_is():
    """It is not built here: what it names exists, and nothing else is sent."""
    ignored = (ROOT / "tpu" / "Dockerfile.dockerignore").read_text().splitlines()
    copied = {source for line in lines("COPY") for source in shlex.split(line)[:-1]}
    assert copied == {line[1:] for line in ignored if line.startswith("!")}
    for source in copied:
        assert (ROOT / source).exists(), source
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    extra = re.search(r"pip install --no-cache-dir '\.\[(\w+)\]'", DOCKERFILE)[1]
    assert extra in project["project"]["optional-dependencies"]
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {*wheel["packages"], *wheel["force-include"], project["project"]["readme"], "pyproject.toml"}
    assert needed <= copied, "what the wheel is built from"


def test_the_dockerfile_runs_the_training_and_not_as_root():
    version = tuple(map(int, re.fullmatch(r"python:(\d+)\.(\d+)-slim", lines("FROM")[0]).groups()))
    assert (3, 11) <= version <= (3, 13)
    assert lines("USER") == ["jaxlingua"]
    assert DOCKERFILE.index("\nUSER") < DOCKERFILE.index("\nENTRYPOINT")
    program, option, module = yaml.safe_load(lines("ENTRYPOINT")[0])
    assert (program, option) == ("python", "-m")
    assert importlib.util.find_spec(f"{module}.__main__")
