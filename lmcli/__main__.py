"""``python -m lmcli`` and the ``lmcli`` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; Ctrl-C while it is still loading is silent as well."""
    try:
        from lmcli.cli import app

        app(prog_name="lmcli")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
