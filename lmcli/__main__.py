"""``python -m lmcli`` and the ``lmcli`` command."""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
    from lmcli.cli import app

    app(prog_name="lmcli")


if __name__ == "__main__":
    main()
