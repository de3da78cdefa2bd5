# SPDX-License-Identifier: Apache-2.0
"""The vision encoder's steps: window_similarity + window_merge, cls_topk."""

import ctypes

import torch

import expressions as torch_says
from case import TYPES, Case, close, distinct_scores, rotation, same, seeded

SIDE, DIM, WINDOWS, MERGED = 24, 1024, 64, 33
TOKENS = 1 + SIDE * SIDE
KEPT = TOKENS - 8 * MERGED  # 313


def features(batch, dtype, seed):
    """Windows whose similarity is well above or well below 0.8: base·a + noise has the cosine a²/(a² + 1)."""
    generator = seeded(seed)
    alike = torch.linspace(0.84, 0.98, MERGED)
    unlike = torch.linspace(0.1, 0.74, WINDOWS - MERGED)
    rows = []
    for _ in range(batch):
        similarity = torch.cat([alike, unlike])[torch.randperm(WINDOWS, generator=generator)]
        level = (similarity / (1 - similarity)).sqrt()
        base = torch.randn(WINDOWS, 1, DIM, generator=generator) * level[:, None, None]
        window = base + torch.randn(WINDOWS, 9, DIM, generator=generator)
        across = SIDE // 3
        patches = window.view(across, across, 3, 3, DIM).permute(0, 2, 1, 3, 4).reshape(SIDE * SIDE, DIM)
        rows.append(torch.cat([torch.randn(1, DIM, generator=generator), patches]))
    return torch.stack(rows).to(TYPES[dtype])


def windows(library, dtype, batch):
    one = batch * TOKENS * DIM * TYPES[dtype].itemsize
    inputs = [features(batch, dtype, seed) for seed in range(rotation(one))]
    similarity = torch.empty(batch, WINDOWS)
    merged, sizes = torch.empty_like(inputs[0]), torch.empty(batch, TOKENS)
    source, keep = (torch.empty(batch, TOKENS, dtype=torch.int64) for _ in range(2))
    counts = torch.empty(batch, dtype=torch.int32)

    def both(x, order):
        score = library.call("window_similarity", dtype, batch, SIDE, SIDE, DIM, x, similarity)
        merge = library.call("window_merge", dtype, batch, SIDE, SIDE, DIM, 0.8, ctypes.c_int(order), x, similarity, merged, sizes, source,
                             keep, counts)
        return score, merge

    calls = [both(x, 0) for x in inputs]

    def ours(i):
        score, merge = calls[i % len(calls)]
        score()
        merge()

    def check():
        for number, x in enumerate(inputs):
            ours(number)
            same(counts, torch.full_like(counts, KEPT), "rows kept")
            mine = torch.cat([keep[b, :KEPT] + b * TOKENS for b in range(batch)])
            for similarity_says in (torch_says.similarity_of_pairs, torch_says.similarity_of_sum):
                rows, tokens = torch_says.merge_rewritten(x, similarity_says)
                same(mine, tokens, "tokens kept")
                close(merged[:, :KEPT].reshape(-1, DIM), rows, dtype, "rows in place")
            for step in both(x, 1):
                step()
            check_released(merged[:, :KEPT], torch_says.merge_released(x), dtype)

    return Case("window_similarity + window_merge",
                f"B={batch} {TOKENS}×{DIM} → {KEPT}",
                dtype,
                ours, {
                    "released": lambda i: torch_says.merge_released(inputs[i % len(inputs)]),
                    "rewritten, pairs": lambda i: torch_says.merge_rewritten(inputs[i % len(inputs)], torch_says.similarity_of_pairs),
                    "rewritten, no pairs": lambda i: torch_says.merge_rewritten(inputs[i % len(inputs)]),
                },
                check,
                lambda i: [inputs[i % len(inputs)], similarity, merged, sizes, source, keep],
                len(inputs),
                reads=one,
                writes=one * KEPT // TOKENS,
                twice=True)


def check_released(mine, theirs, dtype):
    """Released order: CLS, merged windows by score, unmerged patches. In float the order of windows is the same; PyTorch's half and
    bfloat16 scores are rounded to where several are one, so there each of its windows is compared with the nearest of ours."""
    same(mine[:, 0], theirs[:, 0], "CLS")
    same(mine[:, 1 + MERGED:], theirs[:, 1 + MERGED:], "unmerged rows")
    for ours, other in zip(mine[:, 1:1 + MERGED], theirs[:, 1:1 + MERGED]):
        if dtype != "f32":
            nearest = torch.cdist(other.float(), ours.float()).argmin(1)
            same(nearest.sort().values, torch.arange(MERGED), "set of merged windows")
            ours = ours[nearest]
        close(ours, other, dtype, "merged rows")


def cls_topk(library, dtype, batch, heads=16, patches=SIDE * SIDE, k=47):
    one = batch * heads * patches * TYPES[dtype].itemsize
    inputs = [distinct_scores((batch, patches), heads, dtype, seed) for seed in range(16)]
    keep, counts = torch.empty(batch, k, dtype=torch.int64), torch.empty(batch, dtype=torch.int32)
    calls = [library.call("cls_topk", dtype, batch, heads, patches, k, x, keep, counts) for x in inputs]

    def check():
        for x, call in zip(inputs, calls):
            call()
            same(counts, torch.full_like(counts, k), "patches kept")
            if dtype == "f32":
                same(keep, torch_says.cls_topk(x, k), "patches")
            else:  # PyTorch's mean is rounded, and then ties
                score = x.float().mean(1)
                close(
                    score.gather(1, keep).sort(-1).values,
                    score.gather(1, torch_says.cls_topk(x, k)).sort(-1).values, dtype, "scores kept")

    return Case("cls_topk",
                f"B={batch} {heads}×{patches} → {k}",
                dtype,
                lambda i: calls[i % len(calls)](), {
                    "mean, topk, sort": lambda i: torch_says.cls_topk(inputs[i % len(inputs)], k),
                },
                check,
                lambda i: [inputs[i % len(inputs)], keep],
                len(inputs),
                reads=one,
                latency=batch == 1)
