"""Serving the chat on this machine: port, queue, and a clean end."""

from __future__ import annotations

import errno
import socket
import time
from typing import TYPE_CHECKING

from app.errors import PortInUse, SettingsError
from app.settings import Settings

if TYPE_CHECKING:
    import gradio as gr

WAITING = 64  # questions that may wait in the queue; whoever comes later is told so


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


def serve(page: gr.Blocks, settings: Settings) -> None:
    """Serve ``page`` until Ctrl-C and print its address.

    Raises:
        PortInUse: when somebody took the port since it was checked.
    """
    from app.theme import CSS, theme

    page.queue(max_size=WAITING, default_concurrency_limit=1)
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
        )
    except OSError as error:
        raise PortInUse(f"Cannot serve on port {settings.port}: {error}.") from error
    shown = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
    print(f"Cirilla is at http://{shown}:{settings.port} (Ctrl-C stops it).", flush=True)
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        print("Stopped.")
    finally:
        page.close(verbose=False)
