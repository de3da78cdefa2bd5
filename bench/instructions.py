#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""instructions.py [WORD...]: which vector instructions each word's kernels consist of, as a Markdown table.

Compiles bench_<word>.cpp once for AVX2 and once for AVX-512 (no program is run), disassembles the CPU backend's functions of f32, and looks at
their innermost loops. For each word the table names up to three functions: those whose loops have the most arithmetic on whole registers, among loops
where it is a fifth of the instructions; which of them takes the time is for a profiler to say. It counts the places that call memcpy and memmove.
`--loops` prints every innermost loop with vector arithmetic.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
SETS = {
    "AVX2": ("ymm", "-mavx2 -mfma -mf16c"),
    "AVX-512": ("zmm", "-mavx512f -mavx512cd -mavx512dq -mavx512bw -mavx512vl -mfma -mf16c -Wno-uninitialized -Wno-maybe-uninitialized"),
}
MOVES = re.compile(r"v?(mov|lea|prefetch|nop|zero|xorps|pxor|broadcast|p?broadcast|insert|extract|perm|p?shuf|p?unpck|pack|gather|kmov)")

OTHERS = re.compile(r"multiply_and_add|read_through|update_through|measured?<|difference<|half|bfloat16|reference::backend")


def compile_one(job):
    word, flags, folder = job
    out = Path(folder) / f"{word}{abs(hash(flags))}.o"
    command = [os.environ.get("CXX", "g++"), "-std=c++17", "-O3", *flags.split(), f"-I{HERE.parent}/include", f"-I{HERE.parent}/backends/cpu",
               "-c", str(HERE / f"bench_{word}.cpp"), "-o", str(out)]
    subprocess.run(command, check=True)
    return subprocess.run(["objdump", "-drC", "--no-show-raw-insn", str(out)], check=True, capture_output=True, text=True).stdout


def functions(listing):
    """Yields (name, [(address, mnemonic, operands)], calls of the C library) of what the CPU backend does with f32."""
    for part in re.split(r"\n\n(?=[0-9a-f]{16} <)", listing):
        head = re.search(r"^[0-9a-f]{16} <(.*)>:$", part, re.M)
        if not head or "cpu::" not in head[1] or OTHERS.search(head[1]):
            continue
        body = re.findall(r"^ *([0-9a-f]+):\t(\S+) *(.*)$", part, re.M)
        calls = Counter(re.findall(r"R_X86_64_\w+\s+(memcpy|memmove)\b", part))
        yield head[1], [(int(address, 16), mnemonic, operands) for address, mnemonic, operands in body if "R_X86" not in mnemonic], calls


def innermost_loops(body):
    """Backward jumps that have no other backward jump inside."""
    spans = []
    for address, mnemonic, operands in body:
        target = re.match(r"([0-9a-f]+) <", operands)
        if mnemonic.startswith("j") and target and body[0][0] <= int(target[1], 16) <= address:
            spans.append((int(target[1], 16), address))
    for begin, end in spans:
        if not any((b, e) != (begin, end) and begin <= b and e <= end for b, e in spans):
            yield [(mnemonic, operands) for address, mnemonic, operands in body if begin <= address <= end]


def vector_arithmetic(loop, register):
    return Counter(mnemonic for mnemonic, operands in loop if register in operands and not MOVES.match(mnemonic))


def short(name):
    """panel_dots of mustdrop::v0_1::cpu::panel_dots<…>(…)."""
    while re.search(r"<[^<>]*>|\([^()]*\)", name):
        name = re.sub(r"<[^<>]*>|\([^()]*\)", "", name)
    name = re.sub(r"\{lambda#?\d*\}", "", name).replace("::operator", "").split(" [")[0].strip()
    return [part for part in re.split(r"::|\s", name) if part][-1]


def summary(counts):
    return ", ".join(f"{n} {mnemonic}" for mnemonic, n in counts.most_common(5)) or "–"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loops", action="store_true", help="every innermost loop with vector arithmetic")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("words", nargs="*", metavar="WORD", default=sorted(p.stem[6:] for p in HERE.glob("bench_*.cpp")))
    options = parser.parse_args()
    print("| word | set | function | vector arithmetic in one pass | instructions | calls in its code |")
    print("|---|---|---|---|--:|---|")
    jobs = [(word, name) for word in options.words for name in SETS]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.jobs) as pool:
        listings = pool.map(compile_one, [(word, SETS[name][1], folder) for word, name in jobs])
        for (word, name), listing in zip(jobs, listings):
            calls, loops = Counter(), []
            for function, body, called in functions(listing):
                calls += called
                loops += [(vector_arithmetic(loop, SETS[name][0]), len(loop), short(function)) for loop in innermost_loops(body)]
            loops = sorted((loop for loop in loops if loop[0]), key=lambda loop: (5 * loop[0].total() < loop[1], -loop[0].total()))
            of_functions = {}
            for loop in loops:  # the largest of each function
                of_functions.setdefault(loop[2], loop)
            largest = list(of_functions.values())[:3]
            for counts, size, function in loops if options.loops else largest or [(Counter(), "–", "–")]:
                print(f"| {word} | {name} | {function} | {summary(counts)} | {size} | {summary(calls)} |")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
