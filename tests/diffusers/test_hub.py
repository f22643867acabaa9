"""Models from the hub: a server here that speaks its protocol, asked for one commit by diffusers' own client."""

import hashlib
import json
import os
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import diffusers
import huggingface_hub.constants
import pytest
import torch
from tiny import unet

import fewstep
from fewstep import sample
from fewstep.errors import ArgumentError, WeightsError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """The three things that are asked of it: the list of a commit's files, a file's head, and a file."""

    def log_message(self, *args):
        pass

    def _send(self, status, body, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_GET(self):
        hub, path = self.server, self.path.split("?")[0]
        hub.asked.append(path)
        if path == f"/api/models/org/name/tree/{COMMIT}":
            tree = [
                {"type": "file", "path": str(f.relative_to(hub.folder)), "size": f.stat().st_size, "oid": "0" * 40}
                for f in sorted(hub.folder.rglob("*"))
                if f.is_file()
            ]
            return self._send(200, json.dumps(tree).encode(), Content_Type="application/json")
        file = hub.folder / path.removeprefix(f"/org/name/resolve/{COMMIT}/")
        if path.startswith(f"/org/name/resolve/{COMMIT}/") and file.is_file():
            body = file.read_bytes()
            # Large files are known by their SHA-256, others by git's own digest.
            large = file.suffix == ".safetensors"
            etag = f'"{hashlib.new("sha256" if large else "sha1", body).hexdigest()}"'
            return self._send(200, body, ETag=etag, X_Repo_Commit=COMMIT, Accept_Ranges="bytes")
        code = "RevisionNotFound" if "org/name" in path else "RepoNotFound"
        return self._send(404, b"{}", X_Error_Code=code, X_Error_Message="not there")

    do_HEAD = do_GET


@pytest.fixture
def hub(tmp_path, monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.folder, server.asked = tmp_path / "repository", []
    pipe = diffusers.DDPMPipeline(unet(), diffusers.DDPMScheduler(clip_sample=False))
    pipe.save_pretrained(server.folder)
    for name in ("fp16.", ""):
        (server.folder / "unet" / f"extra.{name}bin").write_bytes(b"a pickle")
    weights = server.folder / "unet" / "diffusion_pytorch_model.safetensors"
    (server.folder / "unet" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(weights.read_bytes())
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    constants, here = huggingface_hub.constants, f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", here)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", here + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with suppress(AttributeError):
        huggingface_hub.close_session()
    yield server
    server.shutdown()
    server.server_close()
    huggingface_hub.close_session()


def test_a_pinned_commit_is_fetched_once_and_runs(hub):
    den = fewstep.load("org/name", revision=COMMIT)
    assert den.revision == COMMIT
    own = fewstep.load(hub.folder)
    assert torch.equal(sample(den, 2, steps=3).x, sample(own, 2, steps=3).x)
    fetched = {path.split(COMMIT + "/")[1] for path in hub.asked if "/resolve/" in path}
    assert fetched == {
        "model_index.json", "scheduler/scheduler_config.json", "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
    }  # fmt: skip
    hub.asked.clear()
    again = fewstep.load("org/name", revision=COMMIT)
    assert torch.equal(sample(again, 2, steps=3).x, sample(own, 2, steps=3).x)
    assert not [path for path in hub.asked if path.endswith(".safetensors")]


def test_a_variant_of_the_weights(hub):
    fewstep.load("org/name", revision=COMMIT, variant="fp16", dtype=torch.float16)
    fetched = {os.path.basename(path) for path in hub.asked if path.endswith("safetensors")}
    assert fetched == {"diffusion_pytorch_model.fp16.safetensors"}


def test_one_byte_that_was_flipped_since(hub, tmp_path):
    fewstep.load("org/name", revision=COMMIT)
    file = next((tmp_path / "cache").rglob("diffusion_pytorch_model.safetensors")).resolve()
    whole = file.read_bytes()
    file.write_bytes(whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:])
    with pytest.raises(WeightsError, match="was changed"):
        fewstep.load("org/name", revision=COMMIT)


@pytest.mark.parametrize(
    ("name", "revision", "message"),
    [
        ("org/name", "", "40 hexadecimal"),
        ("org/name", "main", "40 hexadecimal"),
        ("org/name", COMMIT[:7], "40 hexadecimal"),
        ("org/name", "f" * 40, "cannot be had"),
        ("org/none", COMMIT, "cannot be had"),
    ],
    ids=["unpinned", "branch", "short", "no such commit", "no such model"],
)
def test_what_cannot_be_pinned_or_had_is_refused(hub, name, revision, message):
    with pytest.raises(ArgumentError, match=message):
        fewstep.load(name, revision=revision)
    if "hexadecimal" in message:
        assert not hub.asked


def test_a_folder_has_no_revision(hub):
    with pytest.raises(ArgumentError, match="a folder here"):
        fewstep.load(hub.folder, revision=COMMIT)
    with pytest.raises(ArgumentError, match="only a diffusers model"):
        fewstep.load("mnist", revision=COMMIT)
