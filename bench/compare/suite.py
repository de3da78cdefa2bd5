# SPDX-License-Identifier: Apache-2.0
"""One process of the comparison: one allocator, one number of threads. compare.py starts it with both set in the environment.
Checks every case, then times it, and writes its rows as JSON."""

import argparse
import dataclasses
import json
import resource
import sys
import time

import torch

import cases_cache as cache
import cases_language as language
import cases_vision as vision
import measure
from library import Library

PREFILL_FLOPS = 8.6e12  # LLaVA-1.5-7B, 651 tokens
ONE_THREAD = "mustdrop, one thread"


def cases(library, quick, all_types):
    """Yields functions that make a case, so that the memory of one is gone before the next one is made."""
    types = ["f32", "f16", "bf16"] if all_types else ["f32"]
    for t in types:
        yield lambda t=t: vision.windows(library, t, 1)
    for t in types:
        yield lambda t=t: vision.windows(library, t, 8)
    if not quick:
        yield lambda: vision.windows(library, "f32", 5)  # five crops, 2880 patches
    for batch in (1, 8):
        for t in types:
            yield lambda t=t, batch=batch: vision.cls_topk(library, t, batch)
    for t in types:
        yield lambda t=t: language.dual_mask(library, t)
    for t in types:
        yield lambda t=t: language.attention_scores(library, t)
    if not quick:
        yield lambda: language.attention_scores(library, "f32", keys=2955, with_map=False)
        yield lambda: language.attention_scores(library, "f32", kv_heads=8, with_map=False)
    for t in types:
        yield lambda t=t: language.attention_scores(library, t, rows=1, keys=4096, with_map=False)
    if not quick:
        yield lambda: language.attention_scores(library, "f16", rows=1, keys=4096, kv_heads=8, with_map=False)
    for make in (cache.gather, cache.gather_rms_norm):
        for t in types:
            yield lambda t=t, make=make: make(library, t)
    for t in sorted({"f16", *types}):
        yield lambda t=t: cache.compact(library, t)
    yield lambda: cache.kv_evict(library)
    for make in (cache.h2o_step, cache.rerotate):
        for t in types:
            yield lambda t=t, make=make: make(library, t)


def roof_of(library, case):
    """What a case cannot beat: its products at the peak of the multipliers, or its bytes, read and copied by something that does nothing
    else. Rotates through as many inputs as the case does and into one output, so that both find theirs in the same cache. And what to
    flush."""

    def block(size):
        return torch.ones(size // 4) if size else None

    if case.flops:
        run = library.roof_flops(case.flops)
        return (lambda i: run()), (lambda i: [])
    if case.in_place:
        blocks = [[block(case.reads)] for _ in range(case.inputs)]
        runs = [library.roof_update(data) for data, in blocks]
    else:
        target = block(case.writes)
        blocks = [[block(max(case.reads - case.writes, 0)), block(case.writes), target] for _ in range(case.inputs)]
        runs = [library.roof_bytes(*b) for b in blocks]
        if case.twice:
            before = [(library.roof_bytes(b[0], None, None), library.roof_bytes(b[1], None, None)) for b in blocks]
            runs = [lambda steps=(*early, late): [step() for step in steps] for early, late in zip(before, runs)]
    return (lambda i: runs[i % len(runs)]()), (lambda i: [b for b in blocks[i % len(blocks)] if b is not None])


def chiller(library, case, blocks):
    """Empties the caches of everything that call i touches, whoever makes it."""
    flushes = [library.flush(*case.touched(i), *blocks(i)) for i in range(case.inputs)]
    return None if flushes[0] is None else lambda i: flushes[i % len(flushes)]()


def preparer(library, threads):

    def prepare(name):
        library.use_threads(1 if name == ONE_THREAD else threads)
        if threads > 1:
            time.sleep(0.002)  # OpenMP's threads spin for a while after PyTorch's last call, on the processor that ours need

    return prepare


def peak(library, threads, effort):
    """Products a second on these threads."""
    flops = 2e6
    run = library.roof_flops(flops)
    samples = measure.interleave({"fma": lambda i: run()}, effort, prepare=preparer(library, threads))
    return flops / samples["fma"].median


def rows_of(case, options, library, effort, state, flops_a_second):
    roof, blocks = roof_of(library, case)
    chill = chiller(library, case, blocks) if state == "cold" else None
    if state == "cold" and chill is None:
        return []
    contenders = {"ours": case.ours, "roof": roof, **case.baselines}
    if options.threads > 1:
        contenders[ONE_THREAD] = case.ours
    samples = measure.interleave(contenders, effort, chill, preparer(library, options.threads))
    ours = samples["ours"]
    share = None if case.latency else round(measure.ratio(samples["roof"], ours)[0], 3)
    rows = []
    for name in contenders:
        if name in ("ours", "roof"):
            continue
        middle, spread = measure.ratio(samples[name], ours)
        rows.append({
            "word": case.word,
            "shape": case.shape,
            "dtype": case.dtype,
            "threads": options.threads,
            "baseline": name,
            "ratio": round(middle, 3),
            "spread": round(spread, 3),
            "share_of_roof": share,
            "roof": "fma" if case.flops else "bytes",
            "state": state,
            "allocator": options.allocator,
            "ours_us": round(ours.median * 1e6, 2),
            "baseline_us": round(samples[name].median * 1e6, 2),
            "ours_faults": round(ours.faults, 1),
            "baseline_faults": round(samples[name].faults, 1),
            "bytes": case.reads + case.writes,
            "rounds": len(ours.seconds),
            "share_of_prefill": case.calls * ours.median * flops_a_second / PREFILL_FLOPS
        })
    return rows


def main():
    parser = argparse.ArgumentParser()
    for name in ("allocator", "clock", "library", "out", "states"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=0)
    parser.add_argument("--word", default="")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--all-types", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    library = Library(options.library)
    library.use_threads(options.threads)
    effort = measure.QUICK if options.quick else measure.FULL
    if options.seconds:
        effort = dataclasses.replace(effort, most=options.seconds)
    if options.clock == "cpu" and options.threads == 1:
        effort = dataclasses.replace(effort, clock=time.thread_time)
    flops_a_second = peak(library, options.threads, effort)
    rows = []
    for make in cases(library, options.quick, options.all_types):
        case = make()
        if options.word not in case.word:
            continue
        case.check()
        for state in options.states.split(","):
            rows += rows_of(case, options, library, effort, state, flops_a_second)
        print(f"  {case.word}, {case.shape}, {case.dtype}", file=sys.stderr, flush=True)
    facts = {
        "torch": torch.__version__,
        "torch_cpu": torch.backends.cpu.get_cpu_capability(),
        "arch": library.arch,
        "gflops": round(flops_a_second / 1e9, 1),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    }
    with open(options.out, "w", encoding="utf-8") as file:
        json.dump({"facts": facts, "rows": rows}, file)


if __name__ == "__main__":
    main()
