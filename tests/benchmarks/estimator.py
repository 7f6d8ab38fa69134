"""`evoae.Autoencoder` beside PCA and scikit-learn's MLPRegressor: loss, size and time to fit."""

from __future__ import annotations

import math
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import save
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPRegressor
from sklearn.preprocessing import MinMaxScaler

from evoae import Autoencoder
from evoae.data.built_in import BUILT_IN

SPLITS = range(3)  # seeds of the split, and of what is fitted
CODE, LAYERS = 10, (30, 10, 30)  # of the standard model


def data() -> dict[str, np.ndarray]:
    """Rows [n, D] by name."""
    faces = BUILT_IN["lfw_subset"]()
    return {
        "digits": load_digits().data,
        "faces": faces.reshape(len(faces), -1),
        "breast cancer": load_breast_cancer().data,
    }


def fitted(train: np.ndarray, seed: int) -> Iterator[tuple[str, float, Any, int, int, int]]:
    """Every method: its name, seconds to fit, what reconstructs, numbers, code, bytes of its file.

    Numbers are the weights and biases that are not zero, or components and means.
    """
    model, seconds = timed(Autoencoder("frontier", target_sparsity=0.9, random_state=seed), train)
    numbers = round(model.n_parameters_ * (1 - model.sparsity_))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "small.safetensors")
        exported = model.export(path)
        code = exported.compacted.layers[1].weight.shape[0]
        yield "Autoencoder", seconds, model.reconstruct, numbers, code, path.stat().st_size
    dimension = train.shape[1]
    same = (numbers - dimension) // dimension  # components beside the means
    for name, components in (("PCA, as many numbers", same), ("PCA, the same code", CODE)):
        pca, seconds = timed(PCA(components), train)
        arrays = {"mean": pca.mean_, "components": pca.components_}
        yield name, seconds, through(pca), *sizes(arrays, components)
    fewer = (numbers - dimension) // (2 * dimension + 1)  # in one hidden layer
    for name, layers, code in (
        ("MLPRegressor, as many numbers", (fewer,), fewer),
        ("MLPRegressor, the same layers", LAYERS, CODE),
    ):
        mlp = MLPRegressor(hidden_layer_sizes=layers, max_iter=500, tol=1e-6, random_state=seed)
        mlp, seconds = timed(mlp, train, train)
        arrays = {f"weight.{n}": w for n, w in enumerate(mlp.coefs_)}
        arrays |= {f"bias.{n}": b for n, b in enumerate(mlp.intercepts_)}
        yield name, seconds, mlp.predict, *sizes(arrays, code)


def timed(model: Any, *given: np.ndarray) -> tuple[Any, float]:
    """The model fitted, and the processor's seconds."""
    begun = time.process_time()
    model.fit(*given)
    return model, time.process_time() - begun


def through(pca: PCA) -> Any:
    """Reconstructions of principal components."""
    return lambda rows: pca.inverse_transform(pca.transform(rows))


def sizes(arrays: dict[str, np.ndarray], code: int) -> tuple[int, int, int]:
    """Numbers, code, and bytes as float32 in a `.safetensors`."""
    small = {name: np.ascontiguousarray(a, dtype=np.float32) for name, a in arrays.items()}
    return sum(a.size for a in small.values()), code, len(save(small))


def table() -> pd.DataFrame:
    """A row per data set and method, means over splits: L1 (`loss`) and RMSE of held-out rows."""
    rows = []
    for name, X in data().items():
        for seed in SPLITS:
            train, test = train_test_split(X, test_size=0.25, random_state=seed)
            scaler = MinMaxScaler().fit(train)
            train, test = scaler.transform(train), scaler.transform(test)
            for method, seconds, model, numbers, code, size in fitted(train, seed):
                gaps = model(test) - test
                losses = float(np.abs(gaps).mean()), float(np.sqrt((gaps**2).mean()))
                rows.append((name, method, *losses, numbers, code, size, seconds))
    columns = ["data", "method", "loss", "rmse", "numbers", "code", "bytes", "seconds"]
    found = pd.DataFrame(rows, columns=columns).groupby(columns[:2], sort=False)
    means = found.mean()
    means.insert(1, "interval", found["loss"].std() / math.sqrt(len(SPLITS)) * 4.303)  # t, 95 %
    return means


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(table().round(4).to_string())
