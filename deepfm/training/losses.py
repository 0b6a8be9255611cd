"""What an error costs. `deepfm.export` undoes, exactly, what these do to the scale of a score."""

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor

from deepfm.config import LossConfig
from deepfm.manifests import Window

_LOGIT_REACH = 30.0
_HALVINGS = 60


def resolve_pos_weight(config: LossConfig, window: Window) -> float:
    """The weight c of a click: the configured one, or for `auto` the window's weighted negatives per click."""
    if config.kind == "focal":
        return 1.0
    if config.pos_weight == "auto":
        return max(window.weighted_negatives, 1.0) / max(window.clicks, 1)
    return config.pos_weight


def row_losses(logits: Tensor, labels: Tensor, *, config: LossConfig, pos_weight: float) -> Tensor:
    """The loss of every row before its weight, float32 [B].

    Weighted cross-entropy: -c·y·log p - (1-y)·log(1-p). Focal loss (Lin et al., 2017, arXiv:1708.02002):
    -alpha·y·(1-p)^gamma·log p - (1-alpha)·(1-y)·p^gamma·log(1-p). Both in logs, so that no logit overflows.

    Args:
        logits: float32 [B].
        labels: float32 [B], 0 or 1.
        config: Which loss.
        pos_weight: c, for cross-entropy.
    """
    log_p, log_not_p = F.logsigmoid(logits), F.logsigmoid(-logits)
    if config.kind == "bce":
        return -(pos_weight * labels * log_p + (1.0 - labels) * log_not_p)
    alpha, gamma = config.focal_alpha, config.focal_gamma
    click = alpha * torch.exp(gamma * log_not_p) * log_p
    no_click = (1.0 - alpha) * torch.exp(gamma * log_p) * log_not_p
    return -(labels * click + (1.0 - labels) * no_click)


def prior_scale(config: LossConfig, *, pos_weight: float, rate: float) -> float:
    """The factor by which a prior has to grow so that it weighs as much against this loss as against a likelihood.

    A weighted or focal loss is no log likelihood: the variance J of its gradient and its curvature H differ, and a
    prior stated as a precision belongs to a likelihood, for which J = H. At the base rate, where the expected gradient
    is 0, the factor is J / H: 1 for plain cross-entropy, (1 + c) / 2 for the `pos_weight` c that balances the classes
    (the information sandwich of Huber, 1967).

    Args:
        config: Which loss.
        pos_weight: c, for cross-entropy.
        rate: Share of clicks as the loss sees them, in (0, 1).
    """
    if config.kind == "bce" and pos_weight == 1.0:
        return 1.0
    classes = torch.tensor([0.0, 1.0], dtype=torch.float64)
    shares = torch.tensor([1.0 - rate, rate], dtype=torch.float64)

    def derivatives(logit: float) -> tuple[Tensor, Tensor]:
        logits = torch.full((2,), logit, dtype=torch.float64, requires_grad=True)
        losses = row_losses(logits, classes, config=config, pos_weight=pos_weight)
        (slopes,) = torch.autograd.grad(losses.sum(), logits, create_graph=True)
        (curvatures,) = torch.autograd.grad(slopes.sum(), logits)
        return slopes.detach(), curvatures

    low, high = -_LOGIT_REACH, _LOGIT_REACH
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if float(shares @ derivatives(middle)[0]) < 0 else (low, middle)
    slopes, curvatures = derivatives((low + high) / 2)
    return float(shares @ slopes.square()) / float(shares @ curvatures)
