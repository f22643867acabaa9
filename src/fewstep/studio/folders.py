"""Folders for the files of each run, gone when the studio ends, and the old ones before."""

import shutil
import tempfile
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

KEPT_SECONDS = 3600


@cache
def _root() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="fewstep-studio-")


def new_folder() -> Path:
    """An empty folder; folders of more than an hour ago are removed."""
    root, now = Path(_root().name), time.time()
    root.mkdir(exist_ok=True)  # machines clear their folder of temporary files now and then
    for old in root.iterdir():
        with suppress(FileNotFoundError):  # another visitor's run was faster
            if now - old.stat().st_mtime > KEPT_SECONDS:
                shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(dir=root))
