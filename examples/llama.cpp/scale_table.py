#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""scale_table.py SCALE.json … [--svg FILE]: what llama_scale measured, as the tables of docs/llama_cpp.md, and as their picture (needs matplotlib)."""
import argparse
import json
from pathlib import Path
from statistics import median


def name(row):
    in_batch = str(row["tokens"]) if row["tokens"] < row["image_tokens"] else "all"
    return f"{in_batch}, plain" if row["left"] is None else f"{in_batch}, {row['left'] if row['left'] < row['image_tokens'] else 'all'} left"


def seconds(milliseconds):
    return f"{milliseconds / 1000:.2f}" if milliseconds >= 1000 else f"{milliseconds / 1000:.3f}"


def table(result):
    yield (f"{result['threads']} threads, ubatches of {result['ubatch']}, {result['text_tokens']} text tokens, weights "
           f"{'repacked' if result['repacked'] else 'as in the file'}; medians of interleaved rounds:")
    yield ""
    yield ("| image tokens | in the batch | rounds | first token, s | fastest to slowest | of that ours | then dropping, s | a further token, s | "
           "cells attended | KV in use, MiB |")
    yield "|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    for row in result["rows"]:
        plain = next(other for other in result["rows"] if other["image_tokens"] == row["image_tokens"] and other["left"] is None)
        first, following = median(row["first_token_ms"]), median(row["next_token_ms"])
        fastest, slowest = min(row["first_token_ms"]), max(row["first_token_ms"])
        columns = [str(row["image_tokens"]), name(row), str(len(row["first_token_ms"]))]
        if row is plain:
            columns += [seconds(first), f"{seconds(fastest)} to {seconds(slowest)}", "", "", seconds(following), ""]
        else:
            columns += [f"{seconds(first)} ({median(plain['first_token_ms']) / first:.2f}×)", f"{seconds(fastest)} to {seconds(slowest)}",
                        f"{100 * median(row['ours_ms']) / first:.3f} %", seconds(median(row["drop_ms"])),
                        f"{seconds(following)} ({median(plain['next_token_ms']) / following:.2f}×)",
                        f"{row['cells_attended_prefill']} → {row['cells_attended_end']}"]
        columns.append(f"{row['kv_bytes_prefill'] / 2**20:.0f} → {row['kv_bytes_end'] / 2**20:.0f}")
        yield f"| {' | '.join(columns)} |"


def draw(results, path):
    import matplotlib
    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "mustdrop", "svg.fonttype": "none"})  # the same rows, the same file; text as text
    from matplotlib import pyplot
    panels = [(result, total) for result in results for total in sorted({row["image_tokens"] for row in result["rows"]})]
    figure, axes = pyplot.subplots(1, len(panels), figsize=(4.2 * len(panels), 2.8), layout="constrained", squeeze=False)
    for axis, (result, total) in zip(axes[0], panels):
        rows = [row for row in result["rows"] if row["image_tokens"] == total][::-1]
        times = [median(row["first_token_ms"]) / 1000 for row in rows]
        bars = axis.barh([name(row) for row in rows], times)
        axis.bar_label(bars, [f"{time:.1f}" for time in times], padding=3)
        axis.margins(x=0.25)
        axis.set(title=f"{total} image tokens, weights {'repacked' if result['repacked'] else 'as in the file'}", xlabel="seconds to the first token")
    figure.savefig(path, metadata={"Date": None})


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("json", type=Path, nargs="+")
    arguments.add_argument("--svg")
    given = arguments.parse_args()
    results = [json.loads(path.read_text(encoding="utf-8")) for path in given.json]
    print("\n\n".join("\n".join(table(result)) for result in results))
    if given.svg:
        draw(results, given.svg)


if __name__ == "__main__":
    main()
