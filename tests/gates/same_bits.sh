#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# same_bits.sh WORK_DIR JOBS [XSIMD]: whatever the compiler, the standard, the optimisation, the instructions and the backend, every word
# writes the same bits. XSIMD is the folder above xsimd/xsimd.hpp, if not the installed one. The flags below let a compiler contract a·b + c into one operation wherever the code leaves it the choice.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$1 jobs=$2 xsimd=${3-}
rm -rf "$work" && mkdir -p "$work"

builds=(  # the first is the one that the others are compared with
  "g++ -std=c++17 -O0"
  "g++ -std=c++17 -O2 -mfma -ffp-contract=fast"
  "g++ -std=c++20 -O3 -march=native"
  "clang++ -std=c++17 -O2"
  "clang++ -std=c++17 -O2 -mfma -ffp-contract=fast"
  "clang++ -std=c++20 -O3 -march=native -ffp-contract=fast"
)
cpu="${xsimd:+-isystem $xsimd }-Ibackends/cpu -DMUSTDROP_TEST_CPU"
avx512="-mavx512f -mavx512cd -mavx512dq -mavx512bw -mavx512vl -mfma -mf16c"
builds+=(
  "g++ -std=c++17 -O1 $cpu"                                 # SSE2
  "g++ -std=c++17 -O3 -mavx $cpu"                           # eight lanes, no fma
  "g++ -std=c++17 -O2 -mavx2 -mfma -ffp-contract=fast $cpu"  # halves by arithmetic
  "clang++ -std=c++17 -O2 -mavx2 -mfma -mf16c -ffp-contract=fast $cpu"
)
missing=""
if grep -qw avx512bw /proc/cpuinfo; then
  builds+=("g++ -std=c++17 -O2 $avx512 -ffp-contract=fast $cpu" "clang++ -std=c++20 -O3 $avx512 -ffp-contract=fast $cpu")
else
  missing="$missing AVX-512"
fi
if command -v aarch64-linux-gnu-g++ > /dev/null && command -v qemu-aarch64 > /dev/null; then  # NEON
  ln -s "$(dirname "$(echo '#include <xsimd/xsimd.hpp>' | g++ -E ${xsimd:+-isystem "$xsimd"} -x c++ - | grep -om1 '[^"]*/xsimd/xsimd.hpp')")" "$work/xsimd"
  builds+=("aarch64-linux-gnu-g++ -std=c++17 -O2 -static -Wno-psabi $cpu -isystem $work" "aarch64-linux-gnu-g++ -std=c++17 -O2 -static")
else
  missing="$missing aarch64-linux-gnu-g++ or qemu-aarch64"
fi
if ! command -v clang++ > /dev/null; then echo "skipped: clang++ is not installed" && exit 77; fi
if ! grep -qw fma /proc/cpuinfo; then echo "skipped: this CPU has no FMA instructions" && exit 77; fi

build_and_run() {  # NUMBER FLAGS…: hashes of every word, and of an expression that does depend on the flags
  local name=$1 run=""
  shift
  case $1 in aarch64*) run=qemu-aarch64 ;; esac
  "$@" -I include tests/same_bits.cpp -o "$name" && $run "$name" > "$name.txt"
  "$@" "$work/contracts.cpp" -o "$name.contracts" && $run "$name.contracts" > "$name.contracts.txt"
}
export -f build_and_run
export work

cat > "$work/contracts.cpp" << 'CODE'
#include <cstdio>
int main() {
  float volatile a = 1 + 0x1p-12f, c = -1 - 0x1p-11f;
  float const product_and_sum = a * a + c;
  std::printf("%a\n", static_cast<double>(product_and_sum));
}
CODE
for i in "${!builds[@]}"; do echo "$work/$i ${builds[i]}"; done |
  xargs -P "$jobs" -I{} bash -c 'set -e; build_and_run {}'

failed=0
for i in "${!builds[@]}"; do
  differing=$(diff "$work/0.txt" "$work/$i.txt" | sed -n 's/^> [0-9a-f]* / /p' || true)
  echo "${builds[i]}: ${differing:+differs in}${differing:-$(wc -l < "$work/$i.txt") hashes equal}"
  [ -z "$differing" ] || failed=1
done
if [ "$(cat "$work"/*.contracts.txt | sort -u | wc -l)" -lt 2 ]; then
  echo "no build contracted anything, so equal hashes prove nothing" && failed=1
fi
[ $failed = 0 ] || exit 1
if [ -n "$missing" ]; then echo "skipped: no$missing" && exit 77; fi
