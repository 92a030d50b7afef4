"""Gradients -> weights: Adam with decoupled weight decay (Loshchilov and Hutter 2019).

**In:** parameters in groups, each with its weight decay; a learning rate at every step.
**Out:** the parameters, changed in place.

The arithmetic is torch's fused kernel, by the function that `torch.optim.AdamW` calls. That class
itself loads all of torch.compile at its first step, which takes a second.

Tables of words may have one mean of squared gradients a table instead of one an entry, as blocks
have in Adam-mini (Zhang et al. 2024, "Adam-mini: use fewer learning rates to gain more"). With one
an entry a rare word's vector moves as far at each occurrence as a frequent one's in many, and is
soon memorised; with one a table its steps are proportional to its gradients.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim.adamw import adamw

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


@dataclass(frozen=True)
class Moments:
    """Running means of a parameter's gradients and of their squares."""

    step: Tensor  # ()
    exp_avg: Tensor
    exp_avg_sq: Tensor  # of the parameter's shape, or ()

    @classmethod
    def zero(cls, parameter: Tensor, fused: bool) -> Moments:
        """Before the first step."""
        device = parameter.device if fused else torch.device("cpu")
        zeros = [torch.zeros_like(parameter, requires_grad=False) for _ in range(2)]
        return cls(torch.zeros((), dtype=torch.float32, device=device), *zeros)

    @classmethod
    def zero_of_table(cls, table: Tensor) -> Moments:
        """Before the first step, with one mean of squares."""
        step, square = (torch.zeros((), dtype=torch.float32, device=table.device) for _ in range(2))
        return cls(step, torch.zeros_like(table, requires_grad=False), square)


class AdamW:
    """One optimiser for all parameters. Tensors are named by their number, as in torch."""

    def __init__(
        self,
        groups: Sequence[tuple[Sequence[Tensor], float]],
        fused: bool,
        beta2: float = BETA2,
        tables: Sequence[Tensor] = (),
        decay_of_tables: float = 0.0,
    ) -> None:
        """`tables` have one mean of squared gradients each."""
        self.fused, self.beta2 = fused, beta2
        self.groups = [
            ([(p, Moments.zero(p, fused)) for p in parameters], decay)
            for parameters, decay in groups
        ]
        self.tables = [(table, Moments.zero_of_table(table)) for table in tables]
        self.decay_of_tables = decay_of_tables

    @classmethod
    def of(
        cls,
        model: nn.Module,
        decay: float,
        recurrent_decay: float,
        device: str,
        beta2: float = BETA2,
        tables: Collection[Tensor] = (),
    ) -> AdamW:
        """For all of a model. Vectors and biases do not decay.

        Recurrent weights, which are the matrices with "recurrent" in their names, and peepholes,
        have a decay of their own.
        """
        matrices, recurrent, free = list[Tensor](), list[Tensor](), list[Tensor]()
        apart = set(map(id, tables))
        for name, parameter in model.named_parameters():
            if id(parameter) in apart:
                continue
            if parameter.dim() < 2 or name.endswith("bias"):
                free.append(parameter)
            elif "recurrent" not in name:
                matrices.append(parameter)
            else:  # without decay they are numbered among the biases, as checkpoints have them
                (recurrent if recurrent_decay else free).append(parameter)
        fused = device.partition(":")[0] in ("cpu", "cuda")
        groups = [(matrices, decay), (recurrent, recurrent_decay), (free, 0.0)]
        return cls(groups, fused, beta2, list(tables), decay)

    @torch.no_grad()
    def step(self, rate: float, clip: float = 0.0) -> None:
        """One update of every parameter that has a gradient.

        The norm of all gradients together is first scaled down to `clip`, unless that is 0: the
        kernel divides them as it reads them.
        """
        gradients = [p.grad for p, _ in self._all() if p.grad is not None]
        scale = (get_total_norm(gradients) / clip).clamp(min=1.0) if clip else None
        if scale is not None and not self.fused:
            torch._foreach_div_(gradients, scale)
            scale = None
        for table, moments in self.tables:
            if table.grad is not None:
                self._step_table(table, table.grad, moments, rate, scale)
        for parameters, decay in self.groups:
            updated = [(p, p.grad, m) for p, m in parameters if p.grad is not None]
            if not updated:
                continue
            weights, own, means = map(list, zip(*updated, strict=True))
            adamw(
                weights,
                own,
                [m.exp_avg for m in means],
                [m.exp_avg_sq for m in means],
                [],
                [m.step for m in means],
                foreach=False,
                fused=self.fused,
                amsgrad=False,
                beta1=BETA1,
                beta2=self.beta2,
                lr=rate,
                weight_decay=decay,
                eps=EPSILON,
                maximize=False,
                grad_scale=scale,
            )

    def _step_table(
        self, table: Tensor, gradient: Tensor, moments: Moments, rate: float, scale: Tensor | None
    ) -> None:
        """The same update, but for the mean of squares; nothing waits for a GPU."""
        square = torch.linalg.vector_norm(gradient) ** 2 / gradient.numel()
        moments.step.add_(1)
        if scale is None:
            moments.exp_avg.lerp_(gradient, 1 - BETA1)
        else:
            square = square / scale**2
            moments.exp_avg.mul_(BETA1).addcmul_(gradient, (1 - BETA1) / scale)
        moments.exp_avg_sq.lerp_(square, 1 - self.beta2)
        first, second = (1 - beta**moments.step for beta in (BETA1, self.beta2))
        size = rate / first / ((moments.exp_avg_sq / second).sqrt() + EPSILON)
        table.mul_(1 - rate * self.decay_of_tables).addcmul_(moments.exp_avg, size, value=-1)

    def _all(self) -> list[tuple[Tensor, Moments]]:
        """Parameters with their moments."""
        return [pair for parameters, _ in self.groups for pair in parameters] + self.tables

    def tensors(self) -> dict[str, Tensor]:
        """All moments, by name."""
        moments = [moments for _, moments in self._all()]
        return {f"{i}.{name}": t for i, m in enumerate(moments) for name, t in vars(m).items()}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Replace moments by name; those missing stay. One of another shape is a ValueError."""
        own = self.tensors()
        for name, tensor in tensors.items():
            if tensor.shape != own[name].shape:
                raise ValueError(f"optimizer.{name} has the shape {tuple(tensor.shape)}")
            own[name].copy_(tensor)
