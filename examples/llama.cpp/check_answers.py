#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""check_answers.py DIR: whether the tiny model answers in llama.cpp as it does in examples/llava. Reads what scripts/test_llama_cpp left in DIR;
exit status 1 if it does not.

- With all image tokens, at least 99 % of the answers are the same words.
- With rows dropped before the batch, the mean of four kinds of questions is within two points of llava_eval's: numbered anew, and at their own
  positions for the GGUF whose RoPE has sections; within three where rows are numbered anew and moved to their places after the batch.
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


def main():
    folder, bad = Path(sys.argv[1]), 0
    print("GGUF      positions  tokens  llama.cpp  examples/llava")
    for gguf, positions, there, margin in (("sections", "kept", "kept", 2), ("llama", "moved", "kept", 3), ("llama", "renumber", "renumber", 2)):
        expected = load(folder, f"llava_{there}.json")
        for row in load(folder, f"answers_{gguf}_{positions}.json"):
            line = f"{gguf:<9} {positions:<9} {row['tokens'] or 'all':>7} {row['mean_of_4']:>10.1f}"
            if row["method"] == "none":
                same, asked = row["same_as_llava"]
                good = same >= 0.99 * asked
                print(f"{line}  {same} of {asked} answers the same{'' if good else ': TOO FEW'}")
            else:
                reference = mean_of_llava(expected, row["tokens"])
                good = abs(row["mean_of_4"] - reference) <= margin
                print(f"{line} {reference:>9.1f} ({there}){'' if good else ': TOO FAR'}")
            bad += not good
    print("test_llama_cpp: all as it should be" if not bad else f"test_llama_cpp: {bad} lines are not as they should be")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
