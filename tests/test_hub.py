"""What the hub says, against a server on this machine that answers as the hub does."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from huggingface_hub import constants

from jaxlingua import hub
from jaxlingua.errors import CheckpointError, MachineError
from tests.checkpoint.folders import LLAMA, draw, write_folder

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """Answers for the repositories someone/open, someone/gated, someone/broken; knows no other."""

    folder = None  # of someone/open
    asked: list[str] = []  # noqa: RUF012 — shared on purpose
    breaks_off_once = False

    def do_GET(self):
        self.asked.append(f"{self.command} {self.path} {self.headers.get('Range', '')}".strip())
        name = "/".join(self.path.removeprefix("/api/models/").strip("/").split("/")[:2])
        if name == "someone/broken":
            self.answer(503, b"busy")
        elif name not in ("someone/open", "someone/gated"):
            self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif self.path.startswith("/api/models/"):
            files = [{"rfilename": file.name} for file in sorted(self.folder.iterdir())]
            tree = [
                {"type": "file", "path": f.name, "size": f.stat().st_size, "oid": "0" * 40}
                for f in sorted(self.folder.iterdir())
            ]
            info = {"id": name, "modelId": name, "sha": COMMIT, "siblings": files, "private": False}
            self.answer(200, json.dumps(tree if "/tree/" in self.path else info).encode())
        elif name == "someone/gated":
            self.answer(403, b"{}", {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"})
        else:
            file = self.folder / self.path.rpartition("/")[2]
            content = file.read_bytes()
            start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
            headers = {"ETag": f'"{file.name}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
            if start:
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            if Hub.breaks_off_once and self.command == "GET" and file.suffix == ".safetensors":
                Hub.breaks_off_once = False
                self.answer(200, content, headers, sent=1000)
                self.close_connection = True
                return
            self.answer(206 if start else 200, content[start:], headers)

    do_HEAD = do_GET

    def answer(self, status, body, headers=(), sent=None):
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:sent])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The hub is this server, and its cache is empty."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{http.server_address[1]}"
    Hub.folder = write_folder(tmp_path / "open", LLAMA)
    Hub.asked = []
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    for name, value in {
        "ENDPOINT": address,
        "HF_HUB_OFFLINE": False,
        "HF_HUB_CACHE": str(tmp_path / "cache"),
        "HUGGINGFACE_CO_URL_TEMPLATE": address + "/{repo_id}/resolve/{revision}/{filename}",
    }.items():
        monkeypatch.setattr(constants, name, value)
    yield address
    http.shutdown()


def find(path: str, patterns=("*.json",)):
    return hub.find_folder(path, patterns, "model.path", CheckpointError)


def test_a_gated_repository_tells_what_to_accept_and_how_to_log_in(server):
    with pytest.raises(CheckpointError) as caught:
        find("someone/gated")
    assert str(caught.value) == (
        f"model.path: 'someone/gated' is no folder here, and is gated on the hub; accept its terms at "
        f"{server}/someone/gated, log in with 'hf auth login' or set HF_TOKEN, and run this again"
    )


def test_a_repository_that_is_not_there_is_told(server):
    with pytest.raises(CheckpointError) as caught:
        find("someone/nothing")
    assert str(caught.value) == (
        "model.path: 'someone/nothing' is no folder here, and the hub has no such repository, or a private one; "
        "check the name, and log in with 'hf auth login' if it is private"
    )


def test_only_the_files_that_are_wanted_are_downloaded_and_only_once(server):
    folder = find("someone/open")
    assert [file.name for file in folder.iterdir()] == ["config.json"]
    Hub.asked.clear()
    folder = find("someone/open", ("*.json", "*.safetensors"))
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert not any("GET" in line and "config.json" in line for line in Hub.asked)


def test_what_would_be_downloaded_is_told_without_downloading_it(server, tmp_path):
    def wanted(path, patterns=("*.json", "*.safetensors")):
        return hub.bytes_to_download(path, patterns, "model.path", CheckpointError)

    files = {file.name: file.stat().st_size for file in Hub.folder.iterdir()}
    assert wanted("someone/open") == sum(files.values())
    assert not any(line.startswith("GET") and "/resolve/" in line for line in Hub.asked)
    find("someone/open")
    assert wanted("someone/open") == files["model.safetensors"]
    assert wanted(str(tmp_path)) == 0
    for path, told in (
        ("someone/gated", "is gated on the hub; accept its terms"),
        ("someone/nothing", "the hub has no such repository"),
    ):
        with pytest.raises(CheckpointError, match=told):
            wanted(path)
    with pytest.raises(MachineError, match="the hub cannot be reached"):
        wanted("someone/broken")


@pytest.mark.timeout(120)
def test_a_download_that_breaks_off_is_taken_up_again_until_the_file_is_whole(server):
    Hub.breaks_off_once = True
    folder = find("someone/open", ("*.safetensors",))
    whole = (Hub.folder / "model.safetensors").read_bytes()
    assert (folder / "model.safetensors").read_bytes() == whole
    assert sum(line.startswith("GET") and "safetensors" in line for line in Hub.asked) == 2


def test_a_model_of_the_hub_is_opened_like_a_folder(server):
    from jaxlingua.checkpoint.huggingface.model import open_model

    public = open_model("someone/open")
    assert public.config.vocab_size == 300
    tensor = public.tensors["model.norm.weight"]
    assert (tensor.read_rows(0, 64) == draw(LLAMA)["model.norm.weight"]).all()


def test_weights_that_a_repository_holds_a_second_time_are_not_downloaded(server):
    """Mistral's hold consolidated.safetensors beside the shards, as large as all of them."""
    from jaxlingua.checkpoint.huggingface.model import open_model

    (Hub.folder / "model.safetensors").unlink()
    write_folder(Hub.folder, LLAMA, shards=2)
    (Hub.folder / "consolidated.safetensors").write_bytes(b"x")
    (Hub.folder / "pytorch_model.bin").write_bytes(b"x")
    names = {file.name for file in open_model("someone/open").folder.iterdir()}
    assert names == {
        "config.json", "model.safetensors.index.json",
        "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
    }  # fmt: skip


def test_a_config_that_is_refused_costs_no_download_of_weights(server):
    from jaxlingua.checkpoint.huggingface.model import open_model

    write_folder(Hub.folder, LLAMA | {"model_type": "gemma2"})
    with pytest.raises(CheckpointError, match="model_type='gemma2' is not supported"):
        open_model("someone/open")
    assert not any("safetensors" in line for line in Hub.asked)


@pytest.mark.timeout(120)
def test_a_hub_that_does_not_answer_is_a_matter_of_the_machine(server, monkeypatch):
    with pytest.raises(
        MachineError, match="'someone/broken' is no folder here, and it is not in the cache, and the"
    ):
        find("someone/broken")


def test_without_a_network_a_name_that_is_not_cached_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(MachineError) as caught:
        find("meta-llama/Llama-2-7b-hf")
    assert str(caught.value) == (
        "model.path: 'meta-llama/Llama-2-7b-hf' is no folder here, and it is not in the cache, and the hub cannot be "
        "reached (HF_HUB_OFFLINE is set); download it where there is a network, and give its folder"
    )


@pytest.mark.parametrize("path", ["./nowhere", "/nowhere/model", "~/nowhere-at-all", "one", "a/b/c"])
def test_what_cannot_be_a_name_of_the_hub_is_taken_for_a_folder(path):
    with pytest.raises(CheckpointError, match=f"'{path}' does not exist; give a folder or a hub name like"):
        find(path)


def test_a_name_that_the_hub_would_not_allow_is_told():
    with pytest.raises(CheckpointError, match="it is no name of a repository; give one like 'owner/model'"):
        find("owner/what a name")
