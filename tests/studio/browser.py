"""A studio in a process of its own, and a browser without a screen to look at it."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-default-apps", "--disable-dev-shm-usage", "--disable-extensions", "--disable-sync", "--no-first-run",
]  # fmt: skip


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def answers(url):
    """Whether somebody serves there, a refusal included."""
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


@contextmanager
def serving(*arguments, wait=240, **variables):
    """The address of a studio that runs as long as this lasts."""
    port = free_port()
    command = [str(Path(sys.executable).with_name("fewstep")), "studio", "--port", str(port), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    url = f"http://127.0.0.1:{port}"
    try:
        ends = time.monotonic() + wait
        while not answers(url):
            if process.poll() is not None or time.monotonic() > ends:
                process.kill()
                raise RuntimeError(f"the studio did not come up: {process.stderr.read().decode()[-2000:]}")
            time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.communicate()


@contextmanager
def browsing():
    """A Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


def open_tab(page, name):
    page.get_by_role("tab", name=name).click()


def finished(page, tab, state="done", seconds=60):
    """Wait until the tab's line says so, and give the line."""
    from playwright.sync_api import TimeoutError

    line = page.locator(f"#{tab}-status .told")
    try:
        page.wait_for_selector(f"#{tab}-status .{state}", timeout=1000 * seconds)
    except TimeoutError as error:
        raise AssertionError(f"the tab is not {state} but says {line.inner_text()!r}") from error
    return line.inner_text()


def paint(page, left=0.3, right=0.75, height=0.5):
    """Paint a stroke across the picture of the tab restore."""
    page.wait_for_function("document.querySelector('#restore-canvas canvas')?.width > 1")
    page.locator("#restore-canvas canvas").scroll_into_view_if_needed()
    box = page.locator("#restore-canvas canvas").bounding_box()
    y = box["y"] + box["height"] * height
    page.mouse.move(box["x"] + box["width"] * left, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * right, y, steps=3)
    page.mouse.up()
