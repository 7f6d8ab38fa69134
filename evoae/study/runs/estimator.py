"""An estimator for scikit-learn: from rows to a small autoencoder in one line."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from numbers import Integral
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from joblib import Parallel, delayed
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags, check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import nn

from evoae.data.memory import named
from evoae.data.scaling import Scaling
from evoae.data.splits import BLOCK
from evoae.experiment import Experiment
from evoae.messages import short
from evoae.study.runs import exports
from evoae.study.runs.checked_rows import refuse_outside, rows_of
from evoae.study.runs.files import Temporary
from evoae.study.runs.run import FILES, Run
from evoae.study.runs.sweeps import run

STEPS = 50_000  # model steps of a fit, where `epochs` does not say how many
LEAST_EPOCHS, EPOCHS_A_ROW = 20, 5  # and the bounds of its epochs, for very many and very few rows
EXAMPLES = 100  # random rows that a copy compares an export on
PARTS = 7  # one row in so many is measured as validation and test
WHERE = ("out", "device", "engine")  # what `settings` may hold for `run`
# What some operators and schedules cannot do, and what a preset asks for: tried in this order.
SIMPLER: tuple[dict[str, Any], ...] = (
    {},
    {"allocation": "layer"},
    {"allocation": "layer", "drop_fraction": 0.0},
)
DERIVED = (  # from the run's files: not stored a second time
    *("run_", "history_", "encoder_", "decoder_", "sparsity_", "n_parameters_"),
    *("_scaling", "_exact", "_examples"),
)


class Autoencoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """An autoencoder that is pruned while it trains, as a scikit-learn transformer.

    `preset` is one of `evoae list`. The next six parameters replace its settings where they are not
    None; `settings` is a dict of any others, such as {"batch_size": 20, "cells": 5}. Unless you set
    them, a preset's ranking over all layers and its swaps of weights are left out where your
    operator or schedule cannot do them, and biases are pruned too where the network has too few
    weights for its target sparsity. With `epochs=None`, training takes about 50,000 model steps,
    but at least 20 epochs, and at most 5 epochs per row if that is more than 20.

    `fit` scales each column to [0, 1] by its minimum and maximum, and what comes out is scaled
    back. Later values may lie outside that range. {"scale": True} scales all columns alike, and
    {"scale": False} takes values in [0, 1] as they are.

    `fit` trains on all rows. Every seventh row is also the validation and test data of the run, so
    losses in `run_` and `history_` are not of held-out rows: `score` rows of your own for that.

    `random_state` is the run's seed, a RandomState to draw it from, or None for a new one in each
    fit. `n_jobs` is the number of threads that compute codes and reconstructions of many rows; a
    fit is one trial, in one process. Numbers do not depend on it. `verbose=1` shows a progress bar.

    The run lies in a temporary folder that is removed with the estimator. With {"out": "runs"} it
    stays in that folder, and the same fit is found there again. Copies and pickles carry the run's
    files (the weights as safetensors) without the rows, and work without the folder.

    Attributes: `run_`, the Run; `history_`, a row per epoch and cell; `encoder_` and `decoder_`,
    PyTorch modules from the units of X to the code and back; `sparsity_`, the share of parameters
    that are zero; `n_parameters_`, the number of all, zeros included; `n_features_in_`;
    `feature_names_in_`.
    """

    def __init__(
        self,
        preset: str = "frontier",
        *,
        model: Any = None,
        operator: Any = None,
        schedule: Any = None,
        target_sparsity: float | None = None,
        epochs: int | None = None,
        learning_rate: float | None = None,
        settings: Mapping[str, Any] | None = None,
        random_state: int | np.random.RandomState | None = None,
        n_jobs: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.preset = preset
        self.model = model
        self.operator = operator
        self.schedule = schedule
        self.target_sparsity = target_sparsity
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.settings = settings
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> Self:
        """Train on rows X [n, D], n at least 2: an array, a frame, a sparse matrix, a tensor or a
        torch Dataset of numbers.

        Raises ValueError for a wrong parameter, with the valid choices, and for rows that cannot be
        used.
        """
        X = self._checked(X, reset=True, ensure_min_samples=2)
        check_counts(self.n_jobs, self.verbose)
        settings, where = self._settings()
        if settings["scale"] is False:
            refuse_outside(X, "X", getattr(self, "feature_names_in_", None), unit=True)
        rows = named({"train": X, "validation": X[::PARTS], "test": X[::PARTS]})
        rows.words = "X"  # in messages
        experiment = self._experiment(dataset=rows, **settings)
        if "epochs" not in settings:
            experiment = experiment.replace(epochs=epochs_of(X.shape[0], experiment.batch_size))
        seed = seed_of(self.random_state)
        found = run(experiment, seed=seed, workers=1, progress=bool(self.verbose), **where)
        self._files = found.folder.name, {n: (found.folder / n).read_bytes() for n in FILES}
        self._adopt(found)
        self._examples: torch.Tensor | None = None
        return self

    def _settings(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Settings of the experiment, and arguments of `run`."""
        if not isinstance(self.settings, Mapping | None):
            raise ValueError(f"settings={short(self.settings)} must be a dict of names and values")
        rest = dict(self.settings or {})
        where = {name: rest.pop(name) for name in WHERE if name in rest}
        names = ("model", "operator", "schedule", "target_sparsity", "epochs", "learning_rate")
        own = {name: value for name in names if (value := getattr(self, name)) is not None}
        if wrong := [name for name in rest if not isinstance(name, str)]:
            raise ValueError(f"settings holds {short(wrong[0])}, which is not a setting's name")
        for name in {"dataset", "leave_out"} & rest.keys():
            raise ValueError(f"settings cannot hold {name}: fit learns from the rows it is given")
        if twice := sorted(own.keys() & rest.keys()):
            raise ValueError(f"{twice[0]} is given twice; leave it out of settings")
        return {"scale": "columns"} | own | rest, where

    def _experiment(self, **settings: Any) -> Experiment:
        """The preset with these settings, without what the operator or schedule cannot do."""
        for simpler in SIMPLER:
            try:
                found = Experiment.preset(self.preset, **simpler | settings)
                break
            except ValueError:
                if simpler == SIMPLER[-1]:
                    raise
        if "prune_biases" not in settings and found.target_sparsity > found.most_sparse:
            found = found.replace(prune_biases=True)
        return found

    def _adopt(self, found: Run) -> None:
        """Take over what a run has found."""
        self.run_ = found
        self.history_ = found.history
        self.n_parameters_ = found.population.parameters
        self.sparsity_ = 1 - found.result["trials"][0]["best_preserved"]
        scaling, (encoder, decoder) = found.scaling, found.best()
        self._exact = tuple(side.double() for side in found.best())
        self._scaling = scaling or Scaling(np.zeros(1), np.ones(1))
        if scaling is not None:
            encoder = nn.Sequential(exports.Scale(scaling), *encoder)
            decoder.append(exports.Unscale(scaling))
        self.encoder_, self.decoder_ = encoder, decoder

    def transform(self, X: Any) -> np.ndarray:
        """The codes [n, K] of rows X [n, D]; float32 for float32, else float64."""
        X = self._checked(X)
        return self._by_blocks(X, self._encode, self._n_features_out, kind_of(X))

    def inverse_transform(self, Z: Any) -> np.ndarray:
        """The rows [n, D] that codes Z [n, K] stand for, in the units of X."""
        check_is_fitted(self)
        Z = check_array(rows_of(Z, "Z"), accept_sparse="csr", ensure_all_finite=False)
        refuse_outside(Z, "Z")
        if Z.shape[1] != self._n_features_out:
            raise ValueError(f"Z has {Z.shape[1]} columns; the code has {self._n_features_out}")
        return self._by_blocks(Z, self._decode, self.n_features_in_, kind_of(Z))

    def reconstruct(self, X: Any) -> np.ndarray:
        """What the autoencoder makes of rows X [n, D], in their units."""
        X = self._checked(X)
        both = lambda rows: self._decode(self._encode(rows))  # noqa: E731
        return self._by_blocks(X, both, self.n_features_in_, kind_of(X))

    def score(self, X: Any, y: Any = None) -> float:
        """Minus the mean absolute difference of X and `reconstruct(X)`: higher is better.

        In the units of X: if columns have different units, scale them before.
        """
        return -float(self.score_samples(X).mean())

    def score_samples(self, X: Any) -> np.ndarray:
        """The reconstruction error of each row [n]: its mean absolute difference, in units of X.

        **Higher is more abnormal**, as in PyOD and unlike scikit-learn's density estimators.
        """
        return self._errors(X, np.ones(1))

    def decision_function(self, X: Any) -> np.ndarray:
        """Anomaly scores [n] as PyOD's, higher is more abnormal: reconstruction errors in which
        every column counts alike, each measured in the range that it had in `fit`."""
        check_is_fitted(self)
        return self._errors(X, self._scaling.divisor)

    def export(self, path: Path | str) -> exports.Exported:
        """Write the network, without units that it does not need, as `.onnx` or `.safetensors`.

        The file takes and gives values in the units of X; ONNX names its outputs `code` and
        `reconstruction`. What was written is compared with the network on rows of `fit`, or, in a
        copy of the estimator, on random ones. Raises ValueError as `exports.export` does.
        """
        check_is_fitted(self)
        return exports.export(self.run_, path, examples=self._examples)

    @property
    def _n_features_out(self) -> int:
        """K, the width of the code."""
        return self.run_.population.decoder.widths[0]

    def _checked(self, X: Any, reset: bool = False, **options: Any) -> Any:
        """Rows as an array or a sparse matrix of finite numbers, in the columns that `fit` saw."""
        if not reset:
            check_is_fitted(self)
        X = rows_of(X, "X")
        options |= {"reset": reset, "accept_sparse": "csr", "ensure_all_finite": False}
        X = validate_data(self, X, **options)
        refuse_outside(X, "X", getattr(self, "feature_names_in_", None))
        return X

    def _encode(self, rows: np.ndarray) -> np.ndarray:
        return apply(self._exact[0], (rows - self._scaling.minimum) / self._scaling.divisor)

    def _decode(self, codes: np.ndarray) -> np.ndarray:
        return self._scaling.raw(apply(self._exact[1], codes))

    def _errors(self, X: Any, unit: np.ndarray) -> np.ndarray:
        """Mean absolute differences [n] of rows, in a unit [1], or one for each column [D]."""

        def of(rows: np.ndarray) -> np.ndarray:
            gaps = self._decode(self._encode(rows)) - rows
            return np.abs(gaps / unit).mean(axis=1, keepdims=True)

        return self._by_blocks(self._checked(X), of, 1, np.dtype(np.float64))[:, 0]

    def _by_blocks(
        self, X: Any, function: Callable[[np.ndarray], np.ndarray], width: int, kind: np.dtype
    ) -> np.ndarray:
        """What a function makes of rows, [n, width], some rows at a time."""
        made = np.empty((X.shape[0], width), kind)

        def fill(start: int) -> None:
            rows = X[start : start + BLOCK]
            rows = rows.toarray() if issparse(rows) else rows
            made[start : start + BLOCK] = function(np.asarray(rows, np.float64))

        starts = range(0, X.shape[0], BLOCK)
        Parallel(self.n_jobs, require="sharedmem")(delayed(fill)(start) for start in starts)
        return made

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in super().__getstate__().items() if k not in DERIVED}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "_files" in state:
            name, files = self._files
            temporary = Temporary()
            folder = Path(temporary.name, name)
            folder.mkdir()
            for file, content in files.items():
                (folder / file).write_bytes(content)
            found = Run(folder)
            found.temporary = temporary
            self._adopt(found)
            seeded = torch.Generator().manual_seed(0)
            self._examples = torch.rand(EXAMPLES, self.n_features_in_, generator=seeded)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def epochs_of(rows: int, batch_size: int) -> int:
    """Epochs that make STEPS model steps, within the bounds."""
    enough = math.ceil(STEPS / math.ceil(rows / batch_size))
    return max(LEAST_EPOCHS, min(enough, EPOCHS_A_ROW * rows))


def seed_of(random_state: Any) -> int:
    """A run's seed: an int as it is, a draw of a RandomState, or, for None, one of no other fit."""
    if random_state is None:
        return int(np.random.SeedSequence().generate_state(1)[0])
    try:
        drawn = check_random_state(random_state)
    except ValueError:
        raise ValueError(
            f"random_state={short(random_state)} must be None, a RandomState or a whole number, 0 "
            "or more, below 2**32"
        ) from None
    if isinstance(random_state, Integral):
        return int(random_state)
    return int(drawn.randint(np.iinfo(np.int32).max))


def check_counts(n_jobs: Any, verbose: Any) -> None:
    """Raise ValueError for what is no number of threads, or no 0 or 1."""
    if n_jobs is not None and not (isinstance(n_jobs, Integral) and n_jobs):
        rule = "be None or a whole number other than 0 (-1: all processors)"
        raise ValueError(f"n_jobs={short(n_jobs)} must {rule}")
    if not isinstance(verbose, Integral) or verbose < 0:
        raise ValueError(f"verbose={short(verbose)} must be 0 (silent) or 1 (a progress bar)")


def kind_of(X: Any) -> np.dtype:
    """The type of what becomes of X."""
    return np.dtype(np.float32 if X.dtype == np.float32 else np.float64)


def apply(network: nn.Sequential, rows: np.ndarray) -> np.ndarray:
    """A network's outputs for rows, in double precision.

    In float32, a row's outputs would depend on how many others are computed with it.
    """
    with torch.no_grad():
        return network(torch.tensor(rows)).numpy()  # a copy: rows may be read-only
