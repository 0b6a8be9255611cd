"""What an error costs. `deepfm.export` undoes, exactly, what these do to the scale of a score."""

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor

from deepfm.config import LossConfig
from deepfm.manifests import Window


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
