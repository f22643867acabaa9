"""What the HTML pages that we write share."""

from html import escape

STYLE = """
:root{color-scheme:light dark}
body{font:16px/1.6 system-ui,sans-serif;max-width:64rem;margin:2.5rem auto;padding:0 1.2rem}
h1{font-size:2.1rem;line-height:1.2;margin-bottom:.3rem}h2{margin-top:2.6rem}
.lead{font-size:1.1rem;opacity:.8}figure{margin:1rem 0}figcaption{font-size:.88rem;opacity:.75}
img{max-width:100%;border-radius:6px}img.pixels{image-rendering:pixelated;background:#000}
img.plot{background:#fff;padding:.4rem}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}td,th{padding:.25rem .9rem .25rem 0;text-align:right}
th{border-bottom:1px solid #8888}td:first-child,th:first-child{text-align:left}
code{background:#8882;padding:.1rem .3rem;border-radius:4px}
pre{background:#8882;padding:.8rem 1rem;border-radius:6px;overflow-x:auto}
"""


def head(title: str, style: str = "", script: str = "") -> str:
    """How a page begins: readable on a phone and a wide screen, light and dark.

    Args:
        title: its title.
        style: rules beside those of all pages.
        script: JavaScript to run first.
    """
    scripts = f"<script>{script}</script>" if script else ""
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}{style}</style>{scripts}"
    )
