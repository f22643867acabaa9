"""Commands that show what there is: catalog, demo, report, doctor."""

import json
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer

# The library that each extra brings, and what it is for.
EXTRAS = {
    "diffusers": ("diffusers", "diffusers' pipelines and models"),
    "deepinv": ("deepinv", "deepinv's operators and denoisers"),
    "studio": ("gradio", "the studio in a browser"),
    "report": ("plotly", "the report's plots"),
    "scale": ("ray", "many machines at once"),
    "train": ("pyarrow", "parquet data"),
    "tune": ("optuna", "the tuners that search"),
}
HOW = "pip install 'fewstep[{}]'"


def catalog(as_json: Annotated[bool, typer.Option("--json", help="A JSON list.")] = False) -> None:
    """List every method: name, family, papers, summary, module, and what ComfyUI, A1111 and k-diffusion call it.

    Example: fewstep catalog | grep "DPM++ 2M"
    """
    from fewstep.aliases import SAMPLERS, called
    from fewstep.catalog import methods

    names = {m: called(m.name) if m.family == "solvers" else [] for m in methods()}
    if as_json:
        rows = [m.to_json() | {"aliases": {name: SAMPLERS[name][1] for name in names[m]}} for m in names]
        typer.echo(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    for m, also in names.items():
        typer.echo(f"{m.family:12} {m.name:16} {m.summary}" + (f" [{', '.join(also)}]" if also else ""))


def demo(out: Annotated[Path, typer.Option(help="The folder of the page.")] = Path("out/demo")) -> None:
    """Write a page that shows how few steps suffice, with the shipped models.

    Example: fewstep demo --out out/demo
    """
    from rich.console import Console

    from fewstep.demo import write_demo

    with Console(stderr=True).status("beginning") as status:
        page = write_demo(out, tell=status.update)
    typer.echo(f"open {page}")


def report(
    folder: Annotated[Path, typer.Argument(help="The folder of the pages that benchmarks wrote.")] = Path("benchmarks"),
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("out/report.html"),
) -> None:
    """Write one page of what benchmarks and claims measured, with interactive plots; it needs no network.

    Example: fewstep report benchmarks --out out/report.html
    """
    from fewstep.reporting import write_report

    typer.echo(f"open {write_report(folder, out)}")


def doctor() -> None:
    """Say what is installed: versions, devices, and what each extra would add.

    Example: fewstep doctor
    """
    import torch

    typer.echo(f"python {sys.version.split()[0]} on {platform.platform()}, {os.cpu_count()} cores")
    typer.echo(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    devices += ["mps"] * torch.backends.mps.is_available()
    typer.echo(f"accelerators: {', '.join(devices) or 'none'}")
    for name in ("fewstep", "numpy", "scipy", "safetensors", "pillow", "matplotlib"):
        typer.echo(f"{name} {_version(name) or 'is missing, and fewstep needs it'}")
    for extra, (name, gives) in EXTRAS.items():
        found = _version(name)
        typer.echo(f"{name} {found}: {gives}" if found else f"{name} is missing: {gives}; {HOW.format(extra)}")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
