"""What every stepper does: read one token for each of K streams, predict what comes next.

**In:** the tensors that a run saved; then one token a stream at a time.
**Out:** logits (K, V) in nats up to a constant.

A stepper has the name of an architecture and computes what that does, without torch: loading
torch takes longer than sampling a page, and its overhead for one token is many times the work.
State and scratch arrays are made once and written over at every token.

Shape letters as in models/base.py, and K streams. The id V (one past the vocabulary) starts a
document: what a stream has read before it is forgotten.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from lmcli.registry import NUMPY_MODELS
from lmcli.storage import damaged, read_arrays

if TYPE_CHECKING:
    from lmcli.run import Run

Array = npt.NDArray[Any]
Reals = npt.NDArray[np.float32]
Logits = npt.NDArray[np.float64]

TABLE = 1 << 23
"""Numbers in a table of what can be known of each token beforehand, at the most (32 MiB)."""


class NumpyModel(abc.ABC):
    """Reads K streams side by side; holds their state. `begin` comes first."""

    @abc.abstractmethod
    def begin(self, streams: int) -> None:
        """Turn to `streams` new streams, of which nothing has been read."""

    @abc.abstractmethod
    def read(self, tokens: Sequence[int]) -> None:
        """Read the next token of every stream. Shapes: (K,)."""

    @abc.abstractmethod
    def logits(self) -> Logits:
        """What comes behind the tokens read last, float64; the caller may write over it.

        Shapes: -> (K, V).
        """

    @abc.abstractmethod
    def take(self, streams: Sequence[int]) -> None:
        """Go on with these streams only, in this order; one may come several times."""

    def read_all(self, tokens: Sequence[int]) -> None:
        """Read several tokens of the only stream."""
        for token in tokens:
            self.read([token])


class ArrayModel(NumpyModel):
    """A member of this folder, made from a run's tensors. Tensors that do not fit: ValueError."""

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    """Settings of the architecture that are read; sizes are seen from the tensors."""

    @abc.abstractmethod
    def __init__(self, vocabulary: int, settings: Any, tensors: Mapping[str, Array]) -> None:
        """`settings` has the attributes in `needs`; `tensors` are what the model saved."""

    @abc.abstractmethod
    def state(self) -> list[Array]:
        """All that is carried from token to token, with the streams on axis 0."""

    def take(self, streams: Sequence[int]) -> None:
        """Go on with these streams only, in this order; one may come several times."""
        kept = [part[list(streams)] for part in self.state()]
        self.begin(len(streams))
        for part, old in zip(self.state(), kept, strict=True):
            part[...] = old


def open_numpy_model(run: Run) -> NumpyModel | None:
    """The run's model with its best weights, without torch: one token at a time.

    None where the architecture has no NumPy model, or where the run is older than a setting that
    it needs; `Run.model` knows that setting's default.
    """
    if run.record.arch not in NUMPY_MODELS.names():
        return None
    cls = NUMPY_MODELS.load(run.record.arch)
    if not run.record.settings.keys() >= set(cls.needs):
        return None
    arrays, _ = read_arrays(file := run.weights_file())
    try:
        settings = SimpleNamespace(**run.record.settings)
        model: NumpyModel = cls(run.record.vocabulary, settings, arrays)
    except (ValueError, TypeError) as error:
        raise damaged(file, error) from None
    return model


class Weights:
    """The tensors of a model or of one layer, by name; each has the shape that is asked for."""

    def __init__(self, tensors: Mapping[str, Array], prefix: str = "") -> None:
        self.tensors = tensors
        self.prefix = prefix

    def __call__(self, name: str, *shape: int | None) -> Reals:
        """A tensor; None stands for any size. A missing or misshapen one raises a ValueError."""
        tensor = self.tensors.get(self.prefix + name)
        if tensor is None:
            raise ValueError(f"tensor {self.prefix}{name} is missing")
        fits = len(tensor.shape) == len(shape) and all(
            wanted in (None, size) for wanted, size in zip(shape, tensor.shape, strict=True)
        )
        if not fits:
            raise ValueError(f"tensor {self.prefix}{name} has the shape {tensor.shape}")
        return np.ascontiguousarray(tensor, np.float32)

    def turned(self, name: str, *shape: int | None) -> Reals:
        """A weight matrix (outputs, inputs) as (inputs, outputs), ready for x @ W."""
        return np.ascontiguousarray(self(name, *shape).T)

    def part(self, prefix: str) -> Weights:
        """Those whose names begin so."""
        return Weights(self.tensors, self.prefix + prefix)

    def numbered(self, prefix: str) -> list[Weights]:
        """Those whose names go on with ``0.``, those with ``1.``, ..., as far as there are any."""
        found: list[Weights] = []
        while any(name.startswith(f"{self.prefix}{prefix}{len(found)}.") for name in self.tensors):
            found.append(self.part(f"{prefix}{len(found)}."))
        return found


class Rows:
    """Rows of a table by token, one a stream."""

    def __init__(self, table: Reals) -> None:
        self.table = table

    def begin(self, streams: int) -> None:
        """Room for so many streams."""
        self._found = np.empty((streams, self.table.shape[1]), np.float32)

    def __call__(self, tokens: Sequence[int]) -> Reals:
        """Shapes: (K,) -> (K, columns)."""
        if len(tokens) == 1:
            return self.table[tokens[0] : tokens[0] + 1]
        return np.take(self.table, tokens, axis=0, out=self._found, mode="clip")
