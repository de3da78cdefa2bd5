# SPDX-License-Identifier: Apache-2.0
"""What kernels compute, in PyTorch's words: table.EQUAL says for which launch."""

import torch


def dots(query, keys):
    """query [heads, rows, dim], keys [heads, keys, dim]; a row of a head for each head and row."""
    return torch.matmul(query, keys.transpose(1, 2))


def sum_over_heads(weights):
    return weights.sum(0)


def means_of_every_second(rows):
    """Rows of even number have one mean, the others another."""
    return rows.view(rows.shape[0] // 2, 2, rows.shape[1]).mean(0)
