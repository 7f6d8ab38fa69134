"""A module of variational autoencoders. It stands alone because a module's class needs torch."""

from __future__ import annotations

from torch import Tensor, nn


class MeanOfCode(nn.Module):
    """A variational encoder ends in means and log-variances; this keeps the means."""

    def forward(self, x: Tensor) -> Tensor:
        """The means [..., code] of [..., 2 * code]."""
        return x.chunk(2, dim=-1)[0]
