"""What every NumPy model does: read one token of each of K streams, predict the next.

**In:** the tensors of a run; then one token per stream and step.
**Out:** logits (K, V) in nats up to a constant.

A NumPy model has the name of an architecture and computes the same without torch: loading torch
takes longer than sampling a page, and its overhead per token is many times the arithmetic. State
arrays are allocated once and overwritten at every token. `TorchAdapter` gives any torch model the
same interface, for architectures that have no NumPy model.

Shape letters as in models/base.py, and K streams. The id V (one past the vocabulary) starts a
document: the stream's state is reset.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from lmcli.json_checks import Check, anything, flag, text, whole
from lmcli.models import current_names
from lmcli.registry import NUMPY_MODELS
from lmcli.storage import damaged
from lmcli.tensor_files import read_arrays

if TYPE_CHECKING:
    from torch import Tensor

    from lmcli.models.base import LanguageModel
    from lmcli.run import Run

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]
TABLE = 1 << 23
"""Numbers in a table of values computed for each token in advance, at most (32 MiB)."""
COUNTED = ("layers", "attend", "window")
"""settings that are numbers"""
TEXTS: dict[str, Check] = {"activation": text, "mix": anything}
"""settings that are texts; the model that reads `mix` checks it"""
MOST = 1 << 20
CHUNK = 512
"""Tokens of a long prompt that a torch model reads together."""


class NumpyModel(abc.ABC):
    """Reads K streams together and holds their state. `reset` comes first."""

    @abc.abstractmethod
    def reset(self, streams: int) -> None:
        """Begin `streams` new streams."""

    @abc.abstractmethod
    def read(self, tokens: Sequence[int]) -> None:
        """Read the next token of every stream. Shapes: (K,)."""

    @abc.abstractmethod
    def logits(self) -> Floats:
        """Logits after the tokens read last, float64; the caller may overwrite them.

        Shapes: -> (K, V).
        """

    @abc.abstractmethod
    def select(self, streams: Sequence[int]) -> None:
        """Continue with these streams only, in this order; a stream may be repeated."""

    @abc.abstractmethod
    def snapshot(self) -> list[Any]:
        """A copy of the state of all streams, the streams on axis 0 of each array."""

    @abc.abstractmethod
    def restore(self, snapshot: Sequence[Any]) -> None:
        """Go on from a `snapshot`, which stays as it is; what was read since is forgotten."""

    def read_all(self, tokens: Sequence[int]) -> None:
        """Read several tokens of the only stream."""
        for token in tokens:
            self.read([token])


class Stateful(abc.ABC):
    """Has arrays that are carried from token to token, with the streams on axis 0."""

    carried: ClassVar[tuple[str, ...]] = ("h",)
    """Their names."""

    @abc.abstractmethod
    def reset(self, streams: int) -> None:
        """State and scratch arrays for `streams` new streams."""

    def state(self) -> list[Array]:
        """The arrays themselves."""
        return [getattr(self, name) for name in self.carried]


class ArrayModel(Stateful, NumpyModel):
    """A member of this folder, made from the tensors of a run; a ValueError if they do not fit."""

    name: ClassVar[str]
    required_settings: ClassVar[tuple[str, ...]] = ()
    """Settings of the architecture that are read; sizes follow from the tensors."""

    @abc.abstractmethod
    def __init__(self, vocabulary: int, settings: Any, tensors: Mapping[str, Array]) -> None:
        """`settings` has the `required_settings`; `tensors` are those that the model saved."""

    def select(self, streams: Sequence[int]) -> None:
        self.restore([part[list(streams)] for part in self.state()])

    def snapshot(self) -> list[Array]:
        return [part.copy() for part in self.state()]

    def restore(self, snapshot: Sequence[Array]) -> None:
        self.reset(len(snapshot[0]))
        for part, values in zip(self.state(), snapshot, strict=True):
            part[...] = values


def open_numpy_model(run: Run) -> NumpyModel | None:
    """The run's model with its best weights, without torch.

    None where the architecture has no NumPy model, or where the run is older than a setting that
    it needs; `Run.model` knows that setting's default.
    """
    if run.record.arch not in NUMPY_MODELS.names():
        return None
    cls = NUMPY_MODELS.load(run.record.arch)
    if not run.record.settings.keys() >= set(cls.required_settings):
        return None
    arrays = run.weights(read_arrays)
    try:
        settings = _settings(cls, run.record.settings, len(arrays))
        model: NumpyModel = cls(run.record.vocabulary, settings, current_names(arrays))
    except Exception as error:  # a run from elsewhere can hold anything
        raise damaged(run.weights_file(), error) from None
    return model


def _settings(cls: type[ArrayModel], recorded: Mapping[str, Any], tensors: int) -> Any:
    """The settings that the model reads, each of its type; a ValueError if one is not.

    The class of all settings, which knows their ranges, is in a module that loads torch.
    """
    chosen = {name: recorded[name] for name in cls.required_settings}
    for name, value in chosen.items():
        most = tensors if name == "layers" else MOST
        check = TEXTS.get(name, whole(0, most) if name in COUNTED else flag)
        check(value, f"settings.{name}")
    return SimpleNamespace(**chosen)


class Weights:
    """The tensors of a model or of one layer, by name; each is checked for its shape."""

    def __init__(self, tensors: Mapping[str, Array], prefix: str = "") -> None:
        self.tensors = tensors
        self.prefix = prefix

    def __call__(self, name: str, *shape: int | None) -> Floats32:
        """A tensor; None is any size. A missing or misshapen one raises a ValueError."""
        tensor = self.tensors.get(self.prefix + name)
        if tensor is None:
            raise ValueError(f"tensor {self.prefix}{name} is missing")
        sizes = zip(shape, tensor.shape, strict=False)
        if tensor.ndim != len(shape) or any(wanted not in (None, size) for wanted, size in sizes):
            raise ValueError(f"tensor {self.prefix}{name} has the shape {tensor.shape}")
        if tensor.dtype != np.float32:
            raise ValueError(f"tensor {self.prefix}{name} is {tensor.dtype}")
        return np.ascontiguousarray(tensor, np.float32)

    def transposed(self, name: str, *shape: int | None) -> Floats32:
        """A weight matrix (outputs, inputs) as (inputs, outputs), ready for x @ W."""
        return np.ascontiguousarray(self(name, *shape).T)

    def part(self, prefix: str) -> Weights:
        """The tensors whose names begin with `prefix`, which is removed."""
        return Weights(self.tensors, self.prefix + prefix)

    def numbered(self, prefix: str) -> list[Weights]:
        """The tensors with ``prefix0.``, those with ``prefix1.``, ..., as many as there are."""
        parts: list[Weights] = []
        while any(name.startswith(f"{self.prefix}{prefix}{len(parts)}.") for name in self.tensors):
            parts.append(self.part(f"{prefix}{len(parts)}."))
        return parts


class TorchAdapter(NumpyModel):
    """One call of the model per token."""

    def __init__(self, model: LanguageModel) -> None:
        self.model = model

    def reset(self, streams: int) -> None:
        self._state = self.model.initial_state(streams)

    def read(self, tokens: Sequence[int]) -> None:
        self._read([[token] for token in tokens])

    def read_all(self, tokens: Sequence[int]) -> None:
        for begin in range(0, len(tokens), CHUNK):
            self._read([list(tokens[begin : begin + CHUNK])])

    def _read(self, tokens: list[list[int]]) -> None:
        import torch

        with torch.inference_mode():
            read = torch.tensor(tokens)
            self._logits, self._state = self.model.last_logits(read, self._state)

    def logits(self) -> Floats:
        return self._logits.numpy().astype(np.float64)

    def select(self, streams: Sequence[int]) -> None:
        chosen = list(streams)
        self._state = tuple(part[chosen] for part in self._state)
        self._logits = self._logits[chosen]

    def snapshot(self) -> list[Tensor]:
        return [self._logits, *self._state]  # a model makes new tensors and changes none

    def restore(self, snapshot: Sequence[Tensor]) -> None:
        self._logits, *state = snapshot
        self._state = tuple(state)
