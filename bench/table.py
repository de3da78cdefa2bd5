#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""table.py FILE...: Markdown tables of what the benchmarks wrote with --benchmark_format=json or --benchmark_out=FILE.

Without `--all`, one row for each step and type at its smallest shape (one request of 576 tokens); with it, every shape.
Repetitions become their median, and the spread is the distance between the quartiles, in percent of the median.
"""

import argparse
import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path

KINDS = ["f32", "f16", "bf16"]
MICROSECONDS = {"ns": 1e-3, "us": 1, "ms": 1e3, "s": 1e6}


def read(paths):
    """{(step, type, shape): {(temperature, backend): [run]}} in the order of the files, and what the machines call themselves."""
    rows, machines = defaultdict(lambda: defaultdict(list)), []
    for path in paths:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        context = content["context"]
        if "device" in context:
            machine = f"{context['device']}, copy: {float(context['copy_bytes_per_second']) / 1e9:.0f} GB/s"
        else:
            machine = (f"{context['num_cpus']} × {context['mhz_per_cpu']} MHz, {context['instruction_set']}, "
                       f"cold: {int(context['cold_bytes']) >> 20} MiB")
        if machine not in machines:
            machines.append(machine)
        for run in content["benchmarks"]:
            if run.get("error_occurred"):
                sys.exit(f"{path}: {run['name']}: {run['error_message']}")
            if run["run_type"] == "iteration":
                name = run["run_name"].removesuffix("/manual_time")  # of a device
                run["time"] = run["cpu_time" if name == run["run_name"] else "real_time"] * MICROSECONDS[run["time_unit"]]
                step, kind, shape, temperature, backend = name.split("/")
                rows[step, kind, shape][temperature, backend].append(run)
    return rows, machines


def size(shape):
    """Requests × tokens as numbers: benchmarks may have run in any order."""
    return tuple(int(number) for number in shape.split("x"))


def median(runs, value):
    return statistics.median(run[value] for run in runs)


def time_of(runs):
    """Median and relative distance of the quartiles of the processor's time, or of a device's."""
    times = [run["time"] for run in runs]
    if len(times) < 2:
        return times[0], None
    low, _, high = statistics.quantiles(times, n=4, method="inclusive")
    return statistics.median(times), (high - low) / statistics.median(times)


def digits(x):
    return f"{x:,.2f}" if x < 10 else f"{x:,.1f}" if x < 100 else f"{x:,.0f}"


def cells(runs):
    if not runs:
        return ["–"] * 4
    time, spread = time_of(runs)
    rate = digits(median(runs, "bytes") / 1e9)
    rate += f" / {digits(median(runs, 'flops') / 1e9)}" if "flops" in runs[0] else ""
    share = f"{100 * median(runs, 'roof'):.0f} %" if "roof" in runs[0] else "–"
    return [digits(time) + " µs", "–" if spread is None else f"{100 * spread:.0f} %", rate, share]


def table(step, kinds):
    """One step: a row for each shape and type."""
    on_device = any(backend == "cuda" for _, runs in kinds for _, backend in runs)
    ours, other = ("cuda", "cub") if on_device else ("cpu", "reference")
    print(f"\n### {step}\n")
    print(f"| requests × tokens | type | {other} | {ours}, hot | spread | GB/s / GFLOP/s | of the roof | × {other} "
          f"| {ours}, cold | spread | GB/s / GFLOP/s | of the roof |")
    print("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    for (kind, shape), runs in kinds:
        hot, cold, reference = runs["hot", ours], runs["cold", ours], runs["hot", other]
        slow = digits(time_of(reference)[0]) + " µs" if reference else "–"
        ratio = digits(time_of(reference)[0] / time_of(hot)[0]) if reference and hot else "–"
        print("| " + " | ".join([shape.replace("x", " × "), kind, slow, *cells(hot), ratio, *cells(cold)]) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="every shape, not only the smallest")
    parser.add_argument("files", nargs="+", metavar="FILE")
    options = parser.parse_args()
    rows, machines = read(options.files)
    print("\n".join(machines))
    steps = defaultdict(list)
    for (step, kind, shape), runs in sorted(rows.items(), key=lambda row: (*size(row[0][2]), KINDS.index(row[0][1]))):
        if options.all or not steps[step] or shape == steps[step][0][0][1]:
            steps[step].append(((kind, shape), runs))
    for step in sorted(steps):
        table(step, steps[step])


if __name__ == "__main__":
    main()
