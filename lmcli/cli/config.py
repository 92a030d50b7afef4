"""``--config FILE.toml``: defaults of a command's options.

**In:** a TOML file: options by name, or tables of them by command.
**Out:** the command's map of defaults; options that no command has are an error.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import typer

from lmcli.errors import TextError, UsageError, did_you_mean


def read_config(ctx: typer.Context, path: Path | None) -> Path | None:
    """Make a TOML file's values the defaults of this command; an unknown key is a UsageError."""
    if path is None:
        return None
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TextError(
            f"cannot read config '{path}': {(error.strerror or 'no such file').lower()}",
            "check the path given to --config",
        ) from None
    except (ValueError, RecursionError) as error:
        reason = str(error).partition(";")[0]
        raise UsageError(f"config '{path}': {reason}", "a line of it: minutes = 3") from None
    command = ctx.info_name or ""
    known = _options(ctx)
    defaults: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict) and key in _commands(ctx):
            if key == command:
                defaults |= {k: _checked(k, v, known, path) for k, v in value.items()}
        else:
            everywhere = set().union(known, *(_options(c) for c in _siblings(ctx)))
            checked = _checked(key, value, everywhere, path)
            if key.replace("-", "_") in {k.replace("-", "_") for k in known}:
                defaults.setdefault(key, checked)
    names = _parameters(ctx)
    ctx.default_map = {names[k.replace("-", "_")]: v for k, v in defaults.items()}
    return path


def _checked(key: str, value: Any, known: set[str], path: Path) -> Any:
    names = {k.replace("-", "_") for k in known}
    if key.replace("-", "_") not in names:
        raise UsageError(f"config '{path}': no option named '{key}'", did_you_mean(key, known))
    if isinstance(value, dict):  # [set] as a table
        return [f"{k}={v}" for k, v in value.items()]
    return value


def _parameters(ctx: Any) -> dict[str, str]:
    """Long flag with underscores -> parameter name."""
    found = {}
    for param in ctx.command.params:
        for flag in param.opts:
            if flag.startswith("--"):
                found[flag[2:].replace("-", "_")] = param.name
    return found


def _options(ctx: Any) -> set[str]:
    flags = (flag for param in ctx.command.params for flag in param.opts)
    return {f[2:] for f in flags if f.startswith("--") and f not in ("--help", "--config")}


def _commands(ctx: Any) -> set[str]:
    return set(ctx.parent.command.commands) if ctx.parent else set()


class _Sibling:
    def __init__(self, command: Any) -> None:
        self.command = command


def _siblings(ctx: Any) -> list[_Sibling]:
    return [_Sibling(c) for c in ctx.parent.command.commands.values()] if ctx.parent else []
