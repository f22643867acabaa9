"""A canvas of the model's own pixels on which a visitor paints what is missing.

Its value is {"picture": a data address, "width", "height", "bits": "0" and "1" row after row, 1 where it was painted}.
"""

import base64
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

EMPTY = {"picture": "", "width": 1, "height": 1, "bits": ""}
TEMPLATE = """<div class="painter"><canvas aria-label="the picture, to be painted on"></canvas>
<div class="tools"><label>brush <input type="range" min="1" max="9" value="3" aria-label="size of the brush"></label>
<label><input type="checkbox"> erase</label><button type="button">clear</button></div></div>"""
SCRIPT = """
const mine = {picture: null, image: null, width: 1, height: 1, bits: [], size: 3, erase: false, last: null};
const overlay = document.createElement("canvas");
function draw() {
  const canvas = element.querySelector("canvas");
  if (!canvas) return;
  if (canvas.width !== mine.width || canvas.height !== mine.height) {
    canvas.width = mine.width; canvas.height = mine.height;
  }
  const to = canvas.getContext("2d");
  to.imageSmoothingEnabled = false;
  to.clearRect(0, 0, mine.width, mine.height);
  if (mine.image) to.drawImage(mine.image, 0, 0, mine.width, mine.height);
  overlay.width = mine.width; overlay.height = mine.height;
  const over = overlay.getContext("2d"), dots = over.createImageData(mine.width, mine.height);
  mine.bits.forEach((bit, i) => { if (bit) dots.data.set([235, 70, 40, 190], 4 * i); });
  over.putImageData(dots, 0, 0);
  to.drawImage(overlay, 0, 0);
  element.querySelector("input[type=range]").value = mine.size;
  element.querySelector("input[type=checkbox]").checked = mine.erase;
}
function load() {
  const given = props.value || {};
  if (given.picture === mine.picture) { draw(); return; }
  mine.picture = given.picture; mine.width = given.width || 1; mine.height = given.height || 1;
  mine.bits = new Array(mine.width * mine.height).fill(0); mine.image = null;
  if (given.picture) {
    const image = new Image();
    image.onload = () => { mine.image = image; draw(); };
    image.src = given.picture;
  }
  draw();
}
function dot(x, y) {
  const r = mine.size / 2;
  for (let j = Math.floor(y - r); j <= y + r; j++) for (let i = Math.floor(x - r); i <= x + r; i++) {
    const inside = (i + .5 - x) ** 2 + (j + .5 - y) ** 2 <= r * r || (Math.floor(x) === i && Math.floor(y) === j);
    if (inside && i >= 0 && j >= 0 && i < mine.width && j < mine.height)
      mine.bits[j * mine.width + i] = mine.erase ? 0 : 1;
  }
}
function place(e) {
  const box = element.querySelector("canvas").getBoundingClientRect();
  return [(e.clientX - box.left) / box.width * mine.width, (e.clientY - box.top) / box.height * mine.height];
}
function stroke(e) {
  const [x, y] = place(e), [a, b] = mine.last || [x, y], far = Math.max(Math.abs(x - a), Math.abs(y - b));
  for (let k = 0, n = Math.ceil(2 * far) || 1; k <= n; k++) dot(a + (x - a) * k / n, b + (y - b) * k / n);
  mine.last = [x, y];
  draw();
}
function tell() { props.value = {...props.value, bits: mine.bits.join("")}; }
element.addEventListener("pointerdown", (e) => {
  if (e.target.tagName !== "CANVAS") return;
  e.preventDefault(); mine.last = null; mine.painting = true; stroke(e);
});
window.addEventListener("pointermove", (e) => { if (mine.painting) stroke(e); });
window.addEventListener("pointerup", () => { if (mine.painting) { mine.painting = false; tell(); } });
window.addEventListener("pointercancel", () => { if (mine.painting) { mine.painting = false; tell(); } });
element.addEventListener("input", (e) => {
  if (e.target.type === "range") mine.size = Number(e.target.value);
  if (e.target.type === "checkbox") mine.erase = e.target.checked;
});
element.addEventListener("click", (e) => {
  if (e.target.tagName === "BUTTON") { mine.bits.fill(0); draw(); tell(); }
});
watch("value", load);
load();
"""


def painter(where: str) -> Any:
    """The canvas, empty."""
    return gr.HTML(
        EMPTY, html_template=TEMPLATE, js_on_load=SCRIPT, elem_id=where, label="paint what is to be filled in",
        apply_default_css=False,
    )  # fmt: skip


def canvas_of(file: Path) -> dict[str, Any]:
    """What the canvas shows for a picture, nothing painted on it yet."""
    with Image.open(file) as image:
        width, height = image.size
    data = base64.b64encode(file.read_bytes()).decode()
    return {"picture": f"data:image/png;base64,{data}", "width": width, "height": height, "bits": ""}
