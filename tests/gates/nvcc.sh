#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# nvcc.sh WORK [ARCHITECTURE…]: the CUDA backend as its own compiler sees it, warnings being errors. What it makes of the kernels stays in
# WORK/ARCHITECTURE, for scripts/cuda_report.
# - Each header alone and twice.
# - Every word for each type: in C++17 for the oldest architecture, in C++20 for a new one, and in both for those that are named.
# - Files compiled for two lists of architectures in one program share no kernel, and answer as they must as far as the host's side goes.
# - A test and a benchmark for a device build, and without one say so.
set -euo pipefail
work=$1
shift
cd "$(dirname "$0")/../.."
if ! command -v nvcc > /dev/null; then echo "skipped: nvcc is not installed" && exit 77; fi
rm -rf "$work" && mkdir -p "$work"

compile() {  # ARCHITECTURE STANDARD SOURCE OBJECT [FLAG…]
  nvcc -x cu -c -std="$2" -arch="$1" -O3 -Werror all-warnings -Xcompiler -Wall,-Wextra,-Wconversion,-Wshadow,-Werror -Xptxas -warn-spills \
    -DMUSTDROP_TEST_CUDA -I include -I backends/cuda "$3" -o "$4" "${@:5}"
}

headers=0
for header in backends/cuda/mustdrop/cuda/*.cuh; do
  include="#include <${header#backends/cuda/}>"
  printf '%s\n%s\n' "$include" "$include" > "$work/header.cu"
  compile sm_75 c++17 "$work/header.cu" "$work/header.o"
  headers=$((headers + 1))
done

every_word() {  # ARCHITECTURE STANDARD
  mkdir -p "$work/$1"
  compile "$1" "$2" tests/link/every_word.cpp "$work/$1/every_word.o" -Xptxas -v --keep --keep-dir "$work/$1" 2> "$work/$1/ptxas.txt" ||
    { cat "$work/$1/ptxas.txt" && exit 1; }
}
every_word sm_75 c++17
every_word sm_100 c++20
cp "$work/sm_75/every_word.o" "$work/old.o"
cp "$work/sm_100/every_word.o" "$work/new.o"
for architecture in "$@"; do
  for standard in c++17 c++20; do
    echo "$architecture, $standard"
    every_word "$architecture" $standard
  done
done

weak() { nm -C "$1" | awk '$2 ~ /^[WVu]$/' | cut -d ' ' -f 3- | sort -u; }
kernels() { nm -C "$1" | cut -d ' ' -f 3- | grep -oE 'cuda::[a-z_]*_kernel<[^(]*' | sort -u | wc -l; }
shared=$(comm -12 <(weak "$work/old.o") <(weak "$work/new.o") | grep -E 'cuda::[a-z_]*(_impl|_kernel|launch_parts)<' || true)
[ -z "$shared" ] || { printf 'shared by files for different architectures:\n%s\n' "$shared" && exit 1; }
[ "$(kernels "$work/old.o")" -gt 100 ] || { echo "there are no kernels here to look at" && exit 1; }

compile sm_75 c++17 tests/link/one_list.cu "$work/old_list.o" -DMUSTDROP_TEST_CALLER=best_by_old -DMUSTDROP_TEST_SCRATCH=scratch_of_old
compile sm_100 c++20 tests/link/one_list.cu "$work/new_list.o" -DMUSTDROP_TEST_CALLER=best_by_new -DMUSTDROP_TEST_SCRATCH=scratch_of_new
compile sm_75 c++17 tests/link/two_lists.cu "$work/two_lists.o"
nvcc -arch=sm_75 "$work"/{two_lists,old_list,new_list,old,new}.o -o "$work/two_lists"
"$work/two_lists"

# Two of the programs for a device; scripts/test_cuda_device builds them all.
for_device() {  # PROGRAM SOURCE MACRO [HOST_SOURCE…] LIBRARY
  nvcc -x cu -c -std=c++17 -arch=sm_75 -O0 -Werror all-warnings -D"$3" -I include -I backends/cuda "$2" -o "$work/$1.o"
  nvcc -std=c++17 -arch=sm_75 "$work/$1.o" "${@:4}" -o "$work/$1"
  local status=0
  "$work/$1" > "$work/$1.txt" || status=$?
  if [ $status = 77 ]; then
    grep '^no device: cudaGetDeviceCount answers' "$work/$1.txt"
    if MUSTDROP_REQUIRE_GPU=1 "$work/$1" > /dev/null; then echo "$1: a device is required, and there is none" && exit 1; fi
  elif [ $status != 0 ]; then
    cat "$work/$1.txt" && exit 1
  fi
}
for_device device_top_k tests/test_top_k.cpp MUSTDROP_TEST_CUDA_DEVICE tests/device/main.cpp tests/device/run_tests.cpp -lgtest
for_device device_bench_gather bench/bench_gather.cpp MUSTDROP_BENCH_CUDA -lbenchmark
echo "$headers headers, $(kernels "$work/old.o") kernels"
