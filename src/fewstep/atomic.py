"""Files that are there whole or not at all: how everything is written that fewstep reads again."""

import errno
import os
from pathlib import Path


def write_atomically(path: str | Path, data: bytes) -> None:
    """Write `data` to `path` so that a reader sees the old file or the whole new one, after a loss of power too.

    What is no file, such as a pipe, is written as it is; a link is followed.

    Args:
        path: in a folder that is there.
        data: the content.

    Raises:
        OSError: it cannot be written; the old file stays as it was.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    path = path.resolve()
    if not path.parent.is_dir():  # else the error would name the file of another name below
        raise FileNotFoundError(errno.ENOENT, "there is no such folder", str(path.parent))
    # Two machines may have processes of the same number.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # elsewhere a folder cannot be opened
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
