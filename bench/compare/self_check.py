# SPDX-License-Identifier: Apache-2.0
"""The C interface against definitions in plain Python: nothing to install. Where PyTorch is installed (never by this), also every case of
the suite, checked and not timed. Inputs are small whole numbers over a power of two: choices are exact, and sums nearly."""

import array
import ctypes
import importlib.util
import math
import random

from library import Library, address

TOLERANCE = 1e-5  # of the largest value: the library computes in float, this in double


def floats(values):
    return array.array("f", values)


def longs(values):
    return array.array("q", values)


def expect(what, ours, wanted):
    if list(ours) != list(wanted):
        raise AssertionError(f"{what}: {list(ours)} instead of {list(wanted)}")


def near(what, ours, wanted):
    most = max(abs(w) for w in wanted) * TOLERANCE
    for i, (a, b) in enumerate(zip(ours, wanted, strict=True)):
        if not abs(a - b) <= most:
            raise AssertionError(f"{what}, element {i}: {a} instead of {b}")


def whole(rng, count, most=64):
    return [rng.randint(-most, most) / most for _ in range(count)]


def dot(a, b):
    return sum(x * y for x, y in zip(a, b))


def softmax(logits):
    top = max(logits)
    powers = [math.exp(x - top) for x in logits]
    return [p / sum(powers) for p in powers]


def best(scores, count):
    return sorted(sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:count])


def check_windows(library, rng, side=6, dim=40):
    tokens = [whole(rng, dim) for _ in range(1 + side * side)]
    members = [[1 + (r * 3 + i) * side + c * 3 + j for i in range(3) for j in range(3)] for r in range(2) for c in range(2)]
    base = whole(rng, dim)
    for t in members[0]:  # alike; the other windows are not
        tokens[t] = [x + 0.25 * y for x, y in zip(base, whole(rng, dim))]
    unit = [[x / math.sqrt(dot(t, t)) for x in t] for t in tokens]
    wanted = [sum(dot(unit[a], unit[b]) for a in m for b in m if a != b) / 72 for m in members]
    features, similarity = floats(sum(tokens, [])), floats([0] * 4)
    library.call("window_similarity", "f32", 1, side, side, dim, features, similarity)()
    near("window_similarity", similarity, wanted)

    merged = {m[4]: [sum(tokens[t][d] for t in m) / 9 for d in range(dim)] for m, w in zip(members, wanted) if w >= 0.8}
    gone = {t for m, w in zip(members, wanted) if w >= 0.8 for t in m if t != m[4]}
    kept = [t for t in range(len(tokens)) if t not in gone]
    assert 0 < len(merged) < 4, "the case has both kinds of windows"
    rows, sizes = floats([0] * len(features)), floats([0] * len(tokens))
    source, keep, count = longs([0] * len(tokens)), longs([0] * len(tokens)), array.array("i", [0])
    library.call("window_merge", "f32", 1, side, side, dim, 0.8, ctypes.c_int(0), features, similarity, rows, sizes, source, keep, count)()
    expect("window_merge, rows kept", keep[:count[0]], kept)
    near("window_merge, rows", rows[:count[0] * dim], sum((merged.get(t, tokens[t]) for t in kept), []))


def check_cls_topk(library, rng, batch=2, heads=4, patches=70, k=6):
    attention = [[[rng.randint(0, 4096) / 4096 for _ in range(patches)] for _ in range(heads)] for _ in range(batch)]
    keep, counts = longs([0] * batch * k), array.array("i", [0] * batch)
    library.call("cls_topk", "f32", batch, heads, patches, k, floats(sum((sum(a, []) for a in attention), [])), keep, counts)()
    wanted = [best([sum(head[t] for head in a) for t in range(patches)], k) for a in attention]
    expect("cls_topk", keep, sum(wanted, []))


def check_scores(library, rng, heads=4, kv_heads=2, rows=3, keys=37, dim=16):
    query = [[whole(rng, dim) for _ in range(rows)] for _ in range(heads)]
    cached = [[whole(rng, dim) for _ in range(keys)] for _ in range(kv_heads)]
    weights = []
    for h in range(heads):
        for t in range(rows):
            seen = keys - rows + t + 1
            logits = [dot(query[h][t], cached[h // (heads // kv_heads)][j]) / math.sqrt(dim) for j in range(seen)]
            weights.append(softmax(logits) + [0.0] * (keys - seen))
    mean = [[sum(weights[h * rows + t][j] for h in range(heads)) / heads for j in range(keys)] for t in range(rows)]
    wanted = [sum(row[j] for row in mean) for j in range(keys)], [max(row[j] for row in mean) for j in range(keys)]
    for threads in (1, 2):
        library.use_threads(threads)
        total, most = floats([math.nan] * keys), floats([math.nan] * keys)
        library.call("attention_scores", "f32", heads, kv_heads, rows, keys, keys, dim, ctypes.c_int(0), floats(sum(sum(query, []), [])),
                     floats(sum(sum(cached, []), [])), total, most)()
        near("attention_scores, sums", total, wanted[0])
        near("attention_scores, maxima", most, wanted[1])
    library.use_threads(1)
    library.call("map_scores", "f32", heads, rows, keys, ctypes.c_int(0), floats(sum(weights, [])), total, most)()
    near("scores of a map, sums", total, wanted[0])

    shielded, bars = [0, 5], (1.05 / keys, 1.2 / keys)
    kept = [j for j in range(keys) if total[j] >= bars[0] * sum(total) or most[j] >= bars[1] or j in shielded]
    assert 2 < len(kept) < keys, "the case drops some"
    keep, count = longs([0] * keys), array.array("i", [0])
    library.call("dual_mask", None, keys, *bars, total, most, longs(shielded), 2, keep, count)()
    expect("dual_mask", keep[:count[0]], kept)


def check_moves(library, rng, tokens=20, dim=33, keep=(0, 3, 4, 9, 17, 19)):
    rows = [whole(rng, dim) for _ in range(tokens)]
    flat, kept, out = floats(sum(rows, [])), longs(keep), floats([0] * len(keep) * dim)
    library.call("gather", "f32", tokens, dim, len(keep), flat, kept, out)()
    expect("gather", out, sum((rows[t] for t in keep), []))
    weight = whole(rng, dim)
    library.call("gather_rms_norm", "f32", tokens, dim, len(keep), 1e-6, flat, kept, floats(weight), out)()
    scale = [1 / math.sqrt(dot(rows[t], rows[t]) / dim + 1e-6) for t in keep]
    near("gather + RMSNorm", out, [x * s * w for t, s in zip(keep, scale) for x, w in zip(rows[t], weight)])
    cache = floats(sum(rows, []))
    table = array.array("Q", [address(cache).value])
    library.call("compact", None, 1, table, 1, tokens, dim * 4, kept, len(keep))()
    expect("compact", cache[:len(keep) * dim], sum((rows[t] for t in keep), []))


def check_kv_evict(library, rng, sets=3, slots=41, budget=12, recent=5):
    scores = [[x / 128 for x in rng.sample(range(1000), slots)] for _ in range(sets)]
    keep, counts = longs([0] * sets * slots), array.array("i", [0] * sets)
    kind = array.array("B", [2] * sets * slots)
    library.call("kv_evict", None, sets, slots, budget, recent, floats(sum(scores, [])), kind, keep, counts)()
    for s in range(sets):
        wanted = best(scores[s][:slots - recent], budget - recent) + list(range(slots - recent, slots))
        expect("kv_evict", keep[s * slots:s * slots + counts[s]], wanted)


def check_rerotate(library, rng, slots=5, dim=8):
    old, updated = [0, 2, 4, 9, 10], [0, 1, 2, 3, 4]
    frequencies = [10000**(-2 * f / dim) for f in range(dim // 2)]
    keys = [whole(rng, dim) for _ in range(slots)]
    wanted = []
    for key, before, after in zip(keys, old, updated):
        angles = [(after - before) * f for f in frequencies]
        pairs = list(zip(key[:dim // 2], key[dim // 2:], angles))
        wanted += [x * math.cos(a) - y * math.sin(a) for x, y, a in pairs] + [x * math.sin(a) + y * math.cos(a) for x, y, a in pairs]
    flat = floats(sum(keys, []))
    library.call("rerotate", "f32", 1, slots, dim, flat, longs(old), longs(updated), floats(frequencies))()
    near("rerotate", flat, wanted)


def check_cases(library):
    if importlib.util.find_spec("torch") is None:
        return "skipped: PyTorch's expressions, since PyTorch is not installed (compare.py without --self-check installs it)"
    import torch

    import suite
    torch.set_grad_enabled(False)
    count = 0
    for make in suite.cases(library, quick=False, all_types=True):
        make().check()
        count += 1
    return f"{count} cases equal PyTorch {torch.__version__}"


def main(path):
    library = Library(path)
    library.use_threads(1)
    seed = 20240614
    checks = [check_windows, check_cls_topk, check_scores, check_moves, check_kv_evict, check_rerotate]
    for check in checks:
        check(library, random.Random(seed))
    print(f"{len(checks)} checks in plain Python passed on {library.arch}, seed {seed}; {check_cases(library)}")
    return 0
