"""Who may talk to the studio: a door before the page that every request passes.

- On loopback only requests that name this machine are let in, so that no other page can reach the studio under a name
  of its own (DNS rebinding); and none that a page of another origin sends.
- With a token, a visitor shows it once, in the address (?token=…) or in the form that is shown instead of the page, and
  gets a cookie for this run of the server.
- Every answer tells the browser to fetch nothing from anywhere else.
"""

import hashlib
import hmac
import secrets
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

from fewstep.errors import ArgumentError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

SHORTEST = 16
LOOPBACK = ("127.0.0.1", "localhost", "::1")
# A form with a token is a few bytes; more is not read.
FORM = 4096
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
    "media-src 'self' data: blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = [
    (b"content-security-policy", POLICY.encode()), (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
]  # fmt: skip
FORM_PAGE = """<!doctype html><html lang=en><meta charset=utf-8>
<meta name=viewport content="width=device-width, initial-scale=1"><title>fewstep studio</title>
<style>:root{color-scheme:light dark}body{font:17px/1.6 system-ui,sans-serif;max-width:26rem;margin:18vh auto;
padding:0 1.2rem}input,button{font:inherit;padding:.5rem .7rem;width:100%;box-sizing:border-box;margin:.3rem 0}</style>
<h1>fewstep studio</h1><form method=post action="/enter">
<label>The token that this studio was started with<input name=token type=password autofocus required></label>
<button>Enter</button></form>"""


def checked_token(host: str, token: str) -> str:
    """The token, where the host needs none or it is long enough.

    Raises:
        ArgumentError: the studio would be reached from other machines without a token, or the token is short.
    """
    if not token and host not in LOOPBACK:
        raise ArgumentError(
            f"host {host!r} can be reached from other machines, so the studio needs --share-token (or the variable "
            f"FEWSTEP_SHARE_TOKEN) of at least {SHORTEST} characters, such as {secrets.token_urlsafe(18)}"
        )
    if token and len(token) < SHORTEST:
        raise ArgumentError(f"a share token has at least {SHORTEST} characters, got {len(token)}")
    return token


class Guard:
    """The door.

    Args:
        app: what is behind it.
        token: what visitors must show; empty for none.
        hosts: the names by which the studio may be called; None for any.
        cookie: the cookie's name; cookies do not know ports, so two studios need two.
    """

    def __init__(self, app: App, token: str, hosts: Iterable[str] | None, cookie: str = "fewstep-studio") -> None:
        self.app, self.token = app, token
        self.hosts = None if hosts is None else frozenset(hosts)
        self.cookie = cookie
        # What the cookie holds is worth nothing to another run, and does not tell the token.
        self._pass = hmac.new(secrets.token_bytes(32), token.encode(), hashlib.sha256).hexdigest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer it here."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope.get("headers", [])}
        refusal = self._refusal(headers)
        if scope["type"] != "http" or refusal:
            await _answer(send, 403, refusal or "the studio speaks HTTP only")
        elif self.token and scope["path"] == "/enter" and scope["method"] == "POST":
            await self._enter(send, await _form(receive))
        elif self.token and "token" in (query := parse_qs(scope.get("query_string", b"").decode("latin-1"))):
            await self._enter(send, query["token"][0])
        elif self.token and not self._known(headers.get("cookie", "")):
            await _answer(send, 401, FORM_PAGE, "text/html; charset=utf-8")
        else:
            await self.app(scope, receive, _with_headers(send))

    def _refusal(self, headers: dict[str, str]) -> str:
        host, origin = headers.get("host", ""), headers.get("origin")
        try:
            name = urlsplit(f"//{host}").hostname or ""
            other = origin is not None and urlsplit(origin).netloc != host
        except ValueError:
            return "this is no address"
        if self.hosts is not None and name not in self.hosts:
            return "this studio answers on this machine only"
        return "this studio answers no other page" if other else ""

    def _known(self, cookies: str) -> bool:
        try:
            found = SimpleCookie(cookies).get(self.cookie)
        except CookieError:
            return False
        return found is not None and hmac.compare_digest(found.value.encode(), self._pass.encode())

    async def _enter(self, send: Send, token: str) -> None:
        if not hmac.compare_digest(token.encode(), self.token.encode()):
            await _answer(send, 401, FORM_PAGE, "text/html; charset=utf-8")
            return
        cookie = f"{self.cookie}={self._pass}; Path=/; HttpOnly; SameSite=Strict"
        await _answer(send, 303, "", extra=[(b"location", b"/"), (b"set-cookie", cookie.encode())])


async def _form(receive: Receive) -> str:
    """The token in a form that was sent."""
    body = b""
    while len(body) <= FORM:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    return parse_qs(body[:FORM].decode("latin-1")).get("token", [""])[0]


async def _answer(
    send: Send, status: int, text: str, kind: str = "text/plain; charset=utf-8",
    extra: list[tuple[bytes, bytes]] | None = None,
) -> None:  # fmt: skip
    headers = [(b"content-type", kind.encode()), (b"cache-control", b"no-store"), *HEADERS, *(extra or [])]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})


def _with_headers(send: Send) -> Send:
    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *HEADERS]}
        await send(message)

    return sending
