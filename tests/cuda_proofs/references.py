# SPDX-License-Identifier: Apache-2.0
"""What kernels compute, as functions that sentryward captures: operators that it knows, shapes of one launch (table.py: EQUAL)."""

import torch


def dots(query, keys):
    return torch.matmul(query, keys.transpose(1, 2))


def mean_of_heads(weights):
    return weights.sum(0) / weights.shape[0]


def one_head(weights):
    """Wrong."""
    return weights[0]


def weights_of_two_heads(keys, wrong=False):
    """Of a row: its exponentials of each head, room for their sum, what divides each, in one piece of scratch."""
    def reference(scratch):
        row = (scratch.shape[0] - 2) // 3
        first, second = scratch[3 * row:3 * row + 1], scratch[3 * row + 1:]
        return (scratch[:keys] / first + scratch[row:row + keys] / (first if wrong else second)) / 2
    return reference


def exponentials_of_two_rows(dots, scale):
    scaled = dots * scale
    powers = torch.exp(scaled - scaled.amax(1, keepdim=True))
    return powers, powers.sum(1)


def sum_and_most_of_three_rows(rows, total, most, decay):
    highest = most * decay
    for weight in (rows[0], rows[1], rows[2]):
        highest = torch.where(weight > highest, weight, highest)
    return total * decay + rows[0] + rows[1] + rows[2], highest


def both_below(total, most, share, individual):
    return torch.where((total < total.sum(0) * share) & (most < individual), 0, -1).to(torch.int32)


def spread(merged, source):
    return merged[source.long()]


def random_score(seed, token):
    """method::random_score, in integers of Python."""
    words = 2**64
    x = (seed + (token + 1) * 0x9e3779b97f4a7c15) % words
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9 % words
    x = (x ^ x >> 27) * 0x94d049bb133111eb % words
    return ((x ^ x >> 31) >> 40) * 2.0**-24


def first_random_score():
    return torch.ones(1) * random_score(0, 0)


def second_random_score():
    """Wrong."""
    return torch.ones(1) * random_score(0, 1)


def means_of_every_second(rows):
    """Rows of even number have one mean, the others another."""
    return rows.view(rows.shape[0] // 2, 2, rows.shape[1]).mean(0)


def counted_from_the_first(old):
    return old[:, :1] + torch.arange(33, dtype=torch.int32, device=old.device).view(1, 33)
