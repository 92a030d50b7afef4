"""Gradients -> weights: Adam with decoupled weight decay (Loshchilov and Hutter 2019).

**In:** parameters in groups, each with its weight decay; a learning rate at every step.
**Out:** the parameters, changed in place.

The arithmetic is torch's fused kernel, by the function that `torch.optim.AdamW` calls. That class
itself loads all of torch.compile at its first step, which takes a second.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    exp_avg_sq: Tensor

    @classmethod
    def zero(cls, parameter: Tensor, fused: bool) -> Moments:
        """Before the first step."""
        device = parameter.device if fused else torch.device("cpu")
        zeros = [torch.zeros_like(parameter, requires_grad=False) for _ in range(2)]
        return cls(torch.zeros((), dtype=torch.float32, device=device), *zeros)


class AdamW:
    """One optimiser for all parameters. Tensors are named by their number, as in torch."""

    def __init__(
        self, groups: Sequence[tuple[Sequence[Tensor], float]], fused: bool, beta2: float = BETA2
    ) -> None:
        self.fused, self.beta2 = fused, beta2
        self.groups = [
            ([(p, Moments.zero(p, fused)) for p in parameters], decay)
            for parameters, decay in groups
        ]

    @classmethod
    def of(cls, model: nn.Module, decay: float, device: str, beta2: float = BETA2) -> AdamW:
        """For all of a model; biases and recurrent weights do not decay."""
        groups: tuple[list[Tensor], list[Tensor]] = ([], [])
        for name, parameter in model.named_parameters():
            groups[parameter.dim() < 2 or "recurrent" in name].append(parameter)
        decayed, free = groups
        fused = device.partition(":")[0] in ("cpu", "cuda")
        return cls([(decayed, decay), (free, 0.0)], fused, beta2)

    @torch.no_grad()
    def step(self, rate: float, clip: float = 0.0) -> None:
        """One update of every parameter that has a gradient.

        The norm of all gradients together is first scaled down to `clip`, unless that is 0: the
        kernel divides them as it reads them.
        """
        gradients = [p.grad for ps, _ in self.groups for p, _ in ps if p.grad is not None]
        scale = (get_total_norm(gradients) / clip).clamp(min=1.0) if clip else None
        if scale is not None and not self.fused:
            torch._foreach_div_(gradients, scale)
            scale = None
        for parameters, decay in self.groups:
            updated = [(p, p.grad, m) for p, m in parameters if p.grad is not None]
            if not updated:
                continue
            weights, own, moments = map(list, zip(*updated, strict=True))
            adamw(
                weights,
                own,
                [m.exp_avg for m in moments],
                [m.exp_avg_sq for m in moments],
                [],
                [m.step for m in moments],
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

    def tensors(self) -> dict[str, Tensor]:
        """All moments, by name."""
        moments = [moments for parameters, _ in self.groups for _, moments in parameters]
        return {f"{i}.{name}": t for i, m in enumerate(moments) for name, t in vars(m).items()}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Replace moments by name; those missing stay. One of another shape is a ValueError."""
        own = self.tensors()
        for name, tensor in tensors.items():
            if tensor.shape != own[name].shape:
                raise ValueError(f"optimizer.{name} has the shape {tuple(tensor.shape)}")
            own[name].copy_(tensor)
