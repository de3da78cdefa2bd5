# SPDX-License-Identifier: Apache-2.0
"""The CPU backend as a shared library: compiles it, loads it, and turns a call into something that costs Python next to nothing."""

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUILD = ROOT / "build" / "compare"
SOURCES = [HERE / "mustdrop_c.cpp", HERE / "roofs.cpp"]
FLAGS = {
    "native": ["-march=native"],
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "avx512": ["-mavx512f", "-mavx512cd", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mfma", "-mf16c"],
}
DTYPES = {"f32": 0, "f16": 1, "bf16": 2}


def build(arch="native"):
    """Path of the library for an instruction set; compiles it if a file that it is made of is newer."""
    target = BUILD / f"libmustdrop_c_{arch}.so"
    headers = [p for folder in ("include", "backends/cpu", "bench/compare", "examples/executors") for p in (ROOT / folder).rglob("*.?pp")]
    if target.exists() and target.stat().st_mtime > max(p.stat().st_mtime for p in headers):
        return target
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++") or sys.exit("compare: no C++ compiler")
    BUILD.mkdir(parents=True, exist_ok=True)
    command = [compiler, "-std=c++17", "-O2", *FLAGS[arch], "-fPIC", "-shared", "-pthread"]
    command += [f"-I{ROOT / folder}" for folder in ("include", "backends/cpu", "examples")]
    fresh = target.with_suffix(f".{os.getpid()}")
    subprocess.run([*command, *map(str, SOURCES), "-o", str(fresh)], check=True)
    fresh.replace(target)
    return target


class Library:
    """Calls by word. An argument is an int (as int64), a ctypes value, or anything with an address: a tensor, an array."""

    def __init__(self, path):
        self.dll = ctypes.CDLL(str(path))
        self.dll.mustdrop_arch.restype = ctypes.c_char_p
        self.arch = self.dll.mustdrop_arch().decode()
        self.threads = None

    def use_threads(self, threads):
        if threads != self.threads:
            self.dll.mustdrop_use_threads(ctypes.c_int(threads))
            self.threads = threads

    def call(self, word, dtype, *arguments):
        """A function of no arguments that makes the call; dtype is left out where it is None. A status other than ok raises."""
        function = getattr(self.dll, f"mustdrop_{word}")
        values = tuple(passed(a) for a in arguments)
        if dtype is not None:
            values = (ctypes.c_int(DTYPES[dtype]), *values)

        def run():
            status = function(*values)
            if status:
                raise RuntimeError(f"{word}: status {status}")

        run.keep_alive = arguments  # the memory that the addresses are of
        return run

    def roof_flops(self, flops):
        """A function that only multiplies."""
        work = ctypes.c_double(flops)
        return lambda: self.dll.mustdrop_roof_flops(work)

    def roof_bytes(self, read, source, target):
        """A function that only reads `read` and copies `source`; any of them may be None."""
        values = (address(read), ctypes.c_int64(nbytes(read)), address(source), address(target), ctypes.c_int64(nbytes(source)))
        return lambda: self.dll.mustdrop_roof_bytes(*values)

    def roof_update(self, tensor):
        """A function that only loads and stores a tensor where it is."""
        values = (address(tensor), ctypes.c_int64(nbytes(tensor)))
        return lambda: self.dll.mustdrop_roof_update(*values)

    def flush(self, *tensors):
        """A function that pushes the tensors out of the caches; None where the processor has no instruction for it."""
        if not self.dll.mustdrop_can_flush():
            return None
        ranges = [(address(t), ctypes.c_int64(nbytes(t))) for t in tensors]

        def run():
            for where, size in ranges:
                self.dll.mustdrop_flush(where, size)

        return run


def nbytes(thing):
    if thing is None:
        return 0
    return thing.numel() * thing.element_size() if hasattr(thing, "numel") else thing.itemsize * len(thing)


def address(thing):
    if thing is None:
        return ctypes.c_void_p()
    return ctypes.c_void_p(thing.data_ptr() if hasattr(thing, "data_ptr") else thing.buffer_info()[0])


def passed(value):
    if isinstance(value, int):
        return ctypes.c_int64(value)
    if isinstance(value, float):
        return ctypes.c_float(value)
    if value is None or hasattr(value, "data_ptr") or hasattr(value, "buffer_info"):
        return address(value)
    return value  # a ctypes value already
