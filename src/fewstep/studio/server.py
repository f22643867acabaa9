"""The studio's server: it binds to this machine, to others only behind a token, and fetches nothing from anywhere."""

import os
from collections.abc import Callable
from typing import Any

from fewstep.errors import ArgumentError, require
from fewstep.studio.bounds import UPLOAD_BYTES
from fewstep.studio.guard import LOOPBACK, Guard, checked_token
from fewstep.studio.uploads import only_pictures


def gradio() -> Any:
    """The library of the page, which tells nobody that it is used.

    Raises:
        MissingExtraError: it is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    try:
        import gradio
    except ImportError as error:
        raise require("gradio", "studio") from error
    return gradio


def made_app(host: str, port: int, token: str) -> Any:
    """The whole application behind its door."""
    gr = gradio()
    from fastapi import FastAPI

    from fewstep.studio.page import built, dressed

    only_pictures()
    # Everybody's work waits in one line, which is not endless.
    page = built().queue(max_size=32)
    app = gr.mount_gradio_app(
        FastAPI(docs_url=None, redoc_url=None, openapi_url=None), page, path="/", server_name=host, server_port=port,
        footer_links=[], run_history=False, ssr_mode=False, max_file_size=UPLOAD_BYTES, show_error=True, pwa=False,
        mcp_server=False, enable_monitoring=False, **dressed(),
    )  # fmt: skip
    return Guard(app, token, None if token else LOOPBACK, f"fewstep-studio-{port}")


def serve(
    host: str = "127.0.0.1", port: int = 7860, token: str = "", tell: Callable[[str], None] = lambda line: None
) -> None:
    """Serve the studio until it is interrupted.

    Args:
        host: where it can be reached; anything but this machine needs a token.
        port: 1 … 65535.
        token: what visitors must show, at least 16 characters; empty for none.
        tell: called with a line when it begins and when it can be opened.

    Raises:
        ArgumentError: another machine could reach it without a token, or the port is taken or none.
        MissingExtraError: gradio is not installed.
    """
    token = checked_token(host, token)
    if not 1 <= port <= 65535:
        raise ArgumentError(f"port must lie in 1 … 65535, got {port}")
    _free(host, port)
    tell("the studio begins; this takes a few seconds")
    app = made_app(host, port, token)
    tell(f"open http://{f'[{host}]' if ':' in host else host}:{port} in a browser; end the studio with Ctrl+C")
    import uvicorn

    uvicorn.run(app, host=host, port=port, log_level="warning", server_header=False, timeout_graceful_shutdown=2)


def _free(host: str, port: int) -> None:
    """Refuse a port that is taken before the page is built."""
    import socket

    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(address)
    except OSError as error:
        raise ArgumentError(f"cannot serve on {host}, port {port}: {error.strerror}; choose another --port") from error
