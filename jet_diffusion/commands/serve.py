"""`jet-diffusion serve MODEL`."""

from __future__ import annotations

import socket
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from jet_diffusion.errors import UserError, require, require_least


@dataclass
class Options:
    """Open a page in the browser where jets of a model can be made, looked at and downloaded.

    The page is for this machine alone, unless you name another --host. Ctrl-C ends it.

    Attributes:
        model: A training run, a pipeline folder, or user/name on the Hub.
        jets: Jets to compare with: an HDF5 file, or a converted dataset, of which the test split is taken; the bundled
            simulated sample if you omit it.
        host: Address to listen at; 0.0.0.0 is for all machines of the network.
        port: Port to listen at.
        most_jets: Most jets that a visitor may ask for at once.
    """

    model: str
    jets: Path | None = None
    host: str = "127.0.0.1"
    port: int = 7860
    most_jets: int = 64

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        require_least(self, most_jets=1)
        if not 1 <= self.port <= 65535:
            raise UserError(f"--port must be 1 to 65535, got {self.port}")


def main(options: Options) -> None:
    """Load the model and serve the page until a signal."""
    require("gradio", "serve", "the page in a browser")
    require_free(options.host, options.port)
    sys.stdout.write("loading the model, about 15 s\n")
    sys.stdout.flush()
    from jet_diffusion.workflows.browser.jets import load_browser

    browser = load_browser(options.model, options.jets, options.most_jets)
    from jet_diffusion.workflows.browser.page import make_page

    page = make_page(browser)
    address = {"server_name": options.host, "server_port": options.port}
    try:
        page.launch(**address, share=False, prevent_thread_lock=True, quiet=True)
    except OSError as error:  # Gradio waits five seconds for its server, and then speaks of ports alone
        raise UserError(
            f"the page did not start at {options.host}:{options.port} within seconds: this machine is busy, or another "
            "program has just taken the port; try again, or give another --port"
        ) from error
    try:
        sys.stdout.write(f"open http://{options.host}:{options.port} in a browser; Ctrl-C ends\n")
        sys.stdout.flush()
        threading.Event().wait()
    finally:
        page.close(verbose=False)


def require_free(host: str, port: int) -> None:
    """Refuse an address at which nothing can listen.

    Raises:
        UserError: Saying why.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UserError(
                f"cannot listen at {host}:{port} ({error.strerror or error}); give another --port or --host"
            ) from error
