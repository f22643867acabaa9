"""A plan on the hub: its file and a card that runs, with what the plan costs and what was measured of it."""

import json
import re
from collections.abc import Sequence
from typing import Any

from fewstep.errors import ArgumentError, require
from fewstep.plan.files import dumps
from fewstep.plan.plan import Plan
from fewstep.plan.text import about

FILE = "plan.json"


def is_hub_id(name: str) -> bool:
    """Whether it reads as a hub id, "owner/name"."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None


def check_commit(revision: str, why: str = "") -> None:
    """Refuse a revision that is no commit: branches and tags move.

    Args:
        revision: what was given.
        why: what the error says first.

    Raises:
        ArgumentError: it has not 40 hexadecimal digits.
    """
    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise ArgumentError(f"{why}a hub id needs its commit: revision of 40 hexadecimal digits, got {revision!r}")


def card(
    plan: Plan,
    repo_id: str,
    *,
    base_model: str,
    license: str,
    revision: str = "",
    pipeline_tag: str = "unconditional-image-generation",
    tags: Sequence[str] = (),
    measured: str = "",
    seed: int | None = None,
) -> str:
    """The Markdown card of a plan: what the hub reads, a snippet that runs, and a table.

    Args:
        plan: the plan.
        repo_id: where it will be, "owner/name".
        base_model: the model that it is for: a hub id, or the name of a model that fewstep ships.
        license: the plan's own, as the hub names it, such as "mit".
        revision: the commit of a hub id, 40 hexadecimal digits, as `fewstep.load` wants it.
        pipeline_tag: what the model does, as the hub names it.
        tags: further tags.
        measured: the error that was measured, in words; what the tuner measured, or "not measured", unless given.
        seed: the seed of that measurement; the tuner's unless given.

    Raises:
        ArgumentError: a name that is none of the hub's, or a model of the hub without its commit.
    """
    if not is_hub_id(repo_id):
        raise ArgumentError(f"repo_id must be 'owner/name', got {repo_id!r}")
    on_hub = "/" in base_model
    if on_hub:
        check_commit(revision)
    if not base_model or (revision and not on_hub):
        raise ArgumentError(f"base_model must be a hub id with its revision, or a shipped name, got {base_model!r}")
    tuned = plan.source.get("tuned")
    if isinstance(tuned, dict) and not measured and {"measure", "before", "after"} <= set(tuned):
        measured = f"{tuned['measure']} {tuned['after']:.3g}, untuned {tuned['before']:.3g}"
        seed = tuned.get("seed", seed)
    head: dict[str, Any] = {"library_name": "fewstep", "pipeline_tag": pipeline_tag, "license": license}
    head |= {"base_model": base_model} if on_hub else {}
    head["tags"] = list(dict.fromkeys(["fewstep", "sampler", *tags]))
    # JSON is YAML: every value is quoted as it has to be.
    front = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in head.items()]
    pinned = f', revision="{revision}"' if on_hub else ""
    rows = {
        "network evaluations a sample, guidance not counted": plan.evaluations, "steps": plan.steps,
        "draws noise": "yes" if plan.stochastic else "no", "path": plan.path.kind, "model": f"`{base_model}`",
        "measured error": measured or "not measured", "seed": "–" if seed is None else seed,
    }  # fmt: skip
    snippet = [
        "import fewstep", "from huggingface_hub import hf_hub_download", "",
        f'plan = fewstep.Plan.load(hf_hub_download("{repo_id}", "{FILE}"))',
        f'model = fewstep.load("{base_model}"{pinned})', "out = fewstep.sample(model, 1, plan=plan, seed=0)",
    ]  # fmt: skip
    return "\n".join([
        "---", *front, "---", "", "```python", *snippet, "```", "",
        f"# {repo_id.split('/')[1]}: {plan.evaluations} evaluations", "",
        "In a diffusers pipeline: `pipe.scheduler = fewstep.diffusers.scheduler(pipe, plan=plan)`.", "",
        "| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items()), "",
        *(f"{line}  " for line in about(plan)), "",
    ])  # fmt: skip


def push(
    plan: Plan, repo_id: str, *, private: bool = False, token: str | None = None, message: str = "A plan", **told: Any
) -> str:
    """Put a plan on the hub as `plan.json`, with a card where there is none yet.

    Args:
        plan: the plan.
        repo_id: "owner/name"; made if it is not there.  It may be the model's own: its card then stays.
        private: whether a repository that is made is private.
        token: of the hub; the one that `hf auth login` kept unless given.
        message: of the commit.
        told: what `card` is told: base_model, license, revision, pipeline_tag, tags, measured and seed.

    Returns:
        The commit, 40 hexadecimal digits.

    Raises:
        ArgumentError: what `card` refuses, or what the hub does, with its reason.
        MissingExtraError: huggingface_hub is not installed.
    """
    text = card(plan, repo_id, **told)
    try:
        from huggingface_hub import CommitOperationAdd, HfApi
    except ImportError as error:
        raise require("huggingface_hub", "diffusers") from error
    api = HfApi(token=token)
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        files = {FILE: dumps(plan)}
        if not api.file_exists(repo_id, "README.md"):
            files["README.md"] = text
        added = [CommitOperationAdd(name, content.encode()) for name, content in files.items()]
        return str(api.create_commit(repo_id, added, commit_message=message).oid)
    # The hub's refusals and the network's failures are errors of several libraries, none of them ours.
    except Exception as error:
        raise ArgumentError(f"{repo_id!r} cannot be written on the hub: {error}") from error
