"""What the JSON files of a run say, and what each of their fields may be.

**In:** the object in run.json, in results/train.json or in a checkpoint.
**Out:** a `Record`; an object whose fields are missing, of another type or out of range is a
ValueError. A run may come from a stranger: nothing is used before it has passed here.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from lmcli import __version__
from lmcli.json_checks import (
    anything,
    fields,
    file_name,
    list_of,
    mapping_of,
    name,
    number,
    one_of,
    optional,
    plain,
    text,
    whole,
)
from lmcli.registry import TOKENIZERS
from lmcli.settings import check_known, update

MOST_WORKERS = 4096
_texts = list_of(file_name)
_corpus = fields(
    {
        "texts": list_of(file_name, least=1),
        "options": fields(
            {
                "encoding": name,
                "errors": one_of("strict", "replace", "ignore"),
                "newlines": one_of("keep", "lf"),
                "documents": one_of("file", "line", "paragraph"),
            }
        ),
        "split": one_of("interleaved", "tail"),
        "valid": _texts,
        "test": _texts,
        "sha256": optional(name),
    },
    {
        "valid_sha256": optional(name),
        "test_sha256": optional(name),
        "rotation": whole(),
        "folders": fields({}, {"absolute": file_name, "from_run": file_name}),
    },
)
_budget = {
    "minutes": optional(number(0)),
    "steps": optional(whole()),
    "epochs": optional(number(0)),
}
_record = fields(
    {
        "arch": name,
        "settings": mapping_of(plain),
        "tokenizer": name,
        "tokenizer_settings": mapping_of(plain),
        "vocabulary": whole(1, 2**31 - 2),
        "corpus": _corpus,
        "training": mapping_of(plain),
        "budget": fields(_budget),
        "seed": whole(-(2**63), 2**64),
        "device": name,
    },
    {
        "versions": mapping_of(text),
        "command": anything,
        "workers": whole(1, MOST_WORKERS),
        "id": text,
    },
)
_positive, _figure = number(0), optional(number())
_score = fields({}, dict.fromkeys(("bits_per_char", "perplexity", "standard_error"), _figure))
_trained = fields(
    {},
    {
        "parameters": whole(),
        "valid": _score,
        **dict.fromkeys(("arch", "tokenizer", "device", "precision"), name),
        **dict.fromkeys(("tokens_seen", "train_tokens", "vocabulary", "steps", "skipped"), whole()),
        **dict.fromkeys(("seconds", "epochs", "tokens_per_second"), _positive),
        "run": file_name,
        "test": optional(_score),
        "best_step": whole(),
        "stopped": optional(name),
        "workers": whole(1),
        "race": list_of(fields({"loss": _figure}, {"rate": _figure, "order": whole()})),
        "ceiling": optional(fields({"sentence": text})),
    },
)
_log_entry = fields(
    {"step": whole(), "tokens": whole(), "valid": _figure},
    {"loss": _figure, "learning_rate": _figure},
)
_checkpoint = fields(
    {
        **dict.fromkeys(("step", "tokens", "validated_step", "loss_steps", "best_step"), whole()),
        **{"log_lines": whole(), "validated": number(), "best": _figure},
    },
    {
        **dict.fromkeys(("seconds", "counting_seconds", "validation_seconds"), _positive),
        **dict.fromkeys(("worse", "bad_validations"), whole()),
        "precision": one_of("float32", "bfloat16"),
    },
)


@dataclass(frozen=True)
class Record:
    """What run.json holds. All values are plain JSON."""

    arch: str
    settings: dict[str, Any]
    tokenizer: str
    tokenizer_settings: dict[str, Any]
    vocabulary: int
    corpus: dict[str, Any]
    """texts, sha256, options, split, valid, test; where the texts are"""
    training: dict[str, Any]
    budget: dict[str, Any]
    seed: int
    device: str
    versions: dict[str, str] = field(default_factory=dict)
    command: str = ""
    workers: int = 1
    id: str = ""
    """binds the files of a run together; "" in runs of before 0.2"""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Record:
        """The record in a run.json; the settings of its tokenizer are checked with it."""
        check_record(data)
        strange = data.keys() - {f.name for f in dataclasses.fields(cls)}
        if strange:
            raise ValueError(f"'{min(strange)}' is no field of it")
        kind = TOKENIZERS.load(data["tokenizer"]).Settings
        check_known(data["tokenizer_settings"], kind)
        update(kind(), data["tokenizer_settings"])
        return cls(**data)

    def for_others(self) -> Record:
        """Without what concerns its maker alone: the command, folders, passwords in addresses."""
        corpus = {key: value for key, value in self.corpus.items() if key != "folders"}
        for part in ("texts", "valid", "test"):
            corpus[part] = [_public(name) for name in corpus[part]]
        return dataclasses.replace(self, corpus=corpus, command="")

    def identity(self, tokenizer: Mapping[str, Any]) -> str:
        """What `id` must be: equal trainings have equal ones, wherever and whenever they are made.

        The names of texts, versions and the command are left out.
        """
        places = ("texts", "valid", "test", "folders")
        corpus = {key: value for key, value in self.corpus.items() if key not in places}
        parts = vars(self) | {"corpus": corpus, "vocabulary": [self.vocabulary, tokenizer]}
        for key in ("versions", "command", "id"):
            del parts[key]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _public(name: str) -> str:
    """The name of a text without the folders above it if it is a whole path, without a password.

    >>> _public("/home/ann/my.txt"), _public("texts/a.txt"), _public("https://ann:pw@x.org/t?key=1")
    ('my.txt', 'texts/a.txt', 'https://x.org/t')
    """
    if "://" in name:
        parts = urlsplit(name)
        host = parts.netloc.rpartition("@")[2]
        return urlunsplit((parts.scheme, host, parts.path, "", ""))
    return Path(name).name if Path(name).is_absolute() else name


def check_record(data: Any) -> None:
    """A ValueError if a field of a record is missing, or is what it cannot be."""
    _record(data, "")
    if sum(data["budget"][name] is not None for name in _budget) != 1:
        raise ValueError("'budget' is not one of minutes, steps and epochs")


def check_trained(data: Any) -> None:
    """A ValueError if the result of a training has a field that it cannot have."""
    _trained(data, "")


def check_log_entry(data: Any) -> None:
    """The same of a line of the log."""
    _log_entry(data, "")


def check_checkpoint(data: Any) -> None:
    """The same of the plain values in a checkpoint."""
    _checkpoint(data, "")


def library_versions() -> dict[str, str]:
    """What the numbers of a run are made with."""
    import numpy as np
    import torch

    found = {"lmcli": __version__, "python": platform.python_version()}
    return {**found, "torch": torch.__version__, "numpy": np.__version__}
