"""``lmcli serve``: a page in the browser, and an interface for programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lmcli.cli import options as o

if TYPE_CHECKING:
    from lmcli.web.server import Address


def serve(
    runs: Annotated[
        list[Path] | None,
        o.argument("RUN...", "Trained runs, or folders of them."),
    ] = None,
    port: Annotated[
        int, o.option("--port", about="0 takes a free one.", min=0, max=65535, metavar="N")
    ] = 8000,
    open_page: Annotated[
        bool, o.option("--open/--no-open", about="Open the page in a browser.")
    ] = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    config: o.Config = None,
) -> None:
    """See runs side by side on a page: type, and watch what each expects next.

    The page is for this computer only (127.0.0.1). Without RUN it shows all runs below runs/.
    Ctrl-C ends it. Programs ask the same address; OpenAI's clients work with ADDRESS/v1.

    [bold]Examples[/]

      lmcli serve runs/lstm runs/rnn

      lmcli serve runs/demo --open          (the runs of a demo or a comparison)

      lmcli serve --port 0                  (any free port)
    """
    from lmcli.cli.console import emit_json, note, show_message
    from lmcli.web.server import serve

    def on_start(address: Address) -> None:
        if as_json:
            emit_json(address.to_json())
        else:
            many = f"{len(address.runs)} runs" if len(address.runs) > 1 else address.runs[0]
            note(address.url if quiet else f"{address.url}   ({many}; Ctrl-C ends it)")
        if open_page:
            typer.launch(address.url)

    serve(runs or [], port, on_start, show_message)
