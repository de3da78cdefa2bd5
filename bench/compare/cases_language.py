# SPDX-License-Identifier: Apache-2.0
"""The language model's scores and the filter on them: attention_scores + dual_mask on a given map, attention_scores from Q and K."""

import ctypes

import torch

import expressions as torch_says
from case import TYPES, Case, close, rotation, same, seeded

HEADS, ROWS, IMAGE, KEYS, DIM = 32, 40, 576, 651, 128
STAGES = 4  # MustDrop filters after layers 2, 6, 10 and 14


def dual_mask(library, dtype):
    """Some tokens get e³ times the attention of the others, so no token is near a threshold."""
    shape, limits = (HEADS, ROWS, IMAGE), (0.0012, 0.001)
    one = HEADS * ROWS * IMAGE * TYPES[dtype].itemsize
    inputs, key_sets = [], []
    for seed in range(rotation(one)):
        generator = seeded(seed)
        loud = torch.rand(IMAGE, generator=generator) < 0.35
        logits = torch.where(loud, 3.0, 0.0) + 0.3 * torch.randn(shape, generator=generator)
        inputs.append(logits.softmax(-1).to(TYPES[dtype]))
        key_sets.append(torch.randperm(IMAGE, generator=generator)[:47].sort().values)
    total, most = torch.empty(IMAGE), torch.empty(IMAGE)
    keep, count = torch.empty(IMAGE, dtype=torch.int64), torch.empty(1, dtype=torch.int32)
    calls = [(library.call("map_scores", dtype, *shape, ctypes.c_int(0), x, total,
                           most), library.call("dual_mask", None, IMAGE, *limits, total, most, key_set, len(key_set), keep, count))
             for x, key_set in zip(inputs, key_sets)]

    def ours(i):
        scores, mask = calls[i % len(calls)]
        scores()
        mask()

    def check():
        for number, (x, key_set) in enumerate(zip(inputs, key_sets)):
            ours(number)
            for expression in (torch_says.dual_mask_released, torch_says.dual_mask_rewritten):
                same(keep[:count.item()], expression(x, key_set, *limits), "survivors")
            close(total, x.float().mean(0).sum(0), dtype, "sums")

    return Case("dual_mask on a given map",
                "×".join(map(str, shape)),
                dtype,
                ours, {
                    "released": lambda i: torch_says.dual_mask_released(inputs[i % len(inputs)], key_sets[i % len(inputs)], *limits),
                    "rewritten": lambda i: torch_says.dual_mask_rewritten(inputs[i % len(inputs)], key_sets[i % len(inputs)], *limits),
                },
                check,
                lambda i: [inputs[i % len(inputs)], total, most, keep],
                len(inputs),
                reads=one,
                calls=STAGES)


def normal(shape, dtype, seed, scale=1.0):
    return (torch.randn(shape, generator=seeded(seed)) * scale).to(TYPES[dtype])


def attention_scores(library, dtype, rows=ROWS, keys=KEYS, kv_heads=HEADS, with_map=True):
    """with_map: the whole map and the fused attention of all rows are compared too."""
    kind = TYPES[dtype]
    one = (HEADS * rows + kv_heads * keys) * DIM * kind.itemsize
    queries = [normal((HEADS, keys if with_map else rows, DIM), dtype, 10 + i) for i in range(2)]  # with_map: of all rows
    query = [q[:, -rows:].contiguous() for q in queries]
    cached = [normal((kv_heads, keys, DIM), dtype, 20 + i) for i in range(2)]
    values = normal((kv_heads, keys, DIM), dtype, 30) if with_map else None
    total, most = torch.empty(keys), torch.empty(keys)
    shape, further = (HEADS, kv_heads, rows, keys, keys, DIM), ctypes.c_int(0)
    calls = [library.call("attention_scores", dtype, *shape, further, q, k, total, most) for q, k in zip(query, cached)]
    baselines = {"rows only": lambda i: torch_says.rows_only(query[i % 2], cached[i % 2])}
    if keys <= 1024:
        identity = torch.eye(keys, dtype=kind).expand(1, HEADS, keys, keys)
        mask = torch_says.causal(rows, keys, kind) if rows > 1 else None
        baselines["SDPA, identity for V"] = lambda i: torch_says.sdpa_identity(query[i % 2], cached[i % 2], identity, mask)
    compared = list(baselines)
    if with_map:
        baselines["full map"] = lambda i: torch_says.full_map(queries[i % 2], cached[i % 2], rows)
        compared.append("full map")
        baselines["the layer's own SDPA (yardstick)"] = lambda i: torch_says.sdpa_layer(queries[i % 2], cached[i % 2], values)

    def check():
        for i, call in enumerate(calls):
            call()
            for name in compared:
                their_total, their_most = baselines[name](i)
                close(total, their_total, dtype, f"sums of {name}")
                close(most, their_most, dtype, f"maxima of {name}")

    group = "" if kv_heads == HEADS else f" of {kv_heads} KV heads"
    word = "attention_scores" if rows > 1 else "attention_scores, decode"
    shape_says = f"{HEADS} heads{group}, {rows} row{'s' * (rows > 1)}, {keys} keys, d {DIM}"
    return Case(word,
                shape_says,
                dtype,
                lambda i: calls[i % 2](),
                baselines,
                check,
                lambda i: [query[i % 2], cached[i % 2], total, most],
                2,
                reads=one,
                flops=2.0 * HEADS * rows * keys * DIM if rows > 1 else 0,
                calls=STAGES if rows > 1 else 0)
