#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""check_answers.py DIR: whether the tiny model answers in llama.cpp as it does in examples/llava. Reads what scripts/test_llama_cpp left in DIR;
exit status 1 if it does not.

- With all image tokens, at least 99 % of the answers are the same words.
- Every method was asked at every budget.
- With rows dropped before the batch, the mean of four kinds of questions is within two points of llava_eval's: numbered anew, and at their own
  positions for the GGUF whose RoPE has sections; within three where rows are numbered anew and moved to their places after the batch.
- What is dropped after the prefill, whose logits say the first word, takes at most a point of these kinds, whose answers are a word or two.
"""
import json
import sys
from pathlib import Path

KINDS = ("what-at", "is-there", "how-many", "where")


def load(folder, name):
    return json.loads((folder / name).read_text(encoding="utf-8"))


def mean_of_llava(rows, tokens):
    shares = [row["correct"] / row["total"] for row in rows if row["tokens"] == tokens and row["kind"] in KINDS]
    return 100 * sum(shares) / len(KINDS)


FILES = (  # GGUF, positions, methods, positions in examples/llava, points between them
    ("sections", "kept", ("none", "before", "after", "mustdrop"), "kept", 2),
    ("llama", "moved", ("none", "before", "mustdrop"), "kept", 3),
    ("llama", "renumber", ("before",), "renumber", 2),
)


def main():
    folder, bad = Path(sys.argv[1]), 0
    print("GGUF      positions  method   tokens  llama.cpp  beside")
    for gguf, positions, methods, there, margin in FILES:
        expected = load(folder, f"llava_{there}.json")
        rows = {(row["method"], row["tokens"]): row for row in load(folder, f"answers_{gguf}_{positions}.json")}
        for method in methods:
            for tokens in (0,) if method == "none" else (192, 128, 64):
                row = rows.get((method, tokens))
                line = f"{gguf:<9} {positions:<9} {method:<9} {tokens or 'all':>6}"
                if row is None:
                    print(f"{line} was not asked")
                    bad += 1
                    continue
                line += f" {row['mean_of_4']:>10.1f}"
                if method == "none":
                    same, asked = row["same_as_llava"]
                    good = same >= 0.99 * asked
                    print(f"{line}  {same} of {asked} answers as examples/llava's{'' if good else ': TOO FEW'}")
                else:
                    if method == "before":
                        name, beside, most = f"examples/llava, {there}", mean_of_llava(expected, tokens), margin
                    else:
                        other = ("none", 0) if method == "after" else ("before", tokens)
                        name, beside, most = other[0], rows[other]["mean_of_4"], 1
                    good = abs(row["mean_of_4"] - beside) <= most
                    print(f"{line} {beside:>7.1f} ({name}){'' if good else ': TOO FAR'}")
                bad += not good
    print("test_llama_cpp: all as it should be" if not bad else f"test_llama_cpp: {bad} lines are not as they should be")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
