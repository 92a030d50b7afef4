"""What an ``F.about.json`` may say, as far as anything reads it; a grammar may add more.

**In:** the object in the file, which may be a stranger's.
**Out:** nothing, or a ValueError that names the first field that it cannot have.
"""

from __future__ import annotations

from typing import Any

from lmcli.json_checks import (
    fields,
    file_name,
    list_of,
    mapping_of,
    name,
    number,
    optional,
    pair,
    whole,
    whole_text,
)

_figures = fields(
    {},
    dict.fromkeys(("nats_per_document", "bits_per_char"), number(0))
    | {
        "perplexity": number(1),
        "tokens_per_document": number(0),
        "characters_per_document": number(0),
    },
)
_ABOUT = fields(
    {"recipe": fields({"grammar": name})},
    {
        "sha256": optional(name),
        "unit": name,
        "tokenizer": name,
        "min_count": optional(whole(1)),
        "gaps": list_of(whole()),
        "order_free": mapping_of(number(0, 1), keys=whole_text),
        "facts": fields({}, {"pairs": list_of(pair)}),
        "optimum": _figures,
        "amnesic": _figures,
        "items": mapping_of(whole()),
        "filler": fields({}, {"texts": list_of(file_name), "times_used": number(0)}),
    },
)


def check_about(about: Any) -> None:
    """Raise a ValueError for a field of another type or out of range."""
    _ABOUT(about, "")
