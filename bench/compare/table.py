# SPDX-License-Identifier: Apache-2.0
"""Rows as Markdown, and as a picture."""

from targets import bar_of, roof_bar_of, verdict

HEAD = ("word|shape|type|threads|data|malloc|baseline|times faster|spread|bar|verdict|ours, µs|of the roof|of a 7B prefill|"
        "page faults ours / theirs").split("|")


def number(value):
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def roof_cell(row):
    if row["share_of_roof"] is None:
        return "latency"
    bar, cell = roof_bar_of(row), f"{row['share_of_roof']:.0%}"
    return cell if bar is None else f"{cell} (≥ {bar:.0%}: {verdict(row['share_of_roof'], bar, row['spread'])})"


def cells(row):
    bar = bar_of(row)
    prefill = f"{row['share_of_prefill']:.4%}" if row["share_of_prefill"] else "—"
    return [
        row["word"], row["shape"], row["dtype"],
        str(row["threads"]), row["state"], row["allocator"], row["baseline"],
        number(row["ratio"]), f"± {row['spread']:.0%}", "—" if bar is None else f"≥ {bar}",
        "—" if bar is None else verdict(row["ratio"], bar, row["spread"]),
        number(row["ours_us"]),
        roof_cell(row), prefill, f"{row['ours_faults']:.0f} / {row['baseline_faults']:.0f}"
    ]


def markdown(rows):
    lines = ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
    return "\n".join(lines + ["| " + " | ".join(cells(row)) + " |" for row in rows])


def summary(rows):
    """One line: how many bars are met, and which are not."""
    judged = [(row, verdict(row["ratio"], bar_of(row), row["spread"])) for row in rows if bar_of(row) is not None]
    missed = [
        f"{row['word']} {row['shape']} {row['dtype']} against {row['baseline']} ({number(row['ratio'])} of {bar_of(row)})"
        for row, said in judged if "missed" in said
    ]
    met = sum("missed" not in said for _, said in judged)
    return f"{met} of {len(judged)} bars met" + (f"; missed: {'; '.join(missed)}" if missed else "")


def plot(rows, path):
    """Ratios of hot rows, largest first within a word; a tick is the bar."""
    import matplotlib
    matplotlib.use("agg")
    matplotlib.rcParams.update({"svg.hashsalt": "mustdrop", "svg.fonttype": "none"})  # the same rows, the same file; text as text
    from matplotlib import pyplot

    shown = [r for r in rows if r["state"] == "hot" and (r["dtype"] == "f32" or bar_of(r)) and r["allocator"] != "glibc"]
    shown = shown or [r for r in rows if r["state"] == "hot"]
    figure, axes = pyplot.subplots(figsize=(11, 1.2 + 0.24 * len(shown)))
    for at, row in enumerate(reversed(shown)):
        axes.barh(at, row["ratio"], color="tab:blue" if row["threads"] == 1 else "tab:cyan", xerr=row["spread"] * row["ratio"])
        bar = bar_of(row)
        if bar is not None:
            axes.plot([bar, bar], [at - 0.4, at + 0.4], color="black", linewidth=2)
    names = [f"{r['word']}, {r['shape']}, {r['dtype']}, {r['threads']} thread{'s' * (r['threads'] > 1)}: {r['baseline']}" for r in shown]
    axes.set_yticks(range(len(shown)), reversed(names), fontsize=7)
    axes.set_xscale("log")
    axes.margins(y=0.01)
    axes.axvline(1, color="grey", linewidth=1)
    axes.set_xlabel("time of the baseline / time of mustdrop (log scale; black: the bar)")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
