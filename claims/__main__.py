"""Measure claims and write docs/claims.md: python -m claims [--page] [--engine ray] [family/name …].

Results are kept in the package, src/fewstep/assets/claims.json, each with its date, device and commit; naming claims
measures only those again, and --page measures none.  With --engine ray they run side by side on this machine's cores,
or with --address on a cluster; claims about time are then measured beside others.
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track

from claims import CLAIMS, Claim, Measured
from fewstep.atomic import write_atomically
from fewstep.engines import ENGINES, Engine
from fewstep.errors import FewstepError
from fewstep.measured import FILE as RESULTS

ROOT = Path(__file__).parent
PAGE = ROOT.parent / "docs" / "claims.md"
INTRODUCTION = """# Claims

A sentence of each paper beside what we measured, on our small models and on worlds whose answer is exact; so the
figures differ from the paper's and only their direction can be compared. `make claims` measures them again. A claim
that does not reproduce is written down as such, with why.
"""


def find() -> list[Claim]:
    """Every claim, from all modules in this folder, in the order of family and method."""
    for file in sorted(ROOT.glob("*/*.py")):
        import_module(f"claims.{file.parent.name}.{file.stem}")
    return sorted(CLAIMS, key=lambda c: (c.name.split("/")[0], c.paper, c.name))


def page(claims: list[Claim], results: dict[str, dict[str, object]]) -> str:
    """docs/claims.md from what was measured."""
    held = sum(bool(results[c.name]["holds"]) for c in claims if c.name in results)
    lines = [INTRODUCTION, f"{held} of {len([c for c in claims if c.name in results])} measured claims hold.\n"]
    family = ""
    for one in claims:
        if one.name.split("/")[0] != family:
            family = one.name.split("/")[0]
            lines.append(f"## {family.capitalize()}\n")
        result = results.get(one.name)
        lines += [f"### {one.method}: {one.says}\n", f"*{one.paper}*\n", f"- The paper: {one.figure}"]
        if result is None:
            lines.append("- Ours: not measured yet\n")
            continue
        lines.append(f"- Ours: {result['figure']}")
        lines.append(f"- {'Holds' if result['holds'] else '**Does not hold**'}. {result['why']}".rstrip())
        lines.append(f"- `python -m claims {one.name}`, {result['seconds']} s; {result['date']}, {result['device']}, "
                     f"commit {result['commit']}\n")  # fmt: skip
    return "\n".join(lines)


def measured(_: None, one: Claim) -> tuple[Measured, float]:
    """What came out of a claim, and its seconds."""
    began = time.perf_counter()
    return one.measure(), time.perf_counter() - began


def main(arguments: list[str]) -> int:
    """Measure what was asked for; the exit status is that of an unknown name."""
    parser = argparse.ArgumentParser("python -m claims", description="Measure claims and write docs/claims.md.")
    parser.add_argument("names", nargs="*", metavar="family/name", help="all unless given")
    parser.add_argument("--page", action="store_true", help="measure none that is not named, and write the page")
    parser.add_argument("--engine", choices=ENGINES, default="local")
    parser.add_argument("--address", help="of a Ray cluster; this machine's cores unless given")
    asked = parser.parse_args(arguments)
    claims, console = find(), Console(stderr=True)
    results = json.loads(RESULTS.read_text(encoding="utf8")) if RESULTS.exists() else {}
    wanted = asked.names
    unknown = set(wanted) - {c.name for c in claims}
    if unknown:
        console.print(f"no claim is called {', '.join(sorted(unknown))}; there are {', '.join(c.name for c in claims)}")
        return 2
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT)
    about = {
        "date": datetime.now(UTC).date().isoformat(), "commit": commit.stdout.strip() or "unknown",
        "device": f"CPU ({platform.machine()}, {torch.get_num_threads()} threads)",
    }  # fmt: skip
    chosen = [c for c in claims if c.name in wanted] if wanted or asked.page else claims
    ended = Engine(asked.engine, asked.address).spread(measured, chosen)
    for one, (found, seconds) in track(ended, "claims", len(chosen), console=console, disable=not chosen):
        results[one.name] = {
            "figure": found.figure, "holds": found.holds, "why": found.why, "seconds": round(seconds, 1), **about,
        }  # fmt: skip
        console.print(f"{one.name}: {'holds' if found.holds else 'does not hold'}; {found.figure}")
        keep(claims, results)
    keep(claims, results)
    return 0


def keep(claims: list[Claim], results: dict[str, dict[str, object]]) -> None:
    """Write what was measured so far, so that an interrupted run loses nothing."""
    kept = {
        c.name: {**results[c.name], "paper": c.paper, "method": c.method, "says": c.says, "published": c.figure}
        for c in claims
        if c.name in results
    }
    write_atomically(RESULTS, (json.dumps(kept, indent=1, ensure_ascii=False) + "\n").encode())
    write_atomically(PAGE, page(claims, kept).encode())


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except FewstepError as error:
        sys.exit(str(error))
