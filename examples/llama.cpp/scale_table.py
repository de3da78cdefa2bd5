#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""scale_table.py SCALE.json [--svg FILE]: what llama_scale measured, as the table of docs/llama_cpp.md, and as its picture (needs matplotlib)."""
import argparse
import json
from pathlib import Path
from statistics import median


def name(row):
    in_batch = str(row["tokens"]) if row["tokens"] < row["image_tokens"] else "all"
    return f"{in_batch}, plain" if row["left"] is None else f"{in_batch}, {row['left'] if row['left'] < row['image_tokens'] else 'all'} left"


def spread(values):
    return f"{median(values) / 1000:.2f}" if median(values) >= 1000 else f"{median(values) / 1000:.3f}"


def table(result):
    yield f"{result['threads']} threads, ubatches of {result['ubatch']}, {result['text_tokens']} text tokens, medians of interleaved rounds, seconds:"
    yield ""
    yield "| image tokens | in the batch | rounds | first token | fastest to slowest | a further token | cells attended, prefill → end | KV cache, prefill → end | ours |"
    yield "|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    for row in result["rows"]:
        first, following = row["first_token_ms"], row["next_token_ms"]
        times, share, cells = ("", ""), "", ""
        if row["left"] is not None:
            times = f" ({row['speedup_first']:.2f}×)", f" ({row['speedup_next']:.2f}×)"
            share = f"{row['ours_percent_of_first']:.3f} %"
            cells = f"{row['cells_attended_prefill']} → {row['cells_attended_end']}"
        cache = f"{row['kv_bytes_prefill'] / 2**20:.0f} → {row['kv_bytes_end'] / 2**20:.0f} MiB"
        yield (f"| {row['image_tokens']} | {name(row)} | {len(first)} | {spread(first)}{times[0]} | {spread([min(first)])} to {spread([max(first)])} | "
               f"{spread(following)}{times[1]} | {cells} | {cache} | {share} |")


def draw(result, path):
    import matplotlib
    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "mustdrop", "svg.fonttype": "none"})  # the same rows, the same file; text as text
    from matplotlib import pyplot
    totals = sorted({row["image_tokens"] for row in result["rows"]})
    figure, axes = pyplot.subplots(1, len(totals), figsize=(4.5 * len(totals), 2.6), layout="constrained")
    for axis, total in zip([axes] if len(totals) == 1 else axes, totals):
        rows = [row for row in result["rows"] if row["image_tokens"] == total]
        axis.barh([name(row) for row in rows][::-1], [median(row["first_token_ms"]) / 1000 for row in rows][::-1])
        axis.set(title=f"{total} image tokens", xlabel="seconds to the first token", ylabel="in the batch")
    figure.savefig(path, metadata={"Date": None})


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("json", type=Path)
    arguments.add_argument("--svg")
    given = arguments.parse_args()
    result = json.loads(given.json.read_text(encoding="utf-8"))
    print("\n".join(table(result)))
    if given.svg:
        draw(result, given.svg)


if __name__ == "__main__":
    main()
