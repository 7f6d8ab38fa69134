"""Small autoencoders of the kinds that people train, for tests that try everything on each.

`ZOO` maps a name to a function that returns a module, an example input and its loss, a function of
the module's output and of the input. Weights and inputs are the same in every call. In evaluation
mode outputs are a function of the input alone.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

Loss = Callable[[Any, Tensor], Tensor]
Kind = tuple[nn.Module, Tensor, Loss]
ZOO: dict[str, Callable[[], Kind]] = {}


def mse(output: Tensor, x: Tensor) -> Tensor:
    """Of a reconstruction."""
    return F.mse_loss(output, x)


def tokens_loss(output: Tensor, x: Tensor) -> Tensor:
    """Of logits [..., vocabulary] for the tokens that were the input."""
    return F.cross_entropy(output.flatten(0, -2), x.flatten())


def elbo(output: tuple[Tensor, Tensor, Tensor], x: Tensor) -> Tensor:
    """Reconstruction and divergence of a variational autoencoder."""
    y, mean, logvar = output
    return F.mse_loss(y, x) - 5e-4 * (1 + logvar - mean.square() - logvar.exp()).mean()


def kind(
    *shape: int, tokens: int = 0, loss: Loss | None = None, name: str = ""
) -> Callable[[Any], Any]:
    """Add a class or function that makes a module to the zoo, with inputs of a shape."""

    def add(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
        def made() -> Kind:
            draw = torch.Generator().manual_seed(2)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(1)
                module = make()
            if tokens:
                return module, torch.randint(tokens, shape, generator=draw), loss or tokens_loss
            return module, torch.rand(shape, generator=draw), loss or mse

        ZOO[name or make.__name__.replace("_", "-").lower()] = made
        return make

    return add


# -- dense ---------------------------------------------------------------------------------------


@kind(8, 24)
def dense() -> nn.Module:
    return nn.Sequential(
        nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 6), nn.ReLU(),
        nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 24), nn.Sigmoid(),
    )  # fmt: skip


@kind(8, 24)
class Functional(nn.Module):
    """The commonest style of tutorials."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(24, 16), nn.Linear(16, 6)
        self.fc3, self.fc4 = nn.Linear(6, 16), nn.Linear(16, 24)

    def forward(self, x: Tensor) -> Tensor:
        code = self.fc2(F.relu(self.fc1(x)))
        return torch.sigmoid(self.fc4(F.relu(self.fc3(code))))


@kind(8, 24)
def no_biases() -> nn.Module:
    return nn.Sequential(
        nn.Linear(24, 12, bias=False), nn.GELU(), nn.Dropout(0.1),
        nn.Linear(12, 24, bias=False),
    )  # fmt: skip


@kind(8, 24)
class Tied(nn.Module):
    """The decoder reads the encoder's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(24, 10)
        self.bias = nn.Parameter(torch.zeros(24))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(torch.relu(self.encoder(x)), self.encoder.weight.t(), self.bias)


@kind(8, 16)
class Shared_Layer(nn.Module):
    """Two layers have one weight, and biases of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(16, 16), nn.Linear(16, 16)
        self.two.weight = self.one.weight
        self.out = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.relu(self.two(torch.relu(self.one(x)))))


@kind(8, 24)
def called_twice() -> nn.Module:
    inner = nn.Linear(12, 12)
    return nn.Sequential(
        nn.Linear(24, 12), nn.ReLU(), inner, nn.ReLU(), inner, nn.ReLU(), nn.Linear(12, 24)
    )


@kind(8, 24)
def batch_norm() -> nn.Module:
    return nn.Sequential(
        nn.Linear(24, 16, bias=False), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 6),
        nn.Linear(6, 16, bias=False), nn.BatchNorm1d(16), nn.LeakyReLU(0.1), nn.Linear(16, 24),
    )  # fmt: skip


@kind(8, 24)
def layer_norm() -> nn.Module:
    return nn.Sequential(
        nn.Linear(24, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 6), nn.SiLU(),
        nn.Linear(6, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 24),
    )  # fmt: skip


@kind(8, 24)
class Gated(nn.Module):
    """Gated linear units, and a highway."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.carry, self.value = nn.Linear(24, 24), nn.Linear(12, 12), nn.Linear(12, 12)
        self.out = nn.Linear(12, 24)

    def forward(self, x: Tensor) -> Tensor:
        h = F.glu(self.gate(x), -1)
        t = torch.sigmoid(self.carry(h))
        return self.out(t * torch.tanh(self.value(h)) + (1 - t) * h)


@kind(8, 24)
class Two_Branches(nn.Module):
    """Encoders in a ModuleDict, whose codes are concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict({"low": nn.Linear(12, 8), "high": nn.Linear(12, 6)})
        self.decoder = nn.Sequential(nn.Linear(14, 16), nn.ReLU(), nn.Linear(16, 24))

    def forward(self, x: Tensor) -> Tensor:
        halves = dict(zip(("low", "high"), x.chunk(2, -1), strict=True))
        codes = [F.relu(encoder(halves[name])) for name, encoder in self.encoders.items()]
        return self.decoder(torch.cat(codes, -1))


@kind(8, 24)
class Dense_Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.out = nn.Linear(24, 12), nn.Linear(12, 24)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 12)) for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        for block in self.blocks:
            h = h + block(h)
        return self.out(F.relu(h))


@kind(8, 24, loss=elbo)
class Dense_VAE(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(24, 16), nn.ReLU())
        self.mean, self.logvar = nn.Linear(16, 5), nn.Linear(16, 5)
        self.decoder = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 24), nn.Sigmoid())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = self.encoder(x)
        mean, logvar = self.mean(h), self.logvar(h)
        noise = torch.randn_like(mean) if self.training else torch.zeros_like(mean)
        return self.decoder(mean + noise * torch.exp(0.5 * logvar)), mean, logvar


@kind(8, 20)
class Bilinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.mix = nn.Linear(20, 6), nn.Bilinear(6, 6, 8)
        self.decoder = nn.Linear(8, 20)

    def forward(self, x: Tensor) -> Tensor:
        code = torch.tanh(self.encoder(x))
        return self.decoder(torch.relu(self.mix(code, code)))


# -- bare parameters -----------------------------------------------------------------------------


@kind(8, 16)
class Sparse_Autoencoder(nn.Module):
    """As in interpretability work."""

    def __init__(self) -> None:
        super().__init__()
        self.W_enc = nn.Parameter(torch.randn(16, 40) * 0.2)
        self.W_dec = nn.Parameter(torch.randn(40, 16) * 0.2)
        self.b_enc, self.b_dec = nn.Parameter(torch.zeros(40)), nn.Parameter(torch.zeros(16))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu((x - self.b_dec) @ self.W_enc + self.b_enc) @ self.W_dec + self.b_dec


@kind(8, 16)
class Tied_Matrix(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.randn(30, 16) * 0.2)
        self.b = nn.Parameter(torch.zeros(30))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x @ self.W.t() + self.b) @ self.W


@kind(8, 16)
class Top_K(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(16, 40), nn.Linear(40, 16)
        self.decoder.weight = nn.Parameter(self.encoder.weight.t().clone())

    def forward(self, x: Tensor) -> Tensor:
        code = torch.relu(self.encoder(x))
        top = code.topk(8, dim=-1)
        return self.decoder(torch.zeros_like(code).scatter(-1, top.indices, top.values))


@kind(8, 20)
class Functional_Parameters(nn.Module):
    """F.linear on parameters of lists and dictionaries."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.ParameterList(torch.randn(*s) * 0.3 for s in ((12, 20), (20, 12)))
        self.biases = nn.ParameterDict({"hidden": torch.zeros(12), "out": torch.zeros(20)})

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(F.linear(x, self.weights[0], self.biases["hidden"]))
        return F.linear(h, self.weights[1], self.biases["out"])


@kind(8, 20)
class Low_Rank(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.u, self.v = nn.Parameter(torch.randn(20, 4)), nn.Parameter(torch.randn(4, 20))
        self.out = nn.Linear(20, 20)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(x @ self.u @ self.v))


@kind(8, 12)
class Experts(nn.Module):
    """A mixture, of parameters [experts, in, out]."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(12, 3)
        self.down = nn.Parameter(torch.randn(3, 12, 10) * 0.2)
        self.up = nn.Parameter(torch.randn(3, 10, 12) * 0.2)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(torch.einsum("bi,eih->beh", x, self.down))
        y = torch.einsum("beh,eho->beo", h, self.up)
        return (self.router(x).softmax(-1)[..., None] * y).sum(1)


@kind(10, 10, loss=lambda output, x: F.binary_cross_entropy_with_logits(output, x.round()))
class Graph(nn.Module):
    """Of an adjacency matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Parameter(torch.randn(10, 8))
        self.w1 = nn.Parameter(torch.randn(8, 12) * 0.3)
        self.w2 = nn.Parameter(torch.randn(12, 4) * 0.3)

    def forward(self, x: Tensor) -> Tensor:
        code = x @ torch.relu(x @ self.features @ self.w1) @ self.w2
        return code @ code.t()


# -- convolutions --------------------------------------------------------------------------------


@kind(4, 2, 16)
def conv1d() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(2, 8, 5, stride=2, padding=2), nn.ReLU(), nn.Conv1d(8, 4, 3, padding=1),
        nn.ReLU(), nn.ConvTranspose1d(4, 8, 4, stride=2, padding=1), nn.ReLU(),
        nn.Conv1d(8, 2, 3, padding=1),
    )  # fmt: skip


@kind(4, 1, 8, 8)
def conv2d() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.ReLU(),
        nn.ConvTranspose2d(12, 8, 4, stride=2, padding=1), nn.ReLU(),
        nn.ConvTranspose2d(8, 1, 4, stride=2, padding=1), nn.Sigmoid(),
    )  # fmt: skip


@kind(2, 1, 4, 4, 4)
def conv3d() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(1, 6, 3, stride=2, padding=1), nn.BatchNorm3d(6), nn.ReLU(),
        nn.ConvTranspose3d(6, 4, 2, stride=2), nn.ReLU(), nn.Conv3d(4, 1, 3, padding=1),
    )  # fmt: skip


@kind(4, 2, 8, 8)
def grouped() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 8, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(8, 12, 3, padding=1, groups=4), nn.ReLU(),
        nn.ConvTranspose2d(12, 8, 2, stride=2, groups=2), nn.ReLU(), nn.Conv2d(8, 2, 1),
    )  # fmt: skip


@kind(4, 1, 16)
def dilated() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(1, 8, 3, dilation=2, padding=2), nn.ReLU(),
        nn.Conv1d(8, 8, 3, dilation=4, padding=4, padding_mode="replicate"), nn.ReLU(),
        nn.ConvTranspose1d(8, 1, 3, dilation=2, padding=2),
    )  # fmt: skip


@kind(4, 2, 8, 8)
def depthwise() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 8, 1), nn.ReLU6(), nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8),
        nn.BatchNorm2d(8), nn.ReLU6(), nn.Conv2d(8, 6, 1), nn.ReLU6(),
        nn.ConvTranspose2d(6, 6, 2, stride=2, groups=6), nn.ReLU6(), nn.Conv2d(6, 2, 1),
    )  # fmt: skip


@kind(4, 1, 8, 8)
def conv_batch_norm() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Flatten(), nn.Linear(128, 10), nn.ReLU(), nn.Linear(10, 128),
        nn.Unflatten(1, (8, 4, 4)), nn.ReLU(),
        nn.ConvTranspose2d(8, 8, 2, stride=2, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 1, 3, padding=1), nn.Sigmoid(),
    )  # fmt: skip


@kind(4, 1, 8, 8)
def group_norm() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.GroupNorm(4, 8), nn.SiLU(),
        nn.Conv2d(8, 6, 3, padding=1), nn.InstanceNorm2d(6, affine=True), nn.ELU(),
        nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(6, 8, 3, padding=1),
        nn.GroupNorm(1, 8), nn.SiLU(), nn.Conv2d(8, 1, 1),
    )  # fmt: skip


@kind(4, 1, 8, 8)
def pixel_shuffle() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 6, 3, padding=1),
        nn.ReLU(), nn.Conv2d(6, 16, 3, padding=1), nn.PixelShuffle(2), nn.ReLU(),
        nn.Conv2d(4, 1, 3, padding=1),
    )  # fmt: skip


@kind(4, 1, 8, 8)
class Unpooling(nn.Module):
    """Pooling gives the positions where values came from, and the decoder puts them back."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 1, 3, padding=1)
        self.middle = nn.Conv2d(6, 6, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h, where = F.max_pool2d(F.relu(self.encoder(x)), 2, return_indices=True)
        return self.decoder(F.max_unpool2d(F.relu(self.middle(h)), where, 2))


@kind(4, 1, 8, 8)
class U_Net(nn.Module):
    """Skips are concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = self.block(1, 6), self.block(6, 8)
        self.bottom = self.block(8, 12)
        self.up2, self.up1 = nn.ConvTranspose2d(12, 8, 2, 2), nn.ConvTranspose2d(8, 6, 2, 2)
        self.dec2, self.dec1 = self.block(16, 8), self.block(12, 6)
        self.out = nn.Conv2d(6, 1, 1)

    @staticmethod
    def block(into: int, out: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(into, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        one = self.down1(x)
        two = self.down2(F.max_pool2d(one, 2))
        h = self.up2(self.bottom(F.max_pool2d(two, 2)))
        h = self.up1(self.dec2(torch.cat([h, two], 1)))
        return torch.sigmoid(self.out(self.dec1(torch.cat([h, one], 1))))


@kind(4, 2, 8, 8)
class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 8, 3, padding=1)
        self.conv1, self.norm1 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.norm2 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.down = nn.Conv2d(8, 6, 3, stride=2, padding=1)
        self.shortcut = nn.Conv2d(8, 6, 1, stride=2)
        self.up = nn.ConvTranspose2d(6, 2, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.first(x))
        h = F.relu(h + self.norm2(self.conv2(F.relu(self.norm1(self.conv1(h))))))
        return self.up(F.relu(self.down(h) + self.shortcut(h)))


@kind(4, 1, 8, 8, loss=elbo)
class Conv_VAE(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 6, 4, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 4, 2, 1), nn.ReLU(), nn.Flatten()
        )
        self.heads = nn.Linear(32, 8)
        self.decoder = nn.Sequential(
            nn.Linear(4, 32), nn.ReLU(), nn.Unflatten(1, (8, 2, 2)),
            nn.ConvTranspose2d(8, 6, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(6, 1, 4, 2, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, logvar = self.heads(self.encoder(x)).chunk(2, dim=1)
        noise = torch.randn_like(mean) if self.training else torch.zeros_like(mean)
        return self.decoder(mean + noise * (0.5 * logvar).exp()), mean, logvar


@kind(4, 2, 8, 8)
class Squeeze_Excitation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.out = nn.Conv2d(2, 8, 3, padding=1), nn.Conv2d(8, 2, 3, padding=1)
        self.squeeze, self.excite = nn.Linear(8, 4), nn.Linear(4, 8)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.first(x))
        scale = torch.sigmoid(self.excite(F.relu(self.squeeze(h.mean((2, 3))))))
        return self.out(h * scale[:, :, None, None])


@kind(4, 2, 8, 8)
class Conv_Next(nn.Module):
    """Depthwise, a norm over channels, an inverted bottleneck, a scale by layer, a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(2, 8, 2, 2)
        self.depth, self.norm = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.LayerNorm(8)
        self.wide, self.narrow = nn.Linear(8, 24), nn.Linear(24, 8)
        self.scale = nn.Parameter(0.1 * torch.ones(8))
        self.out = nn.ConvTranspose2d(8, 2, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.patch(x)
        inner = self.norm(self.depth(h).permute(0, 2, 3, 1))
        inner = self.scale * self.narrow(F.gelu(self.wide(inner)))
        return self.out(h + inner.permute(0, 3, 1, 2))


@kind(4, 1, 16)
class Wave_Net(nn.Module):
    """Gates of dilated convolutions, with skips that are summed."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.out = nn.Conv1d(1, 6, 1), nn.Conv1d(6, 1, 1)
        self.filters = nn.ModuleList(
            nn.Conv1d(6, 6, 3, padding=2**n, dilation=2**n) for n in range(2)
        )
        self.gates = nn.ModuleList(
            nn.Conv1d(6, 6, 3, padding=2**n, dilation=2**n) for n in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        h, skips = self.first(x), 0
        for filtered, gate in zip(self.filters, self.gates, strict=True):
            inner = torch.tanh(filtered(h)) * torch.sigmoid(gate(h))
            h, skips = h + inner, skips + inner
        return self.out(F.relu(skips))


@kind(4, 1, 16)
def weight_norm() -> nn.Module:
    normed = parametrizations.weight_norm
    return nn.Sequential(
        normed(nn.Conv1d(1, 8, 4, 2, 1)), nn.ReLU(), normed(nn.Conv1d(8, 6, 3, padding=1)),
        nn.ReLU(), normed(nn.ConvTranspose1d(6, 1, 4, 2, 1), dim=1),
    )  # fmt: skip


@kind(4, 24)
def weight_norm_by_hook() -> nn.Module:
    normed: Any = nn.utils.weight_norm
    return nn.Sequential(normed(nn.Linear(24, 10)), nn.ReLU(), normed(nn.Linear(10, 24)))


@kind(4, 24)
def spectral_norm() -> nn.Module:
    normed = parametrizations.spectral_norm
    return nn.Sequential(normed(nn.Linear(24, 10)), nn.ReLU(), normed(nn.Linear(10, 24)))


@kind(4, 2, 8, 8, loss=lambda output, x: F.mse_loss(output[0], x) + output[1])
class VQ_VAE(nn.Module):
    """The code is the nearest of a codebook, with gradients straight through."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(2, 8, 4, 2, 1), nn.ReLU(), nn.Conv2d(8, 4, 1))
        self.codebook = nn.Embedding(10, 4)
        self.decoder = nn.Sequential(
            nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(8, 2, 4, 2, 1)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.encoder(x)
        rows = z.permute(0, 2, 3, 1).reshape(-1, 4)
        nearest = torch.cdist(rows, self.codebook.weight).argmin(1)
        q = self.codebook(nearest).view(len(x), 4, 4, 4).permute(0, 3, 1, 2)
        both = F.mse_loss(q, z.detach()) + 0.25 * F.mse_loss(z, q.detach())
        return self.decoder(z + (q - z).detach()), both


# -- sequences -----------------------------------------------------------------------------------


class Recurrent(nn.Module):
    """The last state of an encoder is what a decoder begins with, and sees at every step."""

    def __init__(self, cell: Any, layers: int = 1, both_ways: bool = False, **more: Any) -> None:
        super().__init__()
        self.encoder = cell(5, 8, layers, batch_first=True, bidirectional=both_ways, **more)
        width = more.get("proj_size", 8) * (2 if both_ways else 1)
        self.decoder = cell(width, 8, layers, batch_first=True)
        self.out = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        codes, _ = self.encoder(x)
        seen, _ = self.decoder(codes[:, -1:].expand(-1, x.shape[1], -1))
        return self.out(seen)


for name, cell, more in (
    ("lstm", nn.LSTM, {}),
    ("lstm-layers", nn.LSTM, {"layers": 2, "both_ways": True}),
    ("lstm-projected", nn.LSTM, {"proj_size": 4}),
    ("gru", nn.GRU, {}),
    ("gru-layers", nn.GRU, {"layers": 2, "both_ways": True, "dropout": 0.1}),
    ("rnn", nn.RNN, {}),
):
    kind(4, 6, 5, name=name)(functools.partial(Recurrent, cell, **more))


@kind(4, 6, 5)
class Cells(nn.Module):
    """A decoder that reads its own output."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.GRUCell(5, 8), nn.LSTMCell(5, 8)
        self.out = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), 8)
        for t in range(x.shape[1]):
            h = self.encoder(x[:, t], h)
        y, c, steps = torch.zeros_like(x[:, 0]), torch.zeros_like(h), []
        for _ in range(x.shape[1]):
            h, c = self.decoder(y, (h, c))
            y = self.out(h)
            steps.append(y)
        return torch.stack(steps, 1)


@kind(4, 6, tokens=20)
class Token_LSTM(nn.Module):
    """Its output layer has the embedding's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 8, padding_idx=0)
        self.encoder, self.decoder = (nn.LSTM(8, 8, batch_first=True) for _ in range(2))
        self.out = nn.Linear(8, 20, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        e = self.embed(x)
        _, state = self.encoder(e)
        seen, _ = self.decoder(e.roll(1, 1), state)
        return self.out(seen)


@kind(4, 5, tokens=30, loss=lambda output, x: F.cross_entropy(output, x[:, 0]))
def bag() -> nn.Module:
    return nn.Sequential(nn.EmbeddingBag(30, 8), nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 30))


@kind(4, 2, tokens=16, loss=lambda output, x: output.square().mean())
class Factorisation(nn.Module):
    """Users and items, with biases in embeddings of one column."""

    def __init__(self) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(16, 6), nn.Embedding(16, 6)
        self.bias = nn.Embedding(16, 1)

    def forward(self, x: Tensor) -> Tensor:
        both = self.users(x[:, 0]) * self.items(x[:, 1])
        return both.sum(-1) + self.bias(x[:, 0]).squeeze(-1) - 1


@kind(3, 5, 8)
def transformer_layers() -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    return nn.Sequential(nn.Linear(8, 8), nn.TransformerEncoder(layer, 2), nn.Linear(8, 8))


@kind(3, 5, tokens=20)
class Transformer(nn.Module):
    """With tied embeddings and learnt positions; a decoder that looks at the encoder's output."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.positions = nn.Embedding(20, 8), nn.Parameter(torch.randn(1, 5, 8) * 0.1)
        self.both = nn.Transformer(8, 2, 1, 1, 16, dropout=0.0, batch_first=True)
        self.out = nn.Linear(8, 20)
        self.out.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        e = self.embed(x) + self.positions
        return self.out(self.both(e, e))


@kind(3, 5, 8)
class Attention(nn.Module):
    """One with all projections in a weight, and one where keys have another width."""

    def __init__(self) -> None:
        super().__init__()
        self.own = nn.MultiheadAttention(8, 2, batch_first=True)
        self.narrow = nn.Linear(8, 6)
        self.across = nn.MultiheadAttention(
            8, 2, kdim=6, vdim=6, batch_first=True, add_bias_kv=True
        )
        self.out = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        h = x + self.own(x, x, x, need_weights=False)[0]
        code = self.narrow(h)
        return self.out(h + self.across(h, code, code)[0])


class Conv1D(nn.Module):
    """As in Hugging Face's GPT-2: a linear layer whose weight is [in, out]."""

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf, self.nx = nf, nx
        self.weight = nn.Parameter(torch.randn(nx, nf) * 0.1)
        self.bias = nn.Parameter(torch.zeros(nf))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight)
        return y.view(*x.size()[:-1], self.nf)


@kind(3, 5, tokens=20)
class GPT(nn.Module):
    """A block of GPT-2, with tied embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(20, 8), nn.Embedding(5, 8)
        self.ln_1, self.ln_2, self.ln_f = (nn.LayerNorm(8) for _ in range(3))
        self.c_attn, self.c_proj = Conv1D(24, 8), Conv1D(8, 8)
        self.c_fc, self.c_out = Conv1D(16, 8), Conv1D(8, 16)
        self.lm_head = nn.Linear(8, 20, bias=False)
        self.lm_head.weight = self.wte.weight

    def attention(self, x: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (2, 4)).transpose(1, 2) for part in self.c_attn(x).split(8, 2)
        )
        scores = (q @ k.transpose(-1, -2)) / math.sqrt(4)
        return self.c_proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))

    def forward(self, x: Tensor) -> Tensor:
        h = self.wte(x) + self.wpe(torch.arange(x.shape[1], device=x.device))
        h = h + self.attention(self.ln_1(h))
        h = h + self.c_out(F.gelu(self.c_fc(self.ln_2(h))))
        return self.lm_head(self.ln_f(h))


@kind(3, 1, 8, 8)
class Masked_Autoencoder(nn.Module):
    """A vision transformer: patches, a token of its own, learnt positions, scaled products."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 8, 4, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.positions = nn.Parameter(torch.randn(1, 5, 8) * 0.1)
        self.qkv, self.proj = nn.Linear(8, 24), nn.Linear(8, 8)
        self.norm1, self.norm2 = nn.LayerNorm(8), nn.LayerNorm(8)
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
        self.out = nn.Linear(8, 16)

    def forward(self, x: Tensor) -> Tensor:
        h = self.patches(x).flatten(2).transpose(1, 2)
        h = torch.cat([self.token.expand(len(h), -1, -1), h], 1) + self.positions
        n, t, _ = h.shape
        q, k, v = self.qkv(self.norm1(h)).reshape(n, t, 3, 2, 4).permute(2, 0, 3, 1, 4)
        h = h + self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, 8))
        h = h + self.mlp(self.norm2(h))
        y = self.out(h[:, 1:]).view(n, 2, 2, 4, 4)
        return y.permute(0, 1, 3, 2, 4).reshape(n, 1, 8, 8)


@kind(4, 6, 8)
class Mixer(nn.Module):
    """Layers over tokens and layers over channels, in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Sequential(nn.Linear(6, 12), nn.GELU(), nn.Linear(12, 6))
        self.channels = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
        self.norm, self.out = nn.LayerNorm(8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.tokens(self.norm(x).transpose(1, 2)).transpose(1, 2)
        return self.out(x + self.channels(x))
