"""Serving the chat on this machine: port, queue, and a clean end."""

from __future__ import annotations

import errno
import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.errors import PortInUse, SettingsError
from app.settings import Settings

if TYPE_CHECKING:
    import gradio as gr

SPARE_THREADS = 40  # for everything that is no question: page loads, feedback, the archive


def check_port(host: str, port: int) -> None:
    """Whether the chat can listen there.

    Raises:
        PortInUse: another program listens there.
        SettingsError: the address is none of this machine's, or the port needs a privilege.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port just left is free
            probe.bind((host, port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(f"Port {port} on {host} is in use: stop the other program or choose --port.") from None
        raise SettingsError(f"Cannot listen on {host}, port {port}: {error.strerror or error}.") from None


def keep_files_in(data: Path) -> None:
    """Have the libraries keep what they write in the data folder; call it before they are imported."""
    folder = data.absolute()
    for name, place in (
        ("GRADIO_TEMP_DIR", folder / "gradio"),
        ("MPLCONFIGDIR", folder / "gradio" / "matplotlib"),  # where there is one, Gradio imports it
        ("TORCHINDUCTOR_CACHE_DIR", folder / "torch"),
    ):
        os.environ.setdefault(name, str(place))


class BodyLimit:
    """ASGI middleware that refuses requests with more than ``most`` bytes, before they are read into memory."""

    def __init__(self, app: Any, most: int) -> None:
        self.app, self.most = app, most

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        from starlette.exceptions import HTTPException
        from starlette.responses import PlainTextResponse

        refusal = f"The request is too large: {self.most:,} bytes are the most."
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self.most:
            await PlainTextResponse(refusal, 413)(scope, receive, send)
            return
        read = 0

        async def counted() -> Any:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self.most:  # sent in chunks, without a length
                raise HTTPException(413, refusal)
            return message

        await self.app(scope, counted, send)


def launch(page: gr.Blocks, settings: Settings) -> None:
    """Serve ``page`` from a thread of its own; ``page.close()`` ends it.

    Raises:
        PortInUse: when somebody took the port since it was checked.
    """
    from starlette.middleware import Middleware

    from app.theme import CSS, theme

    # Gradio would sum up all its events in a table of pandas after each one, for a monitor that is switched off.
    os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", "1000000000")
    # Questions wait in app.limits, which tells them their place; Gradio's queue only has to let them through to it.
    page.queue(max_size=2 * settings.waiting, default_concurrency_limit=1)
    try:
        page.launch(
            server_name=settings.host,
            server_port=settings.port,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            ssr_mode=False,
            theme=theme(),
            css=CSS,
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            max_file_size="1kb",  # nothing is uploaded here
            show_error=False,
            max_threads=settings.waiting + SPARE_THREADS,  # each waiting question sleeps in one
            app_kwargs={"middleware": [Middleware(BodyLimit, settings.request_limit)]},
        )
    except OSError as error:
        raise PortInUse(f"Cannot serve on port {settings.port}: {error}.") from error


def serve(page: gr.Blocks, settings: Settings) -> None:
    """Serve ``page`` until Ctrl-C and print its address.

    Raises:
        PortInUse: when somebody took the port since it was checked.
    """
    launch(page, settings)
    shown = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
    print(f"Cirilla is at http://{shown}:{settings.port} (Ctrl-C stops it).", flush=True)
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        print("Stopped.")
    finally:
        page.close(verbose=False)
