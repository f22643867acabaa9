"""Who is let in, what may be uploaded, and what the catalogue tells."""

import asyncio
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewstep.catalog import methods
from fewstep.errors import ArgumentError, MissingExtraError
from fewstep.measured import claims
from fewstep.studio.guard import LOOPBACK, Guard, checked_token
from fewstep.studio.models import Model
from fewstep.studio.uploads import UPLOAD_BYTES, picture_of
from fewstep.studio.work.looking_up import equation_of, found, method_html, method_named, tried_in
from fewstep.studio.work.mending import prepared

TOKEN = "correct horse battery"


async def _inside(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"inside"})


def asked(guard, path="/", query="", method="GET", body=b"", **headers):
    """(status, headers, body) of a request at the door."""
    sent = []

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    given = {"host": "127.0.0.1:7860", **headers}
    scope = {
        "type": "http", "path": path, "query_string": query.encode(), "method": method,
        "headers": [(k.encode(), v.encode()) for k, v in given.items()],
    }  # fmt: skip
    asyncio.run(guard(scope, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"].decode()


def test_only_this_machine_reaches_a_studio_without_a_token():
    guard = Guard(_inside, "", LOOPBACK)
    assert asked(guard)[0] == 200
    assert asked(guard, host="localhost:7860")[0] == asked(guard, host="[::1]:7860")[0] == 200
    assert asked(guard, host="evil.example:7860")[0] == 403
    assert asked(guard, origin="http://evil.example")[0] == 403
    assert asked(guard, origin="null")[0] == 403
    assert asked(guard, host="[")[0] == 403
    assert asked(guard, origin="http://[")[0] == 403
    assert asked(guard, origin="http://127.0.0.1:7860")[0] == 200


def test_the_browser_is_told_to_fetch_nothing_from_elsewhere():
    policy = asked(Guard(_inside, "", LOOPBACK))[1][b"content-security-policy"].decode()
    assert "default-src 'self'" in policy
    assert "http" not in policy


def test_a_token_is_asked_for_and_a_cookie_keeps_it():
    guard = Guard(_inside, TOKEN, None)
    assert asked(guard)[0] == asked(guard, "/gradio_api/info")[0] == asked(guard, query="token=wrong")[0] == 401
    assert "inside" not in asked(guard)[2]
    assert asked(guard, cookie="fewstep-studio=wrong")[0] == 401
    status, headers, _ = asked(guard, query="token=correct+horse+battery")
    assert (status, headers[b"location"]) == (303, b"/")
    cookie = headers[b"set-cookie"].decode()
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert TOKEN not in cookie
    shown = cookie.split(";")[0]
    assert asked(guard, cookie=shown)[0] == 200
    assert asked(Guard(_inside, TOKEN, None), cookie=shown)[0] == 401, "another run of the server has another cookie"
    assert asked(guard, "/enter", method="POST", body=b"token=correct+horse+battery")[0] == 303
    assert asked(guard, "/enter", method="POST", body=b"token=x")[0] == 401


@pytest.mark.parametrize(("host", "token"), [("0.0.0.0", ""), ("192.168.1.5", ""), ("::", ""), ("127.0.0.1", "short")])
def test_other_machines_need_a_token_and_a_long_one(host, token):
    with pytest.raises(ArgumentError, match=r"share.token"):
        checked_token(host, token)
    assert checked_token("0.0.0.0", TOKEN) == TOKEN


def test_the_command_refuses_before_it_loads_anything():
    fewstep = Path(sys.executable).with_name("fewstep")
    done = subprocess.run([fewstep, "studio", "--host", "0.0.0.0"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "needs --share-token" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_gradio_the_extra_is_named(monkeypatch):
    from fewstep.studio.server import gradio

    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'fewstep\[studio\]'"):
        gradio()


def _png(width, height):
    """A PNG of a few bytes that says it is of this size."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"not a picture", "not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
        (_png(20_000, 20_000), "at most 16,777,216 pixels"),
        (_png(2**31 - 1, 2**31 - 1), "at most 16,777,216 pixels"),
        (_png(100, 100), "not a picture"),
        (b"\x89PNG\r\n\x1a\n", "not a picture"),
        (b"\0" * (UPLOAD_BYTES + 1), "at most 8 MB"),
    ],
    ids=["text", "postscript", "svg", "bomb", "larger bomb", "cut short", "empty", "many bytes"],
)
def test_what_is_no_picture_or_too_large_is_refused(data, said, tmp_path):
    (tmp_path / "upload.png").write_bytes(data)
    with pytest.raises(ArgumentError, match=said):
        picture_of(tmp_path / "upload.png")


def test_pictures_come_in_turned_and_on_white(tmp_path):
    image = Image.new("RGBA", (4, 2), (0, 0, 0, 0))
    image.putpixel((0, 0), (255, 0, 0, 255))
    exif = Image.Exif()
    exif[274] = 6  # to be turned to the right
    image.save(tmp_path / "a.png", exif=exif)
    got = np.asarray(picture_of(tmp_path / "a.png"))
    assert got.shape == (4, 2, 3)
    assert got[0, 1].tolist() == [255, 0, 0]
    assert got[3, 0].tolist() == [255, 255, 255]


def test_an_upload_is_fitted_to_the_model(tmp_path):
    grey = np.zeros((60, 90, 3), np.uint8)
    grey[:, 15:75] = 200
    Image.fromarray(grey).save(tmp_path / "a.jpg", quality=95)
    file, done = prepared(tmp_path / "a.jpg", Model("mnist"), tmp_path)
    got = np.asarray(Image.open(file))
    assert got.shape == (28, 28)
    assert np.abs(got.astype(int) - 200).max() < 12, "the middle square is what stays"
    assert "60×60 of 90×60" in done


def test_only_pictures_can_be_opened_in_the_studios_process(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.eps")
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    code = (
        "from PIL import Image; from fewstep.studio.uploads import only_pictures; only_pictures(); "
        "Image.open('a.png').load()\ntry: Image.open('a.eps')\nexcept Image.UnidentifiedImageError: print('refused')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "refused\n"


def test_search_finds_by_name_paper_and_number():
    assert found("unipc")[0].name == "unipc"
    assert "ddim" in [m.name for m in found("denoising implicit models")]
    assert [m.name for m in found("2302.04867", "solvers")] == ["unipc"]
    assert found("no such thing at all") == []
    assert len(found("")) == len(methods())


def test_the_catalogue_tells_paper_equation_claim_and_our_figure():
    claim = next(c for c in claims() if c.method == "unipc")
    page = method_html(method_named("unipc"))
    for part in ("UniPC: A Unified", "arxiv.org/abs/2302.04867", "UniC-p", "holds"):
        assert part in page
    assert claim.figure.split("<")[0][:40] in page
    assert "x′" in equation_of(method_named("unipc"))
    assert sum(bool(equation_of(m)) for m in methods()) > 0.8 * len(methods())


def test_every_method_has_a_page_and_says_where_it_can_be_tried():
    for m in methods():
        assert tried_in(m) or "Python" in method_html(m)
    assert [tried_in(method_named(n)) for n in ("heun", "cfg", "dps", "gits")] == [
        "sample",
        "sample",
        "restore",
        "tune",
    ]
    assert tried_in(method_named("factorized")) == ""
