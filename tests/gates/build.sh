#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# build.sh BUILD_DIR JOBS COMPILER STANDARD TARGET FLAGS [SETS [TESTS]]: builds a target another way, with programs for the instruction sets
# SETS. If it is everything, runs its tests; else those that match TESTS.
set -euo pipefail
build=$1 jobs=$2 compiler=$3 standard=$4 target=$5 flags=$6 sets=${7-} tests=${8-}

# Kernels on the CPU have gates of their own: not everything is built for them once more.
[ "$target" = all ] && emulator=OFF || emulator=ON
if ! command -v "$compiler" > /dev/null; then echo "skipped: $compiler is not installed" && exit 77; fi
cmake -S "$(dirname "$0")/../.." -B "$build" -DCMAKE_CXX_COMPILER="$compiler" -DCMAKE_CXX_STANDARD="$standard" \
  -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_FLAGS_RELEASE="$flags" -DMUSTDROP_BENCH=OFF -DMUSTDROP_GATES=OFF \
  -DMUSTDROP_CUDA_EMULATOR=$emulator "-DMUSTDROP_TEST_SETS=$sets"
cmake --build "$build" --parallel "$jobs" --target "$target"
[ "$target" = all ] || [ -n "$tests" ] || exit 0
ctest --test-dir "$build" --parallel "$jobs" --output-on-failure --no-tests=error ${tests:+-R $tests}
