"""The studio in a real browser, without a screen: what a visitor does, and what he gets."""

import base64
import importlib.util
import io
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fewstep
from fewstep.plan import Plan

_spec = importlib.util.spec_from_file_location("browser", Path(__file__).with_name("browser.py"))
browser = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(browser)

pytest.importorskip("gradio", reason="the studio needs gradio: pip install 'fewstep[studio]'")
pytest.importorskip("playwright", reason="browsers are driven by playwright: pip install playwright")
expect = importlib.import_module("playwright.sync_api").expect
pytestmark = [
    pytest.mark.skipif(not browser.CHROMIUM, reason="no chromium here (Debian: apt install chromium)"),
    # One worker, so that one server and one browser serve all of them.
    pytest.mark.xdist_group("browser"),
]


@pytest.fixture(scope="module")
def studio():
    with browser.serving() as url:
        yield url


@pytest.fixture(scope="module")
def chromium():
    with browser.browsing() as one:
        yield one


@pytest.fixture(scope="module")
def page(studio, chromium):
    """The page, which never asks another machine for anything, nor complains."""
    context = chromium.new_context(
        viewport={"width": 1280, "height": 900}, permissions=["clipboard-read", "clipboard-write"]
    )
    page, elsewhere, errors = context.new_page(), [], []
    page.on("request", lambda r: None if r.url.startswith((studio, "data:", "blob:")) else elsewhere.append(r.url))
    page.on("pageerror", lambda e: errors.append(str(e)))
    page.goto(studio)
    page.wait_for_selector("#sample-run", timeout=60_000)
    yield page
    assert elsewhere == []
    assert errors == []


def fill(page, where, value):
    page.locator(f"#{where} input, #{where} textarea").first.fill(str(value))


def on_screen(page, where):
    """The pixels of a picture on the page."""
    data = page.locator(f"#{where} img.pixels").last.get_attribute("src").split(",")[1]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def pasted(page, tab, folder):
    """Press the copy button, and run what was copied as a program of its own."""
    page.locator(f"#{tab}-code button[title*='opy'], #{tab}-code button[aria-label*='opy']").first.click()
    code = page.evaluate("navigator.clipboard.readText()")
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + code
    return code


def download(page, where, folder):
    with page.expect_download() as waiting:
        page.locator(where).click()
    waiting.value.save_as(folder / waiting.value.suggested_filename)
    return folder / waiting.value.suggested_filename


def test_samples_appear_step_by_step_and_the_copied_code_gives_the_same_picture(page, tmp_path):
    browser.open_tab(page, "Sample")
    page.evaluate("""() => { window.seen = new Set(); new MutationObserver(() => {
        const image = document.querySelector("#sample-picture img"); if (image) window.seen.add(image.src); })
        .observe(document.querySelector("#sample-picture"), {subtree: true, childList: true, attributes: true}); }""")
    fill(page, "sample-steps", 6)
    fill(page, "sample-n", 4)
    fill(page, "sample-seed", 3)
    page.get_by_label("cfg", exact=True).check()
    page.wait_for_selector("#sample-cfg-scale")
    fill(page, "sample-cfg-scale", 2.5)
    page.click("#sample-run")
    assert "4 pictures, 12 evaluations each" in browser.finished(page, "sample")
    assert page.evaluate("window.seen.size") >= 3
    assert "order 2" in page.locator("#sample-plan").inner_text()
    assert page.locator("#sample-plan tr").count() == 7
    saved = download(page, "#sample-save", tmp_path)
    code = pasted(page, "sample", tmp_path / saved.parent)
    assert "CFG(scale=2.5)" in code
    assert np.array_equal(np.asarray(Image.open(tmp_path / "samples.png")), on_screen(page, "sample-picture"))
    page.get_by_label("cfg", exact=True).uncheck()


def test_the_downloaded_picture_carries_its_recipe(page, tmp_path):
    browser.open_tab(page, "Sample")
    fill(page, "sample-steps", 3)
    fill(page, "sample-n", 1)
    page.click("#sample-run")
    page.wait_for_selector("#sample-status .done:has-text('1 pictures')")
    page.wait_for_selector("#sample-save:not([disabled])")
    from fewstep.pictures import read_recipe

    assert read_recipe(str(download(page, "#sample-save", tmp_path)))["plan"]["source"]["solver"] == "dpm-solver++"


def test_too_large_a_request_is_refused(page):
    browser.open_tab(page, "Sample")
    fill(page, "sample-steps", 100000)
    page.click("#sample-run")
    said = browser.finished(page, "sample", "refused")
    assert said == "steps must be a whole number from 1 to 200 here, got 100000"
    fill(page, "sample-steps", 4)


def test_cancel_ends_a_run_of_steps_and_a_long_work(page):
    browser.open_tab(page, "Sample")
    fill(page, "sample-steps", 200)
    fill(page, "sample-n", 32)
    page.click("#sample-run")
    page.wait_for_selector("#sample-status .busy:has-text('step')")
    page.click("#sample-cancel")
    assert "stopped after step" in browser.finished(page, "sample", "stopped")
    browser.open_tab(page, "Tune")
    fill(page, "tune-noises", 256)
    page.click("#tune-run")
    page.wait_for_selector("#tune-status .busy:has-text('spent')")
    page.click("#tune-cancel")
    assert "stopped" in browser.finished(page, "tune", "stopped")


def test_compare_shows_errors_and_pictures_side_by_side(page, tiny):
    browser.open_tab(page, "Compare")
    fill(page, "compare-model", tiny)
    page.keyboard.press("Enter")
    fill(page, "compare-evaluations", "5, 8")
    fill(page, "compare-n", 2)
    page.click("#compare-run")
    assert "6 runs" in browser.finished(page, "compare")
    rows = page.locator("#compare-shown table.figures tr")
    assert rows.count() == 8
    mine = fewstep.compare(
        fewstep.load(tiny), ["ddim", "heun", "dpm-solver++"], [5, 8], n=2, cond={"label": [0, 1]}
    ).rows
    shown = [float(rows.nth(i + 1).locator("td").nth(2).inner_text()) for i in range(6)]
    assert shown == pytest.approx([row.error for row in mine], rel=0.01)
    assert page.locator("#compare-shown img.pixels").count() == 7
    assert page.locator("#compare-shown img.plot").count() == 1


def test_what_is_painted_over_is_filled_in(page, tmp_path):
    browser.open_tab(page, "Restore")
    page.get_by_label("what I paint").check()
    page.click("#restore-draw")
    page.wait_for_selector("#restore-status .idle:has-text('drawn by the model')")
    browser.paint(page, height=0.5)
    fill(page, "restore-n", 3)
    fill(page, "restore-evaluations", 6)
    page.click("#restore-run")
    assert "3 samples, 6 evaluations each" in browser.finished(page, "restore")
    for name in ("mask.png", "picture.png", "restored.png"):
        download(page, f"#restore-files a[download='{name}']", tmp_path)
    mask = np.asarray(Image.open(tmp_path / "mask.png"))
    assert mask.shape == (28, 28)
    assert (mask[13:15, 10:20] == 0).all()
    assert (mask[:8] == 255).all()
    assert (mask[20:] == 255).all()
    shown = np.asarray(Image.open(tmp_path / "restored.png"))
    (tmp_path / "restored.png").unlink()
    pasted(page, "restore", tmp_path)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "restored.png")), shown)


def test_an_upload_is_shown_and_degraded_and_no_picture_is_refused(page, tmp_path):
    browser.open_tab(page, "Restore")
    Image.new("RGB", (60, 50), (255, 255, 255)).save(tmp_path / "white.png")
    (tmp_path / "bad.png").write_bytes(b"no picture at all")
    chooser = page.locator("input[type=file]")
    chooser.set_input_files(str(tmp_path / "bad.png"))
    assert "not a picture that can be read" in browser.finished(page, "restore", "refused")
    chooser.set_input_files(str(tmp_path / "white.png"))
    page.wait_for_selector("#restore-status .idle:has-text('50×50 of 60×50')")
    page.get_by_label("a degradation").check()
    page.wait_for_selector("#restore-degrade")
    fill(page, "restore-n", 1)
    fill(page, "restore-evaluations", 4)
    page.click("#restore-run")
    assert "1 samples, 4 evaluations each" in browser.finished(page, "restore")
    assert on_screen(page, "restore-shown .shots figure:first-child").min() > 250


def test_a_tuned_plan_is_downloaded_and_is_a_plan(page, tiny, tmp_path):
    browser.open_tab(page, "Tune")
    fill(page, "tune-model", tiny)
    page.keyboard.press("Enter")
    fill(page, "tune-noises", 2)
    fill(page, "tune-n", 4)
    page.click("#tune-run")
    assert "tuned by gits" in browser.finished(page, "tune")
    plan = Plan.load(str(download(page, "#tune-save", tmp_path)))
    assert plan.evaluations == 4
    assert plan.source["tuned"]["method"] == "gits"


def test_a_method_is_looked_up_and_tried(page):
    browser.open_tab(page, "Catalogue")
    fill(page, "catalogue-search", "2302.04867 solvers")
    page.wait_for_selector("#catalogue-about h3:has-text('unipc')")
    about = page.locator("#catalogue-about").inner_text()
    assert "UniPC: A Unified Predictor-Corrector Framework" in about
    assert "verdict" in about
    page.click("#catalogue-try")
    page.wait_for_selector("#sample-run:visible")
    expect(page.locator("#sample-solver input")).to_have_value("unipc")


def test_another_name_for_this_machine_is_refused(studio):
    request = urllib.request.Request(studio, headers={"Host": "evil.example"})
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(request, timeout=10)


@pytest.mark.parametrize("width", [1280, 390])
def test_no_tab_is_wider_than_the_screen(studio, chromium, width):
    page = chromium.new_page(viewport={"width": width, "height": 900})
    page.goto(studio)
    page.wait_for_selector("#sample-run", timeout=60_000)
    for name in ("Sample", "Compare", "Restore", "Tune", "Catalogue"):
        browser.open_tab(page, name)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
    page.close()
