#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# same_bits.sh WORK_DIR JOBS: whatever the compiler, the standard, the optimisation and the instructions, every word writes the same bits.
# The flags below let a compiler contract a·b + c into one operation wherever the code leaves it the choice.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$1 jobs=$2
rm -rf "$work" && mkdir -p "$work"

builds=(
  "g++ -std=c++17 -O0"
  "g++ -std=c++17 -O2 -mfma -ffp-contract=fast"
  "g++ -std=c++20 -O3 -march=native"
  "clang++ -std=c++17 -O2"
  "clang++ -std=c++17 -O2 -mfma -ffp-contract=fast"
  "clang++ -std=c++20 -O3 -march=native -ffp-contract=fast"
)
if ! command -v clang++ > /dev/null; then echo "skipped: clang++ is not installed" && exit 77; fi
if ! grep -qw fma /proc/cpuinfo; then echo "skipped: this CPU has no FMA instructions" && exit 77; fi

build_and_run() {  # NUMBER FLAGS…: hashes of every word, and of an expression that does depend on the flags
  local name=$1
  shift
  "$@" -I include tests/same_bits.cpp -o "$name" && "$name" > "$name.txt"
  "$@" "$work/contracts.cpp" -o "$name.contracts" && "$name.contracts" > "$name.contracts.txt"
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
exit $failed
