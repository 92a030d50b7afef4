"""A residual block around a recurrence: norm before it, product and feed-forward net after it.

**In:** x, what a layer reads (..., E); h, what its recurrence makes of LayerNorm(x) (..., H).
**Out:** what the next layer reads (..., H).

    u = LayerNorm(x)                                     what gates and candidate read
    y = x + O h                                          only O h where E is not H
    x' = y + W_2 gelu(W_1 LayerNorm(y) + c_1) + c_2

The same for every recurrent architecture (`block=true`), so that cells can be compared with the
parts of a modern network around them, or all without. Norm before each part: Xiong et al. (2020).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from lmcli.models.base import draw


class ResidualBlock(nn.Module):
    """Inherited by a layer, whose tensors the parts of the block become; none until `add_block`."""

    has_block = False

    def add_block(self, inputs: int, hidden: int) -> None:
        """Make the norms, the product over the units and the feed-forward net."""
        self.has_block, self.residual = True, inputs == hidden
        self.norm = nn.LayerNorm(inputs)
        self.out_proj = nn.Linear(hidden, hidden, bias=False)
        self.ffn_norm = nn.LayerNorm(hidden)
        self.up = nn.Linear(hidden, 2 * hidden)
        self.down = nn.Linear(2 * hidden, hidden)
        for layer in (self.out_proj, self.up, self.down):
            draw(layer.weight, layer.in_features**-0.5)
        for layer in (self.up, self.down):
            nn.init.zeros_(layer.bias)

    def normed(self, x: Tensor) -> Tensor:
        """What the recurrence reads: u, or x itself without a block. Shapes: (..., E)."""
        return self.norm(x) if self.has_block else x

    def output(self, x: Tensor, h: Tensor) -> Tensor:
        """What the next layer reads: x', or h itself. Shapes: (..., E), (..., H) -> (..., H)."""
        if not self.has_block:
            return h
        y: Tensor = self.out_proj(h)
        if self.residual:
            y = x + y
        ffn: Tensor = self.down(F.gelu(self.up(self.ffn_norm(y))))
        return y + ffn
