"""A result file whose sections are measured together or one at a time, each with the date and commit of its own."""

import os
import platform
import re
import subprocess
from datetime import date
from pathlib import Path

import torch


def about() -> str:
    """When, on what and beside how much other work."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    return (
        f"*{date.today()}, commit {commit}, {platform.machine()} CPU, {os.cpu_count()} cores shared with other work "
        f"(load {os.getloadavg()[0]:.0f}), one thread a process, torch {torch.__version__}.*"
    )


def put(file: Path, title: str, heading: str, lines: list[str]) -> None:
    """Write a section of a file, in the place of the one that bears its heading."""
    text = file.read_text(encoding="utf8") if file.exists() else f"# {title}\n"
    section = "\n".join([f"## {heading}", "", *lines]) + "\n"
    old = re.compile(rf"^## {re.escape(heading)}\n.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)
    found = old.search(text)
    if found:
        end = "\n" if text[found.end() :] else ""
        text = text[: found.start()] + section + end + text[found.end() :]
    else:
        text = text.rstrip() + "\n\n" + section
    file.write_text(text, encoding="utf8")
    print(section, flush=True)
