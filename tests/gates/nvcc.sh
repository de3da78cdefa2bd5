#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# nvcc.sh WORK: the CUDA backend as its own compiler sees it, warnings being errors: each header alone and twice; every word for each
# type, for the oldest architecture and a new one, in C++17 and C++20; and both of those files in one program, sharing no kernel.
set -euo pipefail
work=$1
cd "$(dirname "$0")/../.."
if ! command -v nvcc > /dev/null; then echo "skipped: nvcc is not installed" && exit 77; fi
mkdir -p "$work"

compile() {  # ARCHITECTURE STANDARD SOURCE OBJECT
  nvcc -x cu -c -std="$2" -arch="$1" -O3 -Werror all-warnings -Xcompiler -Wall,-Wextra,-Wconversion,-Wshadow,-Werror -Xptxas -warn-spills \
    -DMUSTDROP_TEST_CUDA -I include -I backends/cuda "$3" -o "$4"
}

headers=0
for header in backends/cuda/mustdrop/cuda/*.cuh; do
  include="#include <${header#backends/cuda/}>"
  printf '%s\n%s\n' "$include" "$include" > "$work/header.cu"
  compile sm_75 c++17 "$work/header.cu" "$work/header.o"
  headers=$((headers + 1))
done

compile sm_75 c++17 tests/link/every_word.cpp "$work/old.o"
compile sm_100 c++20 tests/link/every_word.cpp "$work/new.o"
echo 'int main() {}' > "$work/main.cu"
nvcc "$work/main.cu" "$work/old.o" "$work/new.o" -o "$work/two_lists"

weak() { nm -C "$1" | awk '$2 ~ /^[WVu]$/' | cut -d ' ' -f 3- | sort -u; }
kernels() { nm -C "$1" | cut -d ' ' -f 3- | grep -oE 'cuda::[a-z_]*_kernel<[^(]*' | sort -u | wc -l; }
shared=$(comm -12 <(weak "$work/old.o") <(weak "$work/new.o") | grep -E 'cuda::[a-z_]*(_impl|_kernel|launch_parts)<' || true)
[ -z "$shared" ] || { printf 'shared by files for different architectures:\n%s\n' "$shared" && exit 1; }
[ "$(kernels "$work/old.o")" -gt 100 ] || { echo "there are no kernels here to look at" && exit 1; }
echo "$headers headers, $(kernels "$work/old.o") kernels"
