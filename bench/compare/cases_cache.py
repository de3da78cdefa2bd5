# SPDX-License-Identifier: Apache-2.0
"""What moves data: gather, gather with RMSNorm, compact, kv_evict, a step of H2O, rerotate."""

import array
import ctypes

import torch
import torch.nn.functional as F

import expressions as torch_says
from case import TYPES, Case, close, distinct_scores, same, seeded
from cases_language import HEADS, STAGES, normal

TOKENS, WIDTH, KEPT = 651, 4096, 275
LAYERS, DIM = 32, 128


def kept(tokens, count, seed):
    return torch.randperm(tokens, generator=seeded(seed))[:count].sort().values


def gather(library, dtype):
    one = TOKENS * WIDTH * TYPES[dtype].itemsize
    inputs = [normal((TOKENS, WIDTH), dtype, seed) for seed in range(2)]
    keeps = [kept(TOKENS, KEPT, seed) for seed in range(2)]
    out = torch.empty(KEPT, WIDTH, dtype=TYPES[dtype])
    theirs = torch.empty_like(out)
    calls = [library.call("gather", dtype, TOKENS, WIDTH, KEPT, x, keep, out) for x, keep in zip(inputs, keeps)]

    def check():
        for x, keep, call in zip(inputs, keeps, calls):
            call()
            same(out, x.index_select(0, keep), "rows")

    moved = one * KEPT // TOKENS
    return Case("gather",
                f"[{TOKENS}, {WIDTH}] → {KEPT}",
                dtype,
                lambda i: calls[i % 2](), {
                    "index_select": lambda i: inputs[i % 2].index_select(0, keeps[i % 2]),
                    "index_select into memory that is there": lambda i: torch.index_select(inputs[i % 2], 0, keeps[i % 2], out=theirs),
                },
                check,
                lambda i: [inputs[i % 2], out],
                2,
                reads=moved,
                writes=moved,
                calls=STAGES)


def gather_rms_norm(library, dtype, epsilon=1e-6):
    one = TOKENS * WIDTH * TYPES[dtype].itemsize
    inputs = [normal((TOKENS, WIDTH), dtype, seed) for seed in range(2)]
    keeps = [kept(TOKENS, KEPT, seed) for seed in range(2)]
    weight = (1 + 0.1 * torch.randn(WIDTH, generator=seeded(9))).to(TYPES[dtype])
    out = torch.empty(KEPT, WIDTH, dtype=TYPES[dtype])
    theirs = torch.empty_like(out)
    calls = [library.call("gather_rms_norm", dtype, TOKENS, WIDTH, KEPT, epsilon, x, keep, weight, out) for x, keep in zip(inputs, keeps)]

    def rewritten(i):
        torch.index_select(inputs[i % 2], 0, keeps[i % 2], out=theirs)
        return F.rms_norm(theirs, (WIDTH, ), weight, epsilon)

    baselines = {
        "released": lambda i: torch_says.rms_norm_released(inputs[i % 2].index_select(0, keeps[i % 2]), weight, epsilon),
        "two torch ops": rewritten,
    }

    def check():
        for i, call in enumerate(calls):
            call()
            for name, run in baselines.items():
                close(out, run(i), dtype, name)

    moved = one * KEPT // TOKENS
    return Case("gather + RMSNorm",
                f"[{TOKENS}, {WIDTH}] → {KEPT}",
                dtype,
                lambda i: calls[i % 2](),
                baselines,
                check,
                lambda i: [inputs[i % 2], weight, out],
                2,
                reads=moved,
                writes=moved,
                calls=STAGES)


def compact(library, dtype, slots=651, count=100):
    """In place: each timed call moves the same slots again, whatever is in them by then. The check runs first, on fresh data."""
    kind = TYPES[dtype]
    pattern = normal((1, HEADS, slots, DIM), dtype, 1)
    caches = [pattern + c for c in range(2 * LAYERS)]
    keep = kept(slots, count, 2)
    table = array.array("Q", [c.data_ptr() for c in caches])
    call = library.call("compact", None, len(caches), table, HEADS, slots, DIM * kind.itemsize, keep, count)

    def check():
        theirs = torch_says.compact(caches[:3] + caches[-1:], keep)
        call()
        for mine, other in zip(caches[:3] + caches[-1:], theirs):
            same(mine[:, :, :count], other, "slots")

    moving = int((keep != torch.arange(count)).sum()) * 2 * LAYERS * HEADS * DIM * kind.itemsize
    return Case("compact",
                f"{LAYERS} layers K+V [1, {HEADS}, {slots}, {DIM}] → {count}",
                dtype,
                lambda i: call(), {
                    "index_select of each layer": lambda i: torch_says.compact(caches, keep),
                },
                check,
                lambda i: caches,
                1,
                reads=moving,
                writes=moving)


def kv_evict(library, slots=TOKENS, budget=100, recent=32):
    inputs = [distinct_scores((HEADS, slots), 1, "f32", seed).squeeze(1).contiguous() for seed in range(16)]
    kind = torch.full((HEADS, slots), 2, dtype=torch.uint8)  # visual: by score
    keep, counts = torch.empty(HEADS, slots, dtype=torch.int64), torch.empty(HEADS, dtype=torch.int32)
    calls = [library.call("kv_evict", None, HEADS, slots, budget, recent, x, kind, keep, counts) for x in inputs]

    def check():
        for x, call in zip(inputs, calls):
            call()
            same(counts, torch.full_like(counts, budget), "slots kept")
            same(keep[:, :budget], torch_says.h2o_keep(x, budget, recent), "slots")

    return Case("kv_evict, H2O",
                f"{HEADS} sets of {slots} → {budget}",
                "f32",
                lambda i: calls[i % 16](), {
                    "topk, sort, cat": lambda i: torch_says.h2o_keep(inputs[i % 16], budget, recent),
                },
                check,
                lambda i: [inputs[i % 16], kind, keep],
                16,
                reads=HEADS * slots * 5,
                latency=True)


def h2o_step(library, dtype, budget=TOKENS, recent=32):
    """A full cache takes one row in and loses one slot: scores, choice, K and V."""
    slots, kind = budget + 1, TYPES[dtype]
    query = [normal((HEADS, 1, DIM), dtype, 3 + i) for i in range(2)]
    keys, values = normal((HEADS, slots, DIM), dtype, 5), normal((HEADS, slots, DIM), dtype, 6)
    total, most = distinct_scores((1, slots), 1, "f32", 7).view(-1).contiguous(), torch.zeros(slots)
    their_total = total.clone()
    visual = torch.full((slots, ), 2, dtype=torch.uint8)
    keep, count = torch.empty(slots, dtype=torch.int64), torch.empty(1, dtype=torch.int32)
    shape, further = (HEADS, HEADS, 1, slots, slots, DIM), ctypes.c_int(1)
    scores = [library.call("attention_scores", dtype, *shape, further, q, keys, total, most) for q in query]
    table = array.array("Q", [keys.data_ptr(), values.data_ptr()])
    sums = array.array("Q", [total.data_ptr()])
    steps = [
        library.call("kv_evict", None, 1, slots, budget, recent, total, visual, keep, count),
        library.call("compact", None, 2, table, HEADS, slots, DIM * kind.itemsize, keep, budget),
        library.call("compact", None, 1, sums, 1, slots, 4, keep, budget),
    ]

    def ours(i):
        scores[i % 2]()
        for step in steps:
            step()

    def check():
        chosen, their_sums, their_keys, their_values = torch_says.h2o_step(query[0], keys, values, their_total, budget, recent)
        ours(0)
        same(keep[:budget], chosen, "slots")
        same(keys[:, :budget], their_keys, "keys")
        same(values[:, :budget], their_values, "values")
        close(total[:budget], their_sums, dtype, "sums")

    one = HEADS * slots * DIM * kind.itemsize
    return Case("H2O step",
                f"{HEADS} heads, {slots} slots → {budget}, d {DIM}",
                dtype,
                ours, {
                    "scores, topk, index_select": lambda i: torch_says.h2o_step(query[i % 2], keys, values, their_total, budget, recent),
                },
                check,
                lambda i: [keys, values, total],
                2,
                reads=one,
                calls=0)  # and what moves, which depends on the slot that goes


def rerotate(library, dtype, slots=576):
    old = torch.arange(slots) * 2
    updated = torch.arange(slots)
    inv_freq = 10000.0**(-torch.arange(0, DIM, 2) / DIM)
    keys = [normal((HEADS, slots, DIM), dtype, seed) for seed in range(2)]
    theirs = [k.clone() for k in keys]
    calls = [library.call("rerotate", dtype, HEADS, slots, DIM, k, old, updated, inv_freq) for k in keys]
    arguments = (old, updated, inv_freq)

    def check():
        for mine, call in zip(keys, calls):
            before = mine.clone()
            call()
            close(mine, torch_says.rerotate_released(before, *arguments), dtype, "keys")
            close(mine, torch_says.rerotate_rewritten(before, *arguments), dtype, "keys, in place")

    one = HEADS * slots * DIM * TYPES[dtype].itemsize
    return Case("rerotate",
                f"[{HEADS}, {slots}, {DIM}]",
                dtype,
                lambda i: calls[i % 2](), {
                    "released": lambda i: torch_says.rerotate_released(theirs[i % 2], *arguments),
                    "rewritten, in place": lambda i: torch_says.rerotate_rewritten(theirs[i % 2], *arguments),
                },
                check,
                lambda i: [keys[i % 2]],
                2,
                reads=one,
                writes=one,
                in_place=True,
                calls=LAYERS)
