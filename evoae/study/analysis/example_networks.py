"""Three autoencoders of grey images, as people write them, for `notebooks/11_your_model`.

Each takes images [n, 1, height, width] whose sides divide by 4. `width` is the number of channels
of the first layer, which all others follow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CODE = 4  # channels of a code, at a quarter of the size
KL = 2e-3  # weight of its divergence


def convolutional(width: int) -> nn.Sequential:
    """Convolutions to a code, and transposed ones back."""
    return nn.Sequential(*down(width), nn.Conv2d(2 * width, CODE, 1), *up(width))


def down(width: int) -> list[nn.Module]:
    """Layers from an image to a quarter of its size."""
    return [
        nn.Conv2d(1, width, 3, 2, 1), nn.ReLU(), nn.Conv2d(width, 2 * width, 3, 2, 1), nn.ReLU()
    ]  # fmt: skip


def up(width: int) -> list[nn.Module]:
    """Layers from a code to an image."""
    return [
        nn.ConvTranspose2d(CODE, 2 * width, 4, 2, 1), nn.ReLU(),
        nn.ConvTranspose2d(2 * width, width, 4, 2, 1), nn.ReLU(),
        nn.Conv2d(width, 1, 3, padding=1), nn.Sigmoid(),
    ]  # fmt: skip


class UNet(nn.Module):
    """Two levels, whose channels are concatenated to those that come back from below."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down1, self.down2 = block(1, width), block(width, 2 * width)
        self.bottom = block(2 * width, 2 * width)
        self.up2 = nn.ConvTranspose2d(2 * width, 2 * width, 2, 2)
        self.up1 = nn.ConvTranspose2d(2 * width, width, 2, 2)
        self.back2, self.back1 = block(4 * width, 2 * width), block(2 * width, width)
        self.out = nn.Conv2d(width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Images [n, 1, height, width] of such images."""
        one = self.down1(x)
        two = self.down2(F.max_pool2d(one, 2))
        below = self.up2(self.bottom(F.max_pool2d(two, 2)))
        below = self.up1(self.back2(torch.cat([below, two], 1)))
        return torch.sigmoid(self.out(self.back1(torch.cat([below, one], 1))))


def block(into: int, out: int) -> nn.Sequential:
    """A convolution, batch normalisation and ReLU."""
    return nn.Sequential(
        nn.Conv2d(into, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()
    )


class VAE(nn.Module):
    """A variational autoencoder, with one head for means and one for variances of its code."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(*down(width))
        self.mean, self.logvar = nn.Conv2d(2 * width, CODE, 1), nn.Conv2d(2 * width, CODE, 1)
        self.decoder = nn.Sequential(*up(width))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images of images [n, 1, height, width]; means and log variances [n, CODE, ...]."""
        hidden = self.encoder(x)
        mean, logvar = self.mean(hidden), self.logvar(hidden)
        noise = torch.randn_like(mean) if self.training else torch.zeros_like(mean)
        return self.decoder(mean + noise * (0.5 * logvar).exp()), mean, logvar


NETWORKS: Mapping[str, Callable[[int], nn.Module]] = {
    "autoencoder": convolutional,
    "U-Net": UNet,
    "VAE": VAE,
}


def image_of(output: Any) -> Tensor:
    """The image in what a network gives."""
    return output[0] if isinstance(output, tuple) else output


def loss_of(output: Any, y: Tensor) -> Tensor:
    """What training makes small: the mean absolute error, of a VAE with its divergence."""
    error = F.l1_loss(image_of(output), y)
    if not isinstance(output, tuple):
        return error
    _, mean, logvar = output
    return error - KL / 2 * (1 + logvar - mean.square() - logvar.exp()).mean()


def outer_layers(module: nn.Module) -> list[nn.Module]:
    """The layers whose outputs a caller sees."""
    if isinstance(module, VAE):
        return [module.mean, module.logvar, module.decoder[-2]]
    return [module.out] if isinstance(module, UNet) else [list(module.children())[-2]]
