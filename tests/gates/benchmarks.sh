#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# benchmarks.sh BUILD_DIR JOBS: every benchmark program builds and measures, after its check that reference and CPU backend write the same
# bytes: the small shape in the cache, one word out of it too. Then the table is made of what they wrote. No time is judged.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=$1 jobs=$2

if [ -z "$(find /usr/include /usr/local/include -path '*benchmark/benchmark.h' 2> /dev/null)" ]; then
  echo "skipped: Google Benchmark is not installed" && exit 77
fi
cmake -S . -B "$build" -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_FLAGS_RELEASE=-O1 -DMUSTDROP_TESTS=OFF -DMUSTDROP_EXAMPLES=OFF -DMUSTDROP_BENCH=ON
cmake --build "$build" --parallel "$jobs" --target benches mustdrop_c
rm -f "$build"/bench_*.json

measure() {  # WORD FILTER
  "$build/bench/bench_$1" --benchmark_min_time=0.001 --benchmark_filter="$2" --benchmark_out="$build/bench_$1.json" --benchmark_out_format=json
}
for source in bench/bench_*.cpp; do
  word=$(basename "$source" .cpp)
  measure "${word#bench_}" '/1x576/hot/'
done
measure top_k '/1x576/'
bench/table.py "$build"/bench_*.json
python3 bench/compare/compare.py --self-check --library "$build/bench/compare/libmustdrop_c.so"
