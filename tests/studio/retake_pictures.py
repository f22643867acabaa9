"""Take the pictures of docs/studio.md again: python tests/studio/retake_pictures.py [folder [tab …]]."""

import io
import sys
from pathlib import Path

from browser import browsing, finished, open_tab, paint, serving
from PIL import Image

FOLDER = Path(__file__).parents[2] / "docs" / "pictures"
TABS = ("Sample", "Compare", "Restore", "Tune", "Catalogue")
LARGEST = 120_000


def act(page, name):
    """Put something on the screen of a tab."""
    tab = name.lower()
    if tab == "sample":
        page.get_by_label("cfg", exact=True).check()
        page.click("#sample-run")
    elif tab == "compare":
        page.locator("#compare-n input").fill("6")
        page.click("#compare-run")
    elif tab == "restore":
        for height in (0.42, 0.5, 0.58):
            paint(page, height=height)
        page.click("#restore-run")
    elif tab == "tune":
        page.locator("#tune-noises input").fill("4")
        page.click("#tune-run")
    else:
        page.locator("#catalogue-search textarea, #catalogue-search input").first.fill("unipc")
        page.wait_for_selector("#catalogue-about h3:has-text('unipc')")
        return
    finished(page, tab, seconds=180)


def small(data, width):
    """The PNG with few colours, so that it stays small."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    for colours in (128, 64, 32, 16):
        out = io.BytesIO()
        image.quantize(colours, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
        if out.tell() <= LARGEST:
            break
    return out.getvalue()


def main(folder, tabs):
    folder.mkdir(parents=True, exist_ok=True)
    with serving() as url, browsing() as browser:
        for width in (1280, 390):
            page = browser.new_page(viewport={"width": width, "height": 900})
            page.goto(f"{url}/?__theme=light")
            page.wait_for_selector("#sample-run", timeout=60_000)
            for name in tabs:
                open_tab(page, name)
                act(page, name)
                for theme in ("light", "dark"):
                    page.evaluate("dark => document.body.classList.toggle('dark', dark)", theme == "dark")
                    page.wait_for_timeout(700)
                    data = page.screenshot(full_page=True)
                    (folder / f"studio-{name.lower()}-{width}-{theme}.png").write_bytes(small(data, width))
                page.evaluate("document.body.classList.remove('dark')")
                wide = page.evaluate("document.documentElement.scrollWidth")
                print(name, width, "the page is", wide, "wide")
            page.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER, sys.argv[2:] or TABS)
