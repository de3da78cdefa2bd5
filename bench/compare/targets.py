# SPDX-License-Identifier: Apache-2.0
"""The bars, and what a row says of them. A bar is for float, warm data, and tcmalloc (under glibc the page faults of PyTorch's temporaries
are a large part of the ratio); compact has one for half too."""

WINDOWS = "window_similarity + window_merge"
# (word, part of the shape, dtype, baseline) → ratio
BARS = {
    (WINDOWS, "B=1 ", "f32", "released"): 120,
    (WINDOWS, "B=1 ", "f32", "rewritten, no pairs"): 28,
    (WINDOWS, "B=8 ", "f32", "released"): 80,
    ("cls_topk", "B=1 ", "f32", "mean, topk, sort"): 6,
    ("dual_mask on a given map", "", "f32", "rewritten"): 3.5,
    ("attention_scores", "32 heads, 40 rows, 651 keys", "f32", "rows only"): 2,
    ("attention_scores", "32 heads, 40 rows, 651 keys", "f32", "full map"): 10,
    ("gather", "", "f32", "index_select"): 1.0,
    ("gather + RMSNorm", "", "f32", "two torch ops"): 1.8,
    ("compact", "", "f16", "index_select of each layer"): 3.5,
    ("compact", "", "f32", "index_select of each layer"): 1.9,
}
# (word, part of the shape, state) → share of the roof
ROOFS = {
    (WINDOWS, "B=1 ", "hot"): 0.75,
    (WINDOWS, "B=1 ", "cold"): 0.60,
    (WINDOWS, "B=8 ", "cold"): 0.70,
    ("dual_mask on a given map", "", "hot"): 0.75,
    ("attention_scores", "32 heads, 40 rows, 651 keys", "hot"): 0.65,
    ("compact", "", "hot"): 0.75,
}
TWO_THREADS = 1.6  # where a call moves more than a quarter of a megabyte; below it 1.0


def bar_of(row):
    """The ratio that a row has to reach; None where there is no bar."""
    if row["state"] != "hot":
        return None
    if row["threads"] > 1:
        if row["threads"] != 2 or row["baseline"] != "mustdrop, one thread":
            return None
        return TWO_THREADS if row["bytes"] > 1 << 18 else 1.0
    for (word, shape, dtype, baseline), bar in BARS.items():
        if row["word"] == word and row["shape"].startswith(shape) and row["dtype"] == dtype and row["baseline"] == baseline:
            return bar if row["allocator"] == "tcmalloc" else None
    return None


def roof_bar_of(row):
    if row["threads"] != 1 or row["dtype"] != "f32" or row["share_of_roof"] is None or row["allocator"] != "tcmalloc":
        return None
    for (word, shape, state), bar in ROOFS.items():
        if row["word"] == word and row["shape"].startswith(shape) and row["state"] == state:
            return bar
    return None


def verdict(value, bar, spread=0.0):
    """met; missed; or, below the bar by less than the spread of the rounds: even."""
    if value >= bar:
        return "met"
    return "even" if value * (1 + spread) >= bar else "**missed**"
