"""What a training lets others see while it goes on: lines of sample text, TensorBoard event files.

**In:** the model and the Progress of its trainer.
**Out:** a `SampleText` after each validation; scalars by step. Neither changes what is learnt:
texts are drawn by a generator of their own, from a state of their own, in time that is not counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from lmcli.errors import LmcliError
from lmcli.generation.sampling import SamplingSettings, sample_batch
from lmcli.report.progress import OnProgress, SampleText

if TYPE_CHECKING:
    from lmcli.models.base import LanguageModel
    from lmcli.tokenizers.base import Tokenizer
    from lmcli.training.trainer import Progress

CHARS = 300
"""of a sample, at most"""


@dataclass(frozen=True)
class Watch:
    """What is wanted beside the training itself."""

    samples: bool = False
    tensorboard: str | None = None
    """folder of the event files"""

    @classmethod
    def of(cls, options: Mapping[str, Any], is_main: bool) -> Watch:
        """What the options of `api.train` ask for; only the main process shows anything.

        A package that is missing is an LmcliError before anything is trained.
        """
        folder = options.get("tensorboard")
        if not is_main:
            return cls()
        if folder is not None:
            _summary_writer()
        return cls(bool(options.get("samples")), None if folder is None else str(folder))

    @contextmanager
    def watching(
        self, model: LanguageModel, tokenizer: Tokenizer, name: str, on_progress: OnProgress
    ) -> Iterator[Any]:
        """Within, what it gives is to be called with each Progress."""
        writer = None if self.tensorboard is None else _summary_writer()(self.tensorboard)

        def see(progress: Progress) -> None:
            if writer is not None and progress.logged:
                write_scalars(writer, progress)
            if self.samples and progress.valid is not None:
                text = sample_text(model, tokenizer, seed=progress.step)
                on_progress(SampleText(name, progress.step, text))

        try:
            yield see
        finally:
            if writer is not None:
                writer.close()


def _summary_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError:
        problem = "--tensorboard needs tensorboard, which is not installed"
        raise LmcliError(problem, "pip install 'lmcli[tensorboard]'") from None
    return SummaryWriter


def write_scalars(writer: Any, progress: Progress) -> None:
    """Losses in nats a token, and the learning rate."""
    writer.add_scalar("loss/train", progress.loss, progress.step)
    writer.add_scalar("learning_rate", progress.learning_rate, progress.step)
    if progress.valid is not None:
        writer.add_scalar("loss/valid", progress.valid, progress.step)


def sample_text(model: LanguageModel, tokenizer: Tokenizer, seed: int, length: int = CHARS) -> str:
    """A text by the weights as they are now, from a document's start."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            made = sample_batch(model, tokenizer, "", length, SamplingSettings(), [seed])
            return "".join(text for _, text, _ in made)
    finally:
        model.train(was_training)
