"""Models from the hub: a server here that speaks its protocol, asked for one commit by diffusers' own client."""

import base64
import hashlib
import json
import os
import threading
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import diffusers
import huggingface_hub.constants
import pytest
import torch
import yaml
from huggingface_hub import hf_hub_download
from tiny import unet

import fewstep
import fewstep.diffusers as ours
from fewstep import VP, sample
from fewstep.errors import ArgumentError, PlanError, WeightsError
from fewstep.plan.files import dumps
from fewstep.plan.hub import card

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """What is asked of it: the list of a commit's files, a file's head, a file; and what a commit is made by."""

    def log_message(self, *args):
        pass

    def _send(self, status, body, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
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
        made = hub.written.get(path.replace("/resolve/main/", "/"))
        if made is not None:
            return self._send(200, made, ETag=f'"{hashlib.sha1(made).hexdigest()}"', X_Repo_Commit=COMMIT)
        if "/resolve/main/" in path:
            return self._send(404, b"{}", X_Error_Code="EntryNotFound", X_Error_Message="not there")
        code = "RevisionNotFound" if "org/name" in path else "RepoNotFound"
        return self._send(404, b"{}", X_Error_Code=code, X_Error_Message="not there")

    do_HEAD = do_GET

    def do_POST(self):
        hub, asked = self.server, self.rfile.read(int(self.headers["Content-Length"]))
        path, answer = self.path.split("?")[0], {}
        hub.asked.append(path)
        if self.headers.get("Authorization") != "Bearer hf_token":
            return self._send(401, b"{}")
        if path == "/api/repos/create":
            answer = {"url": f"http://{self.headers['Host']}/me/six"}
        elif path.endswith("/preupload/main"):
            files = json.loads(asked)["files"]
            answer = {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
        elif path.endswith("/commit/main"):
            repository = path.removeprefix("/api/models").removesuffix("/commit/main")
            for line in map(json.loads, asked.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    hub.written[f"{repository}/{line['value']['path']}"] = content
            answer = {"commitUrl": f"http://{self.headers['Host']}{repository}/commit/{COMMIT}", "commitOid": COMMIT}
        return self._send(200, json.dumps(answer).encode(), Content_Type="application/json")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.folder, server.asked, server.written = tmp_path / "repository", [], {}
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
    assert sample(den, 1, steps=2).model == f"org/name@{COMMIT}"
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


@pytest.fixture
def plan():
    return fewstep.make_plan(VP.from_betas("linear"), "dpm-solver++", "trailing", 3)


def test_a_plan_is_pushed_with_a_card_whose_snippet_runs(hub, plan):
    told = {"base_model": "org/name", "revision": COMMIT, "license": "mit", "tags": ["cat"], "token": "hf_token"}
    assert plan.push_to_hub("me/six", **told, measured="RMSE 0.01", seed=7) == COMMIT
    assert fewstep.Plan.load(hf_hub_download("me/six", "plan.json")) == plan
    front, body = hub.written["/me/six/README.md"].decode().removeprefix("---\n").split("---\n", 1)
    assert yaml.safe_load(front) == {
        "library_name": "fewstep", "pipeline_tag": "unconditional-image-generation", "license": "mit",
        "base_model": "org/name", "tags": ["fewstep", "sampler", "cat"],
    }  # fmt: skip
    assert body.lstrip().startswith("```python")
    ran = {}
    exec(body.split("```python\n")[1].split("```")[0], ran)
    assert ran["out"].plan == plan
    assert ran["out"].model == f"org/name@{COMMIT}"
    for row in ("guidance not counted | 3 |", "| measured error | RMSE 0.01 |", "| seed | 7 |"):
        assert row in body


def test_what_a_tuner_measured_stands_in_the_card_and_a_card_that_is_there_stays(hub, plan):
    tuned = {"measure": "RMSE", "before": 0.5, "after": 0.125, "seed": 3}
    made = replace(plan, source={**plan.source, "tuned": tuned})
    text = card(made, "me/six", base_model="mnist", license="mit")
    assert "| measured error | RMSE 0.125, untuned 0.5 |\n| seed | 3 |" in text
    assert "base_model" not in text
    assert "| not measured |" in card(plan, "me/six", base_model="mnist", license="mit")
    hub.written["/me/six/README.md"] = b"the weights' own card"
    made.push_to_hub("me/six", base_model="mnist", license="mit", token="hf_token")
    assert hub.written["/me/six/README.md"] == b"the weights' own card"
    assert hub.written["/me/six/plan.json"] == dumps(made).encode()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"repo_id": "six"}, "owner/name"),
        ({"base_model": "org/name"}, "40 hexadecimal"),
        ({"base_model": ""}, "base_model must"),
        ({"revision": COMMIT}, "base_model must"),
        ({"token": "hf_other"}, "cannot be written"),
    ],
)
def test_what_cannot_be_pushed(hub, plan, change, message):
    options = {"repo_id": "me/six", "base_model": "mnist", "license": "mit", "token": "hf_token", **change}
    with pytest.raises(ArgumentError, match=message):
        plan.push_to_hub(**options)
    assert not hub.written


def test_a_plan_beside_the_weights_is_found_and_checked(hub, plan):
    assert fewstep.load(hub.folder).plan is None
    plan.save(hub.folder / "plan.json")
    for den in (fewstep.load(hub.folder), fewstep.load("org/name", revision=COMMIT)):
        assert den.plan == plan
        assert sample(den, 1, plan=den.plan).stats.evaluations == 3
    fewstep.make_plan(VP(), "ddim", steps=2).save(hub.folder / "plan.json")
    with pytest.raises(ArgumentError, match="for a path"):
        fewstep.load(hub.folder)
    (hub.folder / "plan.json").write_text("{}")
    with pytest.raises(PlanError):
        fewstep.load(hub.folder)


def test_the_plan_of_a_saved_scheduler_is_found(tmp_path, plan):
    pipe = diffusers.DDPMPipeline(unet(), diffusers.DDPMScheduler(clip_sample=False))
    pipe.scheduler = ours.scheduler(pipe, plan=plan)
    assert fewstep.load(pipe).plan == plan
    pipe.save_pretrained(tmp_path)
    assert fewstep.load(tmp_path).plan == plan
