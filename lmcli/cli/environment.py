"""Environment variables that look like options of lmcli and are none.

**In:** the environment, the commands.
**Out:** a warning for each LMCLI_ variable that no command reads, with the nearest one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from lmcli.cli.console import warn
from lmcli.errors import did_you_mean

PREFIX = "LMCLI_"
OTHERS = {"LMCLI_CACHE"}
"""read elsewhere than by an option"""


def warn_of_unknown_variables(commands: Mapping[str, Any], name: str) -> None:
    """Other commands are imported only where the one called does not know all variables."""
    given = {v for v in os.environ if v.startswith(PREFIX)} - OTHERS
    if given and name in commands:
        given -= _variables(commands[name])
    if not given:
        return
    known = set(OTHERS).union(*(_variables(commands[other]) for other in commands))
    for variable in sorted(given - known):
        near = did_you_mean(variable, known)
        hint = near if near.startswith("did") else "lmcli COMMAND --help shows the options"
        warn(f"no option reads the variable {variable}; {hint}")


def _variables(command: Any) -> set[str]:
    """Those that the options of a command read."""
    found: set[str] = set()
    for option in command.params:
        names = option.envvar or ()
        found |= {names} if isinstance(names, str) else {*names}
    return found
