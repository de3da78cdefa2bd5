# SPDX-License-Identifier: Apache-2.0
"""What a row of the comparison is made of, and how two results are called equal."""

from dataclasses import dataclass

import torch

TYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}

# Largest difference, as a share of the largest value. float: sums in another order, and another exp. half and bfloat16: PyTorch rounds what
# it computes on the way (logits, means), each time by 2^-11 or 2^-8; a logit of 4 that is off by that changes its weight by 4 times that.
TOLERANCE = {"f32": 1e-5, "f16": 1e-2, "bf16": 6e-2}

CACHED = 4 << 20  # bytes of inputs that a hot row rotates through


@dataclass
class Case:
    word: str
    shape: str
    dtype: str
    ours: object  # run(i)
    baselines: dict  # name → run(i)
    check: object  # raises if results differ
    touched: object  # i → tensors that call i of ours reads or writes
    inputs: int  # how many there are to rotate through
    reads: int = 0  # bytes that have to be read and written, from which the roof follows
    writes: int = 0
    flops: float = 0
    twice: bool = False  # two words read it one after the other
    in_place: bool = False  # what is read is written back, and never anything else
    calls: int = 1  # in one prefill of a 7B model
    latency: bool = False  # too small for a roof of bytes or products


def rotation(bytes_of_one):
    """How many inputs: as the cache holds, so that no branch predictor learns one by heart, and at least two."""
    return max(2, min(16, CACHED // max(bytes_of_one, 1)))


def seeded(number):
    return torch.Generator().manual_seed(number)


def same(ours, theirs, what):
    if not torch.equal(ours, theirs):
        raise AssertionError(f"{what} differs: {ours.flatten()[:8].tolist()}… against {theirs.flatten()[:8].tolist()}…")


def close(ours, theirs, dtype, what):
    if ours.shape != theirs.shape:
        raise AssertionError(f"{what}: {tuple(ours.shape)} against {tuple(theirs.shape)}")
    error = (ours.float() - theirs.float()).abs().max().item()
    most = theirs.float().abs().max().item() * TOLERANCE[dtype]
    if not error <= most:
        raise AssertionError(f"{what}: differs by {error:.3g}, more than {most:.3g}")


def distinct_scores(shape, heads, dtype, seed):
    """[..., heads, n] whose means over heads are exact in any order of adding and never tie: whole numbers over 2^11, and what makes the
    sums distinct spread over the heads. bfloat16's 8 bits do not hold them all: there means may tie."""
    generator = seeded(seed)
    *batch, n = shape
    values = torch.randint(0, 128, (*batch, heads, n), generator=generator)
    order = torch.rand((*batch, n), generator=generator).argsort(-1)  # a permutation: distinct
    base = values[..., :-1, :].sum(-2)
    wanted = (base.amax(-1, keepdim=True) // n + 1) * n + order
    spread = wanted - base  # in [0, 2^12): over the heads, in parts that 7 bits hold
    parts = [(spread + h) // heads for h in range(heads)]
    values[..., -1, :] = 0
    values = values + torch.stack(parts, -2)
    return (values / 2048).to(TYPES[dtype])
