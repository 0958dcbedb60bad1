"""What tpu/*.sh refuse, in one line and before anything is spent."""

import pytest

from tests.cloud import AT, BUCKET, CONFIG, GKE, Cloud


@pytest.fixture
def cloud(tmp_path):
    return Cloud(tmp_path / "cloud").small_clone()


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("launch", (), "--name: not given; tpu/launch.sh --help tells of all options"),
        ("launch", ("--name", "mine"), "--zone: not given; tpu/launch.sh --help tells of all options"),
        ("logs", ("--name",), "--name: no value given; write --name VALUE"),
        ("logs", ("--name", "--zone", "z"), "--name: no value given; write --name VALUE"),
        ("logs", ("--name=", "--zone", "z"), "--name: no value given; write --name VALUE"),
        (
            "logs",
            (*AT, "--zome", "z"),
            "--zome: unknown option; known are --name --zone --project --slices --worker --dry-run; tpu/logs.sh --help tells of each",
        ),
        ("stop", (*AT, "now"), "'now': not understood; only options are; tpu/stop.sh --help tells of each"),
        ("stop", (*AT, "-x"), "-x: unknown option; tpu/stop.sh --help tells of all"),
        (
            "launch",
            (*AT, *CONFIG, "other.yaml"),
            "'other.yaml': neither an option nor key=value; the configuration goes with --config",
        ),
        (
            "launch",
            (*AT, "--config", "configs/b.yaml"),
            "--config: no file 'configs/b.yaml' in CLONE; only what is in the clone is sent",
        ),
        (
            "launch",
            (*AT, "--config", "/a.yaml"),
            "--config: '/a.yaml' is absolute; give a path within the clone, CLONE",
        ),
        (
            "launch",
            (*AT, "--slices", "2", *CONFIG, "run.folder=runs/mine", "--dry-run"),
            "run.folder: runs/mine given, and 'my-tpu' has several hosts, which need one folder that all reach; give run.folder=gs://BUCKET/runs/mine",
        ),
        (
            "create",
            ("--name", "MY_TPU", "--zone", "z", "--topology", "v5e:2x4"),
            "--name: 'MY_TPU' given; 2 to 62 small letters, digits and -, a letter first, are allowed; choose another",
        ),
        (
            "create",
            (*AT, "--topology", "v5litepod-8"),
            "--topology: 'v5litepod-8' given; CHIP:SHAPE of v4, v5e, v5p or v6e is allowed, such as v5e:2x4",
        ),
        (
            "create",
            (*AT, "--topology", "v5e:8x4"),
            "--topology: 'v5e:8x4' given; v5e has 1x1, 2x2, 2x4, 4x4, 4x8, 8x8, 8x16, 16x16; write such as v5e:1x1",
        ),
        (
            "create",
            (*AT, "--topology", "v5e:2x4", "--slices", "0"),
            "--slices: '0' given; a whole number from 1 on is allowed; write --slices 2",
        ),
        (
            "logs",
            (*AT, "--worker", "-1"),
            "--worker: '-1' given; a number from 0 on, or all, is allowed; write --worker 0",
        ),
        (
            "setup",
            (*AT, "--data", "../data"),
            "--data: '../data' given; a path within the clone is allowed, without . and ..; write such as data/mine",
        ),
        ("setup", (*AT, "--data", "date"), "--data: no 'date' in CLONE; give a path within the clone"),
        (
            "setup",
            (*AT, "--hf-token", "none"),
            "--hf-token: no file 'none'; 'hf auth login' writes one to ~/.cache/huggingface/token",
        ),
        (
            "fetch",
            ("--run", "s3://a/b"),
            "--run: 's3://a/b' given; a folder on the VM or gs://BUCKET/FOLDER is allowed; write it so",
        ),
        ("fetch", ("--run", "runs/mine"), "--name: not given; tpu/fetch.sh --help tells of all options"),
        (
            "gke",
            (*GKE, "--topology", "v5e:2x2", "--slices", "2"),
            "--slices: 2 of v5e:2x2 given; GKE joins slices of several hosts each only; take a larger shape, or one slice",
        ),
        (
            "gke",
            (*GKE, "--topology", "v5e:2x4", "--config", "ignored.txt"),
            "--config: 'ignored.txt' is not in the image; configs/... or /bucket/... is allowed; copy it to the bucket",
        ),
        (
            "gke",
            (*GKE, "--topology", "v5e:2x4", "--config", "configs/../ignored.txt"),
            "--config: 'configs/../ignored.txt' is not in the image; configs/... or /bucket/... is allowed; copy it to the bucket",
        ),
        (
            "gke",
            (*GKE, "--topology", "v5e:2x4", "--config", "configs/b.yaml"),
            "--config: no file 'configs/b.yaml' in CLONE; give one of configs/, or /bucket/...",
        ),
        (
            "gke",
            (*GKE, "--topology", "v5e:2x4", "--bucket", "gs://my-bucket"),
            "--bucket: 'gs://my-bucket' given; the name of a bucket without gs:// is allowed; write it so",
        ),
        (
            "gke",
            (*GKE, "--topology", "v5e:2x4", "run.seed=1\n2"),
            "'run.seed': its value has a line break or another control character; write it in the configuration file",
        ),
    ],
)
def test_a_wrong_command_line_is_told_in_one_line_before_anything_is_spent(cloud, script, arguments, message):
    done = cloud.run(script, *arguments)
    assert done.stderr == f"error: {message.replace('CLONE', str(cloud.clone))}\n"
    assert done.returncode == 2
    assert cloud.calls() == []


@pytest.mark.parametrize(
    ("there", "arguments", "variables", "message"),
    [
        (
            None,
            (),
            {},
            "--name: gcloud knows no TPU VM 'my-tpu' in us-west4-a; make one with tpu/create.sh, or give --slices if it is several",
        ),
        (
            (1, 1),
            (),
            {"STATES": "CREATING"},
            "--name: 'my-tpu' is CREATING; wait until it is READY, or delete it and make another",
        ),
        (
            (2, 1),
            ("run.folder=runs/mine",),
            {},
            "run.folder: runs/mine given, and 'my-tpu' has several hosts, which need one folder that all reach; give run.folder=gs://BUCKET/runs/mine",
        ),
        (
            None,
            ("--slices", "2", BUCKET),
            {},
            "--name: gcloud knows no queued resource 'my-tpu' in us-west4-a; make one with tpu/create.sh --slices 2",
        ),
        (
            (1, 2),
            ("--slices", "2", BUCKET),
            {"STATES": "SUSPENDED"},
            "--name: 'my-tpu' is SUSPENDED; wait until it is ACTIVE, or delete it and make another",
        ),
        ((1, 2), ("--slices", "3", BUCKET), {}, "--slices: 3 given, and 'my-tpu' has 2; give that number"),
    ],
)
def test_what_cannot_train_is_told_before_anything_is_done(cloud, there, arguments, variables, message):
    if there:
        cloud.have(*there)
    done = cloud.run("launch", *AT, *CONFIG, *arguments, **variables)
    assert (done.returncode, done.stderr) == (2, f"error: {message}\n")
    assert {call[4] for call in cloud.calls()} == {"describe"}


def test_a_slice_that_is_not_there_is_told_before_anything_is_done(cloud):
    (cloud.have(slices=2).folder / "tpu-vm" / "my-tpu-1").unlink()
    done = cloud.run("launch", *AT, "--slices", "2", *CONFIG, BUCKET)
    assert done.returncode == 2
    assert done.stderr.startswith("error: --name: gcloud knows no TPU VM 'my-tpu-1' in us-west4-a;")


def test_a_jobset_that_is_there_already_is_told(cloud):
    done = cloud.run("gke", *GKE, "--topology", "v5e:2x4", EXIT_kubectl="1")
    assert (done.returncode, done.stderr) == (
        1,
        "error: my-run: kubectl ended with exit code 1; where it is there already, kubectl delete jobset my-run, "
        "then this again: the run goes on\n",
    )
    assert cloud.calls("kubectl")[0][1:4] == ["create", "-f", "-"]
