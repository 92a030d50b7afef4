"""How fast text is sampled: NumPy models beside the torch model, one text and 64 at once.

``bench.py`` runs it as a process of its own, with one thread, as ``lmcli sample`` does: NumPy's
matrix library looks at the environment once, when it is loaded. Prints its rows as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from lmcli.generation.numpy_models.base import NumpyModel
from lmcli.generation.sampling import MAX_BATCH, SamplingSettings, in_order, sample_batch
from lmcli.models.base import LanguageModel
from lmcli.registry import MODELS, NUMPY_MODELS
from lmcli.settings import names
from lmcli.tokenizers.char import CharTokenizer

VOCABULARY, EMBEDDING, WIDTHS = 65, 64, (128, 256, 512)
LENGTHS = {"one": 5000, "together": 200, "torch": 300}
TOKENIZER = CharTokenizer("".join(map(chr, range(33, 32 + VOCABULARY))))
Row = dict[str, object]


def models(arch: str, width: int) -> tuple[NumpyModel, LanguageModel]:
    """The same weights as a NumPy model and as a torch model."""
    torch.manual_seed(0)
    cls = MODELS.load(arch)
    sizes = {"hidden": width, "embedding": EMBEDDING}
    settings = cls.Settings(**{k: v for k, v in sizes.items() if k in names(cls.Settings)})
    model: LanguageModel = cls(VOCABULARY, settings).eval()
    if model.is_count_based:
        model.fit_counts(np.random.default_rng(0).integers(1, VOCABULARY, 200_000))
    tensors = {name: tensor.numpy() for name, tensor in model.tensors().items()}
    return NUMPY_MODELS.load(arch)(VOCABULARY, settings, tensors), model


def speed(model: NumpyModel | LanguageModel, seeds: Sequence[int], length: int) -> float:
    """Characters a second of all texts, drawn, decoded and written to a file."""
    began = time.perf_counter()
    with Path(os.devnull).open("w", encoding="utf-8") as out:
        pieces = sample_batch(model, TOKENIZER, "", length, SamplingSettings(0.8), seeds)
        for text, _ in in_order(pieces, len(seeds)):
            out.write(text)
    return len(seeds) * length / (time.perf_counter() - began)


def measured(arch: str, width: int, repeats: int) -> Row:
    """Medians, taken in turn so that a slow moment hits all of them."""
    numpy_model, model = models(arch, width)
    found: dict[str, list[float]] = {name: [] for name in LENGTHS}
    for _ in range(repeats):
        found["one"].append(speed(numpy_model, [0], LENGTHS["one"]))
        found["together"].append(speed(numpy_model, range(MAX_BATCH), LENGTHS["together"]))
        found["torch"].append(speed(model, [0], LENGTHS["torch"]))
    one, many, torchs = (statistics.median(found[n]) for n in ("one", "together", "torch"))
    sized = "" if model.is_count_based else f" {width}"
    return {
        "what": f"sample {arch}{sized}, characters/s",
        "lmcli": one,
        "torch, token by token": torchs,
        "ratio": one / torchs,
        f"{MAX_BATCH} texts": many,
        f"{MAX_BATCH} to 1": many / one,
    }


def main() -> None:
    """All NumPy models at all widths."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--arch", nargs="+", default=NUMPY_MODELS.names())
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for arch in options.arch:
        widths = WIDTHS[:1] if MODELS.load(arch).is_count_based else WIDTHS
        rows += [measured(arch, width, options.repeats) for width in widths]
    sys.stdout.write(json.dumps(rows))


if __name__ == "__main__":
    main()
