"""The peer that every click model has to beat: logistic regression on one-hot values, trained on the same rows."""

from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from deepfm.data.preparing import ROWS_FILE, valid_batches, values_file
from deepfm.data.sampling import labels_of
from deepfm.data.shards import open_shard
from deepfm.data.vocabulary import fill_missing
from deepfm.manifests import ValidationReport, Window
from deepfm.metrics import auc
from deepfm.workspace import Workspace

Frame = tuple[pd.DataFrame, NDArray[np.uint8]]


def logistic_auc(workspace: Workspace, window: Window, holdout: ValidationReport, *, strength: float = 1.0) -> float:
    """AUC on the holdout of a one-hot logistic regression with inverse penalty `strength`, fitted to the window."""
    fields, numbers = list(window.categorical), list(window.numeric)
    columns = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), fields),
        (make_pipeline(SimpleImputer(), StandardScaler()), numbers),
    )
    model = make_pipeline(columns, LogisticRegression(C=strength, max_iter=300))
    rows, labels = training_frame(workspace, window)
    model.fit(rows, labels)
    tested, truth = holdout_frame(workspace, holdout)
    return auc(model.predict_proba(tested)[:, 1], truth)


def training_frame(workspace: Workspace, window: Window) -> Frame:
    """The sampled rows of a window with their raw values."""
    frames, labels = [], []
    for day in window.days:
        files = workspace.day_files(workspace.prepared(day))
        paths = [files[values_file(index)] for index in range(len(window.categorical))]
        values = [pq.read_table(path).column("value").to_numpy() for path in paths]
        for rows in open_shard(files[ROWS_FILE], fields=len(values), numeric=len(window.numeric)):
            data: dict[str, NDArray[Any]] = {
                name: values[i][rows.codes[:, i]] for i, name in enumerate(window.categorical)
            }
            data |= {name: rows.numeric[:, i] for i, name in enumerate(window.numeric)}
            frames.append(pd.DataFrame(data))
            labels.append(rows.labels)
    return pd.concat(frames, ignore_index=True), np.concatenate(labels)


def holdout_frame(workspace: Workspace, report: ValidationReport) -> Frame:
    """All valid rows of a day with their raw values."""
    config = workspace.config
    frames, labels = [], []
    batches = valid_batches(
        workspace.source, report.partition, config, quarantine=workspace.quarantine(report), cache=workspace.cache
    )
    for batch in batches:
        data = {
            name: fill_missing(batch.rows.column(name)).to_numpy(zero_copy_only=False) for name in config.categorical
        }
        data |= {name: batch.rows.column(name).to_numpy(zero_copy_only=False) for name in config.numeric}
        frames.append(pd.DataFrame(data))
        labels.append(labels_of(batch.rows, config))
    return pd.concat(frames, ignore_index=True), np.concatenate(labels)
