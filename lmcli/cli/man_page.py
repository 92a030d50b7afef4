"""The manual page, made from the help of the commands: ``lmcli --man > docs/lmcli.1``.

**In:** the commands with their options.
**Out:** a page in the roff of man(7), which the wheel installs as share/man/man1/lmcli.1.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

from lmcli import __version__

EXAMPLE = re.compile(r"(lmcli|echo|sh|tr|sbatch|torchrun) ")


def man_page(group: Any) -> str:
    """The whole page."""
    about, *more = _paragraphs(group.help)
    lines = [
        f'.TH LMCLI 1 "" "lmcli {__version__}" "User Commands"',
        *(".SH NAME", f"lmcli \\- {_text(about[:1].lower() + about[1:]).rstrip('.')}"),
        *(".SH SYNOPSIS", ".B lmcli", r"\fICOMMAND\fR [\fIARGUMENT\fR]... [\fIOPTION\fR]..."),
        ".SH DESCRIPTION",
        *(line for paragraph in more for line in (".PP", _text(paragraph))),
        *(".PP", _text(PRECEDENCE)),
        ".SH COMMANDS",
    ]
    for name in group.commands:
        lines += _command(name, group.commands[name])
    lines += [".SH ENVIRONMENT", ".TP", _bold("LMCLI_CACHE"), _text(CACHE)]
    lines += [".SH EXIT STATUS", *(_item(_bold(code), said) for code, said in EXIT_CODES)]
    return "\n".join(lines) + "\n"


PRECEDENCE = (
    "Every option but --force can also be given by the environment, as LMCLI_NAME or "
    "LMCLI_COMMAND_NAME, or by a TOML file (--config). A flag goes before the environment, which "
    "goes before the file."
)
CACHE = "Folder of token ids that were computed before; by default ~/.cache/lmcli."
EXIT_CODES = (
    ("0", "Done."),
    ("1", "A problem that you can solve: two lines on stderr say what it is and what to try."),
    ("2", "The command line does not fit."),
    ("130", "Stopped by Ctrl-C, after saving."),
)


def _command(name: str, command: Any) -> Iterator[str]:
    """Name, what it does, examples, options."""
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    takes = _text(" ".join(p.metavar or p.name.upper() for p in arguments))
    yield f'.SS "lmcli {name} {takes} [OPTION]..."'
    for paragraph in _paragraphs(command.help):
        heading = re.fullmatch(r"\[bold\](.*)\[/\]", paragraph)
        yield ".br" if EXAMPLE.match(paragraph) else ".PP"
        yield _text(paragraph) + (":" if heading else "")
    for param in command.params:
        if param.param_type_name == "option" and not param.hidden:
            flags = ", ".join(_bold(flag) for flag in (*param.opts, *param.secondary_opts))
            takes = "" if param.is_flag else f" \\fI{_text(param.metavar or 'VALUE')}\\fR"
            yield _item(flags + takes, param.help or "")


def _item(head: str, text: str) -> str:
    return f".TP\n{head}\n{_text(text)}"


def _bold(text: str) -> str:
    return f"\\fB{_text(text)}\\fR"


def _paragraphs(text: str) -> list[str]:
    """The paragraphs of a help text, each on one line."""
    return [" ".join(p.split()) for p in inspect.cleandoc(text).split("\n\n") if p.strip()]


def _text(text: str) -> str:
    """A text without rich's marks, in which nothing is a command of roff."""
    plain = re.sub(r"(?<!\\)\[/?[a-z ]*\]", "", " ".join(text.split())).replace("\\[", "[")
    plain = plain.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + plain if plain.startswith((".", "'")) else plain
