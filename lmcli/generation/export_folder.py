"""The folder of an export that is no run: where it may be written, and its files all or none.

**In:** a run, a path, the contents of the files.
**Out:** a folder with a `config.json`, which is how `--force` knows that it may be replaced.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmcli import __version__
from lmcli.errors import LmcliError, RunError, UsageError
from lmcli.folder_replacement import remove, replacing, restore
from lmcli.registry import TOKENIZERS
from lmcli.run import Run
from lmcli.run_record import Record
from lmcli.storage import damaged, read_json, write_bytes, write_json
from lmcli.write_lock import locked

if TYPE_CHECKING:
    from lmcli.models.base import LanguageModel
    from lmcli.tokenizers.base import Tokenizer

CONFIG, TOKENIZER, CARD = "config.json", "lmcli_tokenizer.json", "README.md"


def check_target(run: Run, path: Path, force: bool) -> None:
    """A RunError if something is at `path` that must not be replaced."""
    if path.resolve() == run.path.resolve():
        raise RunError(f"'{path}' is the run itself", "choose another name with -o")
    restore(path)
    if path.exists() and not path.is_dir():
        raise RunError(f"'{path}' exists and is not a folder", "choose another name with -o")
    if not path.exists() or not any(path.iterdir()):
        return
    if not (path / TOKENIZER).is_file():
        raise RunError(f"'{path}' exists and is not an export", "choose another name with -o")
    if not force:
        raise RunError(f"'{path}' exists", "--force replaces it, -o gives another name")


@contextmanager
def export_folder(run: Run, path: Path, weights: str, force: bool) -> Iterator[Path]:
    """A folder to write the file of weights and the card to; a failure leaves what was there."""
    names = (weights, CARD, CONFIG, TOKENIZER)
    with locked(path):
        check_target(run, path, force)
        with replacing(path, names) as folder:
            try:
                yield folder
                write_json(folder / TOKENIZER, run.tokenizer.to_json())
            except BaseException:  # an incomplete export is removed
                with suppress(OSError):
                    remove(folder, names)
                raise


def write_config(folder: Path, run: Run, model: LanguageModel) -> Record:
    """What the model is, for programs: the usual keys, and the record of the run."""
    record = replace(run.record, settings=asdict(model.settings))
    record = replace(record, id=record.identity(run.tokenizer.to_json()))
    config = {
        "model_type": f"lmcli-{record.arch}",
        "library_name": "lmcli",
        "lmcli_version": __version__,
        "vocab_size": record.vocabulary,
        "bos_token_id": model.start_id,
        "torch_dtype": "float32",
        "parameters": model.parameter_count(),
        "lmcli": asdict(record),
    }
    text = json.dumps(config, ensure_ascii=False, indent=2) + "\n"
    write_bytes(folder / CONFIG, text.encode("utf-8", "surrogatepass"))
    return record


def read_config(folder: Path) -> Record:
    """The record in a `config.json`; a folder without one is a RunError."""
    if not (folder / CONFIG).is_file():
        hint = "lmcli export RUN --to hf makes one"
        raise RunError(f"'{folder}' is no exported model: it has no {CONFIG}", hint)
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_bytes().decode("utf-8"))
        return Record.from_json(config["lmcli"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError, UsageError) as error:
        raise damaged(folder / CONFIG, error) from None


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """The tokenizer of an exported model (`--to onnx` or `--to hf`): text to ids and back."""
    folder = Path(folder)
    name = read_config(folder).tokenizer
    try:
        loaded = TOKENIZERS.load(name).from_json(read_json(folder / TOKENIZER))
    except LmcliError:
        raise
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise damaged(folder / TOKENIZER, error) from None
    tokenizer: Tokenizer = loaded
    return tokenizer
