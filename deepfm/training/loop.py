"""The training loop: steps, checks, early stopping, averaging, and a state that resumes to the same bytes."""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel

from deepfm.config import RetrainConfig
from deepfm.errors import ConfigError, TrainingError, UndefinedMetricError, WindowError
from deepfm.manifests import CurvePoint, Window
from deepfm.metrics import auc, gauc, paired_auc
from deepfm.model import DeepFM
from deepfm.training.batches import Batch, Slice, WindowRows, resolve_batch_size
from deepfm.training.checkpoint import ResumeStates
from deepfm.training.losses import prior_scale, resolve_pos_weight, row_losses
from deepfm.training.reproducible import reproducible

logger = logging.getLogger(__name__)
Progress = Callable[[int, int], None]
"""Called with steps done and steps planned."""
_SCORING_ROWS = 16_384


class Fitted(NamedTuple):
    """What training leaves."""

    model: DeepFM
    steps: int
    planned_steps: int
    best_step: int
    batch_size: int
    pos_weight: float
    device: str
    curve: tuple[CurvePoint, ...]


@dataclass
class Standing:
    """How far the training is; with the tensors beside it, all that a resume needs."""

    step: int = 0
    best_step: int = 0
    best_auc: float | None = None
    worse_checks: int = 0
    loss_total: float = 0.0
    loss_steps: int = 0
    curve: list[CurvePoint] = field(default_factory=list)

    def to_plain(self) -> dict[str, Any]:
        """JSON values of it."""
        return {**vars(self), "curve": [point.model_dump() for point in self.curve]}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> "Standing":
        """The standing in JSON values."""
        return cls(**{**plain, "curve": [CurvePoint.model_validate(point) for point in plain["curve"]]})


class Trainer:
    """Fits one model to one window."""

    def __init__(self, rows: WindowRows, window: Window, config: RetrainConfig) -> None:
        """A freshly initialised model on the configured device.

        Raises:
            WindowError: terminal; every row is held back.
            ConfigError: terminal; CUDA was asked for and there is none.
        """
        if rows.training_rows == 0:
            raise WindowError(
                f"window before {window.logical_date} has no row to train on",
                observed="every row is held back for early stopping",
                where="training.validation_share, training.validation_by",
                next_step="Set training.validation_by to row, or widen the window.",
            )
        self._rows, self._config, self._window = rows, config, window
        self._device = resolve_device(config.training.device)
        self._batch_size = resolve_batch_size(config, rows=rows.training_rows)
        self._steps_per_epoch = max(1, rows.training_rows // self._batch_size)
        self._planned = self._steps_per_epoch * config.training.epochs
        self._pos_weight = resolve_pos_weight(config.loss, window)
        torch.manual_seed(config.training.seed)
        self._model = new_model(window, config).to(self._device)
        self._optimizer = _adam(self._model, config, fused=True)
        self._plateau = _plateau(self._optimizer, config)
        self._average = _averaged(self._model) if config.training.average_last else None
        rate = window.clicks / (window.clicks + window.weighted_negatives)
        scale = prior_scale(config.loss, pos_weight=self._pos_weight, rate=rate)
        self._share = (rows.inverse_counts() * scale).to(self._device)
        self._standing = Standing()
        self._best: dict[str, Tensor] = {}
        self._best_scores: NDArray[np.float64] | None = None
        self._slice: Slice | None = None

    def fit(self, *, states: ResumeStates | None = None, progress: Progress | None = None) -> Fitted:
        """The fitted model: the last weights, or the best if those are worse by more than a standard error.

        Raises:
            TrainingError: terminal; a loss, a score or a weight is not finite.
        """
        with reproducible(batch_size=self._batch_size):
            if self._config.training.validation_share > 0:
                self._slice = self._rows.validation_slice(device=self._device)
            if states is not None:
                self._resume(states)
            self._run(states, progress)
            self._settle()
        standing = self._standing
        return Fitted(
            self._model.eval(), standing.step, self._planned, standing.best_step, self._batch_size, self._pos_weight,
            self._device.type, tuple(standing.curve),
        )  # fmt: skip

    def _run(self, states: ResumeStates | None, progress: Progress | None) -> None:
        standing, saved = self._standing, time.monotonic()
        first_epoch, used = divmod(standing.step, self._steps_per_epoch)
        for epoch in range(first_epoch, self._config.training.epochs):
            batches = self._rows.epoch(epoch, batch_size=self._batch_size, device=self._device, skip=used)
            used = 0
            for batch in batches:
                self._step(batch)
                if progress is not None:
                    progress(standing.step, self._planned)
                if standing.step % self._check_every() == 0 or standing.step == self._planned:
                    self._check()
                    if standing.worse_checks >= self._config.training.patience:
                        logger.info("stopped early at step %d of %d", standing.step, self._planned)
                        return
                if states is not None and time.monotonic() - saved > self._config.training.checkpoint_every_seconds:
                    states.save(standing.step, *self._state())
                    saved = time.monotonic()

    def _step(self, batch: Batch) -> None:
        training = self._config.training
        self._model.train()
        if training.schedule == "decay":
            _set_rates(self._optimizer, self._config, factor=1.0 - self._standing.step / self._planned)
        logits = self._model(batch.ids, batch.numeric)
        losses = row_losses(logits, batch.labels, config=self._config.loss, pos_weight=self._pos_weight)
        loss = (losses * batch.weights).mean()
        total = loss + _penalty(self._model, batch, self._config, self._share)
        self._optimizer.zero_grad(set_to_none=True)
        total.backward()
        self._optimizer.step()
        standing = self._standing
        standing.step += 1
        standing.loss_total += self._finite(float(loss.detach()))
        standing.loss_steps += 1
        if self._average is not None and standing.step > (1.0 - training.average_last) * self._planned:
            self._average.update_parameters(self._model)

    def _finite(self, figure: float) -> float:
        if math.isfinite(figure):
            return figure
        raise TrainingError(
            f"training diverged at step {self._standing.step}",
            observed=figure,
            required="finite losses, scores and weights",
            where=f"window of {self._window.logical_date}",
            next_step="Lower training.learning_rate and training.embedding_learning_rate.",
        )

    def _check(self) -> None:
        """Append a point to the learning curve and compare with the best check so far."""
        standing = self._standing
        train_loss = standing.loss_total / max(standing.loss_steps, 1)
        standing.loss_total, standing.loss_steps = 0.0, 0
        point = CurvePoint(
            step=standing.step, train_loss=train_loss, learning_rate=self._optimizer.param_groups[0]["lr"]
        )
        scores = self._slice_scores()
        if scores is not None:
            point = point.model_copy(update=self._slice_figures(scores))
        standing.curve.append(point)
        logger.info(
            "step %d of %d: loss %.5f, held-back AUC %s", standing.step, self._planned, train_loss, point.validation_auc
        )
        if scores is None or point.validation_auc is None:
            return
        if self._plateau is not None:
            self._plateau.step(point.validation_auc)
        if standing.best_auc is None or point.validation_auc > standing.best_auc:
            standing.best_auc, standing.best_step, standing.worse_checks = point.validation_auc, standing.step, 0
            self._best = {name: t.detach().clone() for name, t in self._shipped().state_dict().items()}
            self._best_scores = scores
        else:
            standing.worse_checks = standing.worse_checks + 1 if self._clearly_worse(scores) else 0

    def _clearly_worse(self, scores: NDArray[np.float64]) -> bool:
        """Whether held-back scores are below the best ones by more than one paired standard error.

        Breiman's one-standard-error rule: picking the best of many noisy checks would prefer weights from before the
        rate came down, which are worse calibrated.
        """
        if self._slice is None or self._best_scores is None:
            return False
        paired = paired_auc(scores, self._best_scores, self._slice.labels)
        return paired.difference < -paired.error

    def _settle(self) -> None:
        """Leave in the model what is to be shipped."""
        shipped = self._shipped()
        if shipped is not self._model:
            self._model.load_state_dict(shipped.state_dict())
        scores = self._slice_scores()
        if scores is not None and self._best and self._clearly_worse(scores):
            self._model.load_state_dict(self._best)
            logger.info("restored the weights of step %d", self._standing.best_step)
        else:
            self._standing.best_step = self._standing.step
        for parameter in self._model.parameters():
            self._finite(float(parameter.detach().sum()))

    def _shipped(self) -> torch.nn.Module:
        """The average once it has begun, else the model itself."""
        if self._average is not None and int(self._average.n_averaged) > 0:
            return self._average.module
        return self._model

    def _slice_scores(self) -> NDArray[np.float64] | None:
        if self._slice is None or not len(self._slice.labels):
            return None
        model = self._shipped()
        model.eval()
        batch = self._slice.batch
        with torch.no_grad():
            parts = [
                model(batch.ids[start : start + _SCORING_ROWS], batch.numeric[start : start + _SCORING_ROWS])
                for start in range(0, len(batch.labels), _SCORING_ROWS)
            ]
        scores = np.asarray(torch.cat(parts).cpu().numpy(), dtype=np.float64)
        self._finite(float(scores.sum()))
        return scores

    def _slice_figures(self, scores: NDArray[np.float64]) -> dict[str, float]:
        if self._slice is None:
            return {}
        batch = self._slice.batch
        logits = torch.from_numpy(scores.astype(np.float32)).to(self._device)
        losses = row_losses(logits, batch.labels, config=self._config.loss, pos_weight=self._pos_weight)
        figures = {"validation_loss": float((losses * batch.weights).mean())}
        try:
            figures["validation_auc"] = auc(scores, self._slice.labels)
            if self._config.data.group:
                figures["validation_gauc"] = gauc(scores, self._slice.labels, self._slice.groups).value
        except UndefinedMetricError as error:
            logger.info("held-back rows do not define every figure: %s", error)
        return figures

    def _check_every(self) -> int:
        wanted = self._config.training.eval_every_steps
        return max(1, self._steps_per_epoch // 4) if wanted == "auto" else wanted

    def _state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors = {f"model.{name}": t for name, t in self._model.state_dict().items()}
        tensors |= {f"best.{name}": t for name, t in self._best.items()}
        if self._average is not None:
            tensors |= {f"average.{name}": t for name, t in self._average.state_dict().items()}
        for index, state in self._optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{index}.{name}": t for name, t in state.items()}
        if self._best_scores is not None:
            tensors["best_scores"] = torch.from_numpy(self._best_scores)
        tensors["rng"] = torch.get_rng_state()
        plateau = _plateau_state(self._plateau)
        rates = [group["lr"] for group in self._optimizer.param_groups]
        return tensors, {"standing": self._standing.to_plain(), "plateau": plateau, "rates": rates}

    def _resume(self, states: ResumeStates) -> None:
        loaded = states.load()
        if loaded is None:
            return
        tensors, plain = loaded
        self._model.load_state_dict(_below(tensors, "model."))
        self._best = {name: t.to(self._device) for name, t in _below(tensors, "best.").items()}
        if self._average is not None:
            self._average.load_state_dict(_below(tensors, "average."))
        packed = self._optimizer.state_dict()
        packed["state"] = _adam_state(_below(tensors, "adam."))
        self._optimizer.load_state_dict(packed)
        for group, rate in zip(self._optimizer.param_groups, plain["rates"], strict=True):
            group["lr"] = rate
        if self._plateau is not None:
            self._plateau.load_state_dict(plain["plateau"])
        self._best_scores = tensors["best_scores"].numpy() if "best_scores" in tensors else None
        self._standing = Standing.from_plain(plain["standing"])
        torch.set_rng_state(tensors["rng"])
        logger.info("resumed at step %d of %d", self._standing.step, self._planned)


def new_model(window: Window, config: RetrainConfig) -> DeepFM:
    """An untrained model for a window."""
    return DeepFM(
        vocabulary_sizes=[window.vocabulary_sizes[name] for name in window.categorical],
        numeric_fields=len(window.numeric),
        network=config.network,
    )


def resolve_device(wanted: str) -> torch.device:
    """The device to train on.

    Raises:
        ConfigError: terminal; CUDA was asked for and there is none.
    """
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise ConfigError(
            "training.device is cuda and torch sees no CUDA device",
            observed=f"torch {torch.__version__}",
            next_step="Install a CUDA build of torch and its driver, or set training.device to auto.",
        )
    return torch.device("cuda" if available and wanted != "cpu" else "cpu")


def _adam(model: DeepFM, config: RetrainConfig, *, fused: bool) -> torch.optim.Adam:
    groups = [
        {"params": model.dense_parameters(), "lr": config.training.learning_rate},
        {"params": model.sparse_parameters(), "lr": config.training.embedding_learning_rate},
    ]
    return torch.optim.Adam(groups, fused=fused)


def _set_rates(optimizer: torch.optim.Adam, config: RetrainConfig, *, factor: float) -> None:
    rates = (config.training.learning_rate, config.training.embedding_learning_rate)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate * factor


def _averaged(model: DeepFM) -> AveragedModel:
    """A running mean of the weights and of batch norm's figures; whole numbers are taken as they are.

    torch's own mean goes through float32, which merges table rows above 2^24.
    """

    def mean(average: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
        return average + (current - average) / (count + 1) if average.is_floating_point() else current

    return AveragedModel(model, avg_fn=mean, use_buffers=True)


def _plateau(optimizer: torch.optim.Adam, config: RetrainConfig) -> ReduceLROnPlateau | None:
    training = config.training
    if training.schedule != "plateau":
        return None
    return ReduceLROnPlateau(optimizer, mode="max", factor=training.plateau_factor, patience=training.plateau_patience)


def _plateau_state(plateau: ReduceLROnPlateau | None) -> dict[str, Any] | None:
    if plateau is None:
        return None
    plain = (bool, int, float, str, list)
    return {name: value for name, value in plateau.state_dict().items() if isinstance(value, plain)}


def _adam_state(tensors: dict[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, figure = name.partition(".")
        state.setdefault(int(index), {})[figure] = tensor
    return state


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _penalty(model: DeepFM, batch: Batch, config: RetrainConfig, share: Tensor) -> Tensor | float:
    """Half the L2 norms that the configuration asks for: of the batch's embeddings, and of the deep part's weights."""
    training = config.training
    penalty: Tensor | float = 0.0
    if training.l2_embedding > 0:
        rows = batch.ids + model.offsets
        squares = model.embedding(rows).square().sum(dim=2) + model.first_order(rows).square().sum(dim=2)
        penalty = penalty + 0.5 * training.l2_embedding * (squares * share[rows]).sum(dim=1).mean()
    if training.l2_network > 0:
        weights = (p.square().sum() for name, p in model.deep.named_parameters() if name.endswith("weight"))
        penalty = penalty + 0.5 * training.l2_network * torch.stack(list(weights)).sum()
    return penalty
