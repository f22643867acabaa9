"""The figures of the four chapters and of the page on looking inside, made by the code that they show.

python docs/principles/make.py [chapter …]
"""

import os
import re
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def main(names: list[str]) -> None:
    """Run the blocks of each chapter in this folder, where they save their figures."""
    os.chdir(HERE)
    pages = [*sorted(HERE.glob("*.md")), HERE.parent / "inside.md"]
    for page in [page for page in pages if not names or page.stem in names]:
        began, session = time.perf_counter(), {"__name__": page.stem}
        for code in BLOCK.findall(page.read_text("utf8")):
            exec(compile(code, page.name, "exec"), session)
        print(f"{page.stem}: {time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
