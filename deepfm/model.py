"""DeepFM (Guo et al., 2017, arXiv:1703.04247), readable top to bottom.

    logit = bias + first order + second order (FM) + deep part

All three parts share one table of embeddings, so that frequent pairs teach rare ones. Shape suffixes:

    B rows    F categorical fields    D numeric fields    K embedding dimension    H hidden width    V table rows
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn

from deepfm.config import NetworkConfig

NUMERIC_LIMIT = 1e4
"""Clip of standardised values. Of n rows none lies more than sqrt(n - 1) deviations from their mean, so that windows
below 10^8 rows never feel it; it keeps the logit finite when a later day brings 1e30."""


class DeepFM(nn.Module):
    """A click logit from local ids and standardised numbers."""

    offsets: Tensor

    def __init__(self, *, vocabulary_sizes: Sequence[int], numeric_fields: int, network: NetworkConfig) -> None:
        """A network with small random embeddings and no first-order effect yet.

        Args:
            vocabulary_sizes: Ids of each categorical field, its OOV id 0 included; at least one field.
            numeric_fields: Number of numeric fields D, 0 or more.
            network: Dimension, hidden widths, dropout and batch norm.
        """
        super().__init__()
        self.vocabulary_sizes = tuple(vocabulary_sizes)
        self.numeric_fields = numeric_fields
        rows, K = sum(self.vocabulary_sizes), network.embedding_dim
        starts = list(accumulate(self.vocabulary_sizes, initial=0))[:-1]
        self.register_buffer("offsets", torch.tensor(starts, dtype=torch.int64), persistent=False)
        self.embedding = nn.Embedding(rows, K)
        self.first_order = nn.Embedding(rows, 1)
        self.numeric_embedding = nn.Parameter(torch.empty(numeric_fields, K))
        self.numeric_first_order = nn.Parameter(torch.zeros(numeric_fields))
        self.bias = nn.Parameter(torch.zeros(()))
        self.deep = _deep_part((len(self.vocabulary_sizes) + numeric_fields) * K, network)
        nn.init.normal_(self.embedding.weight, std=0.05)
        nn.init.normal_(self.numeric_embedding, std=0.05)
        nn.init.zeros_(self.first_order.weight)

    def forward(self, ids_BF: Tensor, numeric_BD: Tensor) -> Tensor:
        """The logit of a click for each row, before the distortion of sampling and weighting is undone.

        Args:
            ids_BF: int64 [B, F], ids within each field: 0 (OOV) up to its vocabulary size, exclusive.
            numeric_BD: float32 [B, D], standardised and finite or infinite, never NaN.

        Returns:
            float32 [B].
        """
        rows_BF = ids_BF + self.offsets
        bounded_BD = numeric_BD.clamp(-NUMERIC_LIMIT, NUMERIC_LIMIT)
        numeric_BDK = bounded_BD.unsqueeze(2) * self.numeric_embedding
        vectors_BFDK = torch.cat([self.embedding(rows_BF), numeric_BDK], dim=1)
        first_B = self.first_order(rows_BF).sum(dim=(1, 2)) + bounded_BD @ self.numeric_first_order
        deep_B: Tensor = self.deep(vectors_BFDK.flatten(1)).squeeze(1)
        logit_B: Tensor = self.bias + first_B + second_order(vectors_BFDK) + deep_B
        return logit_B

    def sparse_parameters(self) -> list[nn.Parameter]:
        """The tables of which a batch touches few rows: embeddings and first-order weights by id."""
        return [*self.embedding.parameters(), *self.first_order.parameters()]

    def dense_parameters(self) -> list[nn.Parameter]:
        """Every other parameter: a batch touches all of them."""
        sparse = {id(parameter) for parameter in self.sparse_parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in sparse]


def second_order(vectors_BFK: Tensor) -> Tensor:
    """The sum of the dot products of all pairs of fields, one for each row.

    Rendle (2010): 1/2 sum_k [(sum_f v_fk)^2 - sum_f v_fk^2]. The sums over f run within a dimension; flattening the
    fields first would also pair different dimensions.

    Args:
        vectors_BFK: float [B, F, K], one vector for each field.

    Returns:
        float [B].
    """
    square_of_sum_BK = vectors_BFK.sum(dim=1).square()
    sum_of_squares_BK = vectors_BFK.square().sum(dim=1)
    return 0.5 * (square_of_sum_BK - sum_of_squares_BK).sum(dim=1)


def _deep_part(width: int, network: NetworkConfig) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, H in pairwise((width, *network.hidden)):
        layers.append(nn.Linear(before, H))
        if network.batch_norm:
            layers.append(nn.BatchNorm1d(H))
        layers.append(nn.ReLU())
        if network.dropout > 0.0:
            layers.append(nn.Dropout(network.dropout))
    last = network.hidden[-1] if network.hidden else width
    return nn.Sequential(*layers, nn.Linear(last, 1, bias=False))
