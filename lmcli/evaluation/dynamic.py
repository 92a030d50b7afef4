"""Dynamic evaluation: a network that goes on learning from the text it is scored on.

**In:** a network, a stream of ids.
**Out:** ln p of all tokens at each place, some places at a time: a chunk is predicted, then the
weights take a step on it.

    w <- w - rate g / (RMS(g) + its mean) + decay (w0 - w)

g is the gradient of a chunk, RMS its root mean square over the chunks so far, w0 the trained
weights. Krause et al. 2018, "Dynamic evaluation of neural sequence models"; there the RMS is that
of the training text, which need not be at hand here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from lmcli.data.batches import IGNORED
from lmcli.models.base import SEVERAL_WORDS, LanguageModel
from lmcli.report.progress import ProgressCounter

Ids = npt.NDArray[np.integer[Any]]
Logs = npt.NDArray[np.float32]


@dataclass(frozen=True)
class AdaptSettings:
    """The defaults were chosen on the validation part of tiny Shakespeare, by character."""

    rate: float = 1e-3
    decay: float = 1e-2
    chunk: int = 20
    """tokens between two steps"""

    @classmethod
    def of(cls, vocabulary: int) -> AdaptSettings:
        """With a smaller rate where most tokens are rare: they have gradients in few chunks.

        Perplexity on validation, LSTM by word (one run each): Emma 55.8, and with adaptation by
        rates of 1e-4, 2e-4 and 1e-3 55.5, 56.1 and 65.4; encyclopedia articles (an earlier
        LSTM) 248.4, and by 1e-4 and 3e-4 238.1 and 233.1.
        """
        return cls(rate=1e-4) if vocabulary >= SEVERAL_WORDS else cls()

    def to_json(self) -> dict[str, Any]:
        """All of them."""
        return asdict(self)


def adapted_log_probabilities(
    model: LanguageModel,
    ids: Ids,
    settings: AdaptSettings,
    excluded: int | None = None,
    counter: ProgressCounter | None = None,
) -> Iterator[Logs]:
    """ln p of all tokens after each id but the last; the weights of the model change.

    With `excluded`, an id: given also that the token is another one. Shapes: (N,) -> parts (n, V).
    """
    model.eval()
    counter = counter or ProgressCounter()
    weights = [w for w in model.parameters() if w.requires_grad]
    device = weights[0].device
    trained = [w.detach().clone() for w in weights]
    squares = [torch.zeros_like(w) for w in weights]
    state = model.initial_state(1)
    stream = torch.from_numpy(ids.astype(np.int64)).to(device)
    begins = range(0, len(stream) - 1, settings.chunk)
    for steps, begin in enumerate(begins, start=1):
        read = stream[begin : begin + settings.chunk + 1]
        targets = read[1:].masked_fill(read[1:] == model.start_id, IGNORED)
        with torch.enable_grad(), _without_cudnn(device_type(weights)):
            found, state = model.all_log_probabilities(read[None, :-1], state, excluded)
            if excluded is not None:
                targets = targets.masked_fill(targets == excluded, IGNORED)
            logs = found[0]  # (n, V)
        yield logs.detach().cpu().numpy()
        counter.add(len(read) - 1)
        state = tuple(part.detach() for part in state)
        if bool((targets != IGNORED).any()):
            gradients = torch.autograd.grad(
                F.nll_loss(logs, targets, ignore_index=IGNORED), weights, allow_unused=True
            )
            _step(weights, gradients, squares, trained, settings, steps)


def device_type(weights: Sequence[torch.Tensor]) -> str:
    """What the weights are on, "cpu" or "cuda" for example."""
    return weights[0].device.type


def _without_cudnn(device: str) -> AbstractContextManager[Any]:
    """On a GPU recurrent layers without cuDNN, which has no gradient of them in evaluation mode."""
    if device != "cuda":
        return nullcontext()
    return torch.backends.cudnn.flags(enabled=False)


@torch.no_grad()
def _step(
    weights: list[torch.nn.Parameter],
    gradients: tuple[torch.Tensor | None, ...],
    squares: list[torch.Tensor],
    trained: list[torch.Tensor],
    settings: AdaptSettings,
    steps: int,
) -> None:
    """One step down the gradient, each weight by its own scale, and one back to where it began."""
    for weight, gradient, square, start in zip(weights, gradients, squares, trained, strict=True):
        if gradient is None:
            continue
        square += gradient * gradient
        scale = (square / steps).sqrt_()
        floor = scale.mean().clamp_min(1e-12)
        weight.sub_(settings.rate * gradient / (scale + floor))
        weight.add_(settings.decay * (start - weight))
