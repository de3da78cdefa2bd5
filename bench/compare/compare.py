#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares the CPU backend with PyTorch's own expressions of each step, and prints a Markdown table. docs/compare.md says what is compared.

The first run makes build/compare-venv and installs requirements.txt there; nothing else of the project needs any of it."""

import argparse
import glob
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import library

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
VENV = ROOT / "build" / "compare-venv"
PAGE = ROOT / "docs" / "compare.md"
THREAD_VARIABLES = ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"]


def enter_venv():
    """Goes on in the virtual environment, which it makes if requirements.txt is newer."""
    python, stamp = VENV / "bin" / "python", VENV / "installed"
    wanted = HERE / "requirements.txt"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted.read_text(encoding="utf-8"):
        print(f"compare: installing {wanted.relative_to(ROOT)} into {VENV.relative_to(ROOT)}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "-r", str(wanted)], check=True)
        stamp.write_text(wanted.read_text(encoding="utf-8"), encoding="utf-8")
    if Path(sys.prefix) != VENV:
        os.execv(python, [str(python), *sys.argv])


def tcmalloc():
    found = glob.glob("/usr/lib/*/libtcmalloc_minimal.so.4") + glob.glob("/usr/lib64/libtcmalloc_minimal.so.4")
    return found[0] if found else None


def environment(threads, preload):
    """Of a suite's process: its threads, its allocator, and no choice of BLAS kernels but the libraries' own."""
    env = {k: v for k, v in os.environ.items() if k not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "LD_PRELOAD")}
    env.update({name: str(threads) for name in THREAD_VARIABLES})
    if preload:
        env["LD_PRELOAD"] = preload
    return env


def plans(quick, threads):
    """(threads, allocator, library to load first, arguments) of each process."""
    preload = tcmalloc()
    best = "tcmalloc" if preload else "glibc"
    if not preload:
        print("compare: no tcmalloc (Debian: libtcmalloc-minimal4), so no row is judged by a bar that is stated under it", file=sys.stderr)
    full = ["--quick"] if quick else ["--all-types"]
    yield 1, best, preload, ["--states", "hot" if quick else "hot,cold", *full]
    also = ["--states", "hot", *(["--quick"] if quick else [])]
    if not quick and preload:
        yield 1, "glibc", None, also
    if threads > 1:
        yield threads, best, preload, also


def measured(options, dll):
    rows, facts = [], {}
    for threads, allocator, preload, arguments in plans(options.quick, options.threads):
        print(f"compare: {threads} thread(s), {allocator}", file=sys.stderr)
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "rows.json"
            told = {"threads": threads, "allocator": allocator, "library": dll, "out": out, "word": options.word, "clock": options.clock}
            command = [sys.executable, str(HERE / "suite.py"), "--seconds", str(options.seconds), *arguments]
            command += [part for name, value in told.items() for part in (f"--{name}", str(value))]
            subprocess.run(command, env=environment(threads, preload), check=True)
            found = json.loads(out.read_text(encoding="utf-8"))
        rows += found["rows"]
        facts[f"{threads} thread(s), {allocator}"] = found["facts"]
    order = list(dict.fromkeys(row["word"] for row in rows))
    return sorted(rows, key=lambda row: order.index(row["word"])), facts


def processor():
    for line in open("/proc/cpuinfo", encoding="utf-8") if os.path.exists("/proc/cpuinfo") else []:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def report(rows, facts, quick):
    import table
    first = next(iter(facts.values()))
    gflops = ", ".join(f"{name}: {f['gflops']:.0f} GFLOP/s" for name, f in facts.items())
    return "\n".join([
        f"{processor()}; mustdrop on {first['arch']}, PyTorch {first['torch']} on {first['torch_cpu']}; peak of the multipliers {gflops}; "
        f"{'a quick run' if quick else 'the full suite'}. {table.summary(rows)}.", "",
        table.markdown([row for row in rows if table.bar_of(row) is not None]), "", "All rows:", "",
        table.markdown(rows)
    ])


def write_docs(text, picture):
    begin, end = "<!-- begin table -->", "<!-- end table -->"
    page = PAGE.read_text(encoding="utf-8")
    head, tail = page.split(begin)[0], page.split(end)[1]
    PAGE.write_text(f"{head}{begin}\n{text}\n\n![Ratios]({picture.name})\n{end}{tail}", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="float, warm data, few rounds: about two minutes")
    parser.add_argument("--json", metavar="FILE", help="write the rows")
    parser.add_argument("--plot", metavar="FILE", default=str(ROOT / "build" / "compare" / "compare.svg"), help="write the picture here")
    parser.add_argument("--word", default="", help="only words that contain this")
    parser.add_argument("--seconds", type=float, default=0, help="for all contenders of one row, beyond three rounds (quick: 4, full: 10)")
    parser.add_argument("--arch", choices=library.FLAGS, default="native", help="instruction set of mustdrop (PyTorch chooses its own)")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: for a look on a busy machine; one thread only")
    parser.add_argument("--threads", type=int, default=2, help="of the run that is not on one thread; 1: no such run")
    parser.add_argument("--write-docs", action="store_true", help="put the table into docs/compare.md")
    parser.add_argument("--self-check", action="store_true", help="only compare results, without installing anything")
    parser.add_argument("--library", metavar="FILE", help="a library that is built already (CMake target mustdrop_c)")
    options = parser.parse_args()
    if options.self_check:
        import self_check
        return self_check.main(options.library or library.build(options.arch))
    enter_venv()
    rows, facts = measured(options, options.library or library.build(options.arch))
    text = report(rows, facts, options.quick)
    print(text)
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    import table
    picture = PAGE.with_suffix(".svg") if options.write_docs else Path(options.plot)
    picture.parent.mkdir(parents=True, exist_ok=True)
    table.plot(rows, picture)
    if options.write_docs:
        write_docs(text, picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
