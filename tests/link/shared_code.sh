#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# shared_code.sh FIRST.o SECOND.o: of the library's and xsimd's functions that both files define, the linker keeps one. None of those may use
# the registers that only the second file's instruction set, AVX-512, has, or registers of more than 16 bytes at all.
set -euo pipefail
first=$1 second=$2

weak() { nm "$1" | awk '$2 ~ /^[WVu]$/ { print $3 }' | sort -u; }
own() { nm "$1" | awk '$2 ~ /^[WVu]$/ { print $3 }' | c++filt | grep -c 'avx' || true; }
mapfile -t shared < <(comm -12 <(weak "$first") <(weak "$second") | grep -E 'mustdrop|xsimd' || true)
objdump -d --no-show-raw-insn "$second" > "$second.txt"
objdump -d --no-show-raw-insn "$first" >> "$second.txt"

failed=0
for symbol in "${shared[@]}"; do
  if awk -v start="<$symbol>:" '$2 == start { on = 1; next } /^$/ { on = 0 } on' "$second.txt" |
    grep -E '%[yz]mm|%xmm(1[6-9]|2[0-9]|3[01])|%k[0-7]' > /dev/null; then
    echo "shared and of one instruction set: $(c++filt "$symbol")" && failed=1
  fi
done
if ! grep -q '%zmm' "$second.txt" || [ "$(own "$second")" -lt 100 ]; then echo "there is no vector code here to look at" && failed=1; fi
echo "${#shared[@]} functions of the library are shared"
exit $failed
