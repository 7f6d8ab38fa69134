"""Rows as scikit-learn hands them to an estimator, checked: errors name row and column."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import find, issparse

from evoae.data import tables
from evoae.data.memory import array_of, frame_of
from evoae.data.ready import TOLERANCE
from evoae.messages import Refused, short

ACCEPTED = "an array, a list of rows, a DataFrame, a sparse matrix, a tensor or a torch Dataset"


def rows_of(X: Any, name: str) -> Any:
    """X as scikit-learn can check it: numbers as an array, a frame or a sparse matrix [n, D].

    Tensors, torch data sets and tables of polars and Arrow become those. Raises ValueError for what
    holds no table of numbers, with the column.
    """
    try:
        if issparse(X):
            rows = X
        elif (frame := frame_of(X)) is not None:
            texts = frame.set_axis([str(column) for column in frame], axis=1)
            values = tables.numbers(texts, cure="; encode the column, or drop it")
            kind = np.float32 if (frame.dtypes == np.float32).all() else np.float64
            values = values.astype(kind, copy=False)
            return pd.DataFrame(values, columns=frame.columns) if values.size else values
        else:
            rows = array_of(X, f"{{}} must be {ACCEPTED}")
        if rows.dtype.kind == "c":
            raise Refused(f"Complex data not supported: values are of type {rows.dtype}")
        if rows.dtype.kind not in "biuf":
            raise Refused(f"values of type {rows.dtype} are not compatible with real numbers")
        if rows.ndim != 2:
            raise Refused(
                f"Found array with dim {rows.ndim}, of shape {rows.shape}; it must be [rows, "
                f"columns]. Reshape your data: {name}.reshape(len({name}), -1), or "
                f"{name}.reshape(1, -1) if it is a single row"
            )
        return rows
    except (Refused, OverflowError, RuntimeError) as error:
        raise ValueError(f"{name}: {error}") from None


def refuse_outside(X: Any, name: str, columns: Any = None, *, unit: bool = False) -> None:
    """Raise ValueError for the first value that is not finite, or, with `unit`, not in [0, 1]."""
    *where, values = find(X) if issparse(X) else (X,)
    good = (values >= -TOLERANCE) & (values <= 1 + TOLERANCE) if unit else np.isfinite(values)
    if good.all():
        return
    at = tuple(np.argwhere(~good)[0])
    row, column = (each[at] for each in where) if where else at
    cell = f"row {row}, column {column if columns is None else short(columns[column])}"
    if not unit:
        found = "NaN" if np.isnan(values[at]) else "infinity"
        raise ValueError(f"Input {name} contains {found}: {cell}; values must be finite")
    raise ValueError(
        f"{name}: {cell} holds {values[at]}; with scale=False, values must lie in [0, 1]; without "
        "it, each column is scaled"
    )
