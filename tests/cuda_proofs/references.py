# SPDX-License-Identifier: Apache-2.0
"""What kernels compute, as functions that sentryward captures: operators that it knows, shapes of one launch (table.py: EQUAL)."""

import torch


def dots(query, keys):
    """Heads that follow one another share a head of keys."""
    heads, rows, dim = query.shape
    together = query.float().view(keys.shape[0], heads // keys.shape[0] * rows, dim)
    return torch.matmul(together, keys.float().transpose(1, 2)).view(heads, rows, keys.shape[1])


def dots_but_the_last_feature(query, keys):
    """Wrong."""
    return dots(query[:, :, :-1].contiguous(), keys[:, :, :-1])


def dots_with_the_other_head(query, keys):
    """Wrong."""
    return dots(query, torch.cat([keys[1:], keys[:1]]))


def sum_over_heads(weights):
    return weights.sum(0)


def one_head(weights):
    """Wrong."""
    return weights[0] + weights[0]


def weights_of_two_heads(scratch):
    """A row's exponentials of two heads, then what divides each."""
    keys = (scratch.shape[0] - 2) // 2
    return scratch[:keys] / scratch[2 * keys:2 * keys + 1] + scratch[keys:2 * keys] / scratch[2 * keys + 1:]


def weights_by_one_total(scratch):
    """Wrong."""
    keys = (scratch.shape[0] - 2) // 2
    return scratch[:keys] / scratch[2 * keys:2 * keys + 1] + scratch[keys:2 * keys] / scratch[2 * keys:2 * keys + 1]


def exponentials_of_two_rows(logits, scale):
    scaled = logits.view(2, logits.shape[0] // 2) * scale
    powers = torch.exp(scaled - scaled.amax(1, keepdim=True))
    return torch.cat([powers.view(logits.shape[0]), powers.sum(1)])


def sum_and_most_of_three_rows(rows, total, most, decay, heads):
    first, second, third = (rows / heads)[0], (rows / heads)[1], (rows / heads)[2]
    highest = most * decay
    for weight in (first, second, third):
        highest = torch.where(weight > highest, weight, highest)
    return total * decay + first + second + third, highest


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
