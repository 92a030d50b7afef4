"""The options of a long help text in groups, by what they are about.

**In:** a command.
**Out:** the same; where it has many options, all but the main ones are in panels with a title.
"""

from __future__ import annotations

from typing import Any

MANY = 12
"""options: fewer are one list"""
PANELS = {
    "Reading and holding out text": (
        *("--valid", "--test", "--split", "--rotation", "--documents", "--newlines"),
        *("--encoding", "--errors"),
    ),
    "How to choose tokens": ("--temperature", "--top-k", "--top-p", "--min-p"),
    "Sentences of a text of your own (france)": ("--filler", "--facts", "--pairs", "--frame"),
    "Computer": ("--device", "--workers", "--jobs"),
    "The run's folder": ("--resume", "--force", "--slim", "--run"),
    "What is shown": (
        *("--samples", "--tensorboard", "--plan", "--probe", "--json", "--html", "--png", "--csv"),
        *("--quiet", "--verbose"),
    ),
    "Repeating it": ("--seed", "--seeds", "--config"),
}


def arrange(command: Any) -> None:
    """Give each option of a long command its panel."""
    options = [param for param in command.params if param.param_type_name == "option"]
    if len(options) < MANY:
        return
    panels = {flag: title for title, flags in PANELS.items() for flag in flags}
    for option in options:
        option.rich_help_panel = next((panels[f] for f in option.opts if f in panels), None)
