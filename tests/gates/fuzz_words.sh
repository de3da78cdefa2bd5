#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# fuzz_words.sh WORK_DIR JOBS SET SECONDS [WORD…]: libFuzzer with ASan and UBSan on each word, the reference against the CPU backend on the
# instruction set SET (sse2, avx2 or avx512), from the kept corpus on, JOBS at a time.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$1 jobs=$2 set=$3 seconds=$4
shift 4
if [ $# -eq 0 ]; then  # the longest to build first
  set -- attention_scores gather window_merge merge_rows spread_rows compact window_similarity positions rerotate cls_topk dual_mask kv_evict \
    top_k random
fi

case $set in
  sse2) instructions=() needed=sse2 ;;
  avx2) instructions=(-mavx2 -mfma -mf16c) needed=fma ;;
  avx512) instructions=(-mavx512f -mavx512cd -mavx512dq -mavx512bw -mavx512vl -mfma -mf16c) needed=avx512bw ;;
  *) echo "fuzz_words.sh: \"$set\" is no instruction set" >&2 && exit 2 ;;
esac
if ! command -v clang++ > /dev/null; then echo "skipped: clang++ is not installed" && exit 77; fi
if ! grep -qw "$needed" /proc/cpuinfo; then echo "skipped: this processor has no $needed" && exit 77; fi
mkdir -p "$work"
echo 'extern "C" int LLVMFuzzerTestOneInput(unsigned char const*, unsigned long) { return 0; }' > "$work/probe.cpp"
if ! clang++ -fsanitize=fuzzer,address,undefined "$work/probe.cpp" -o "$work/probe" 2> /dev/null; then
  echo "skipped: clang++ has no libFuzzer (libclang-rt-dev)" && exit 77
fi
if ! echo "#include <xsimd/xsimd.hpp>" | clang++ -std=c++17 -fsyntax-only -x c++ - 2> /dev/null; then
  echo "skipped: xsimd is not installed" && exit 77
fi

flags="-std=c++17 -O1 -g1 -fsanitize=address,undefined,fuzzer-no-link -fno-sanitize-recover=all -fno-omit-frame-pointer ${instructions[*]}"
flags="$flags -I include -I backends/cpu -DMUSTDROP_LIBFUZZER"
# What all of them include is read once.
# shellcheck disable=SC2086
clang++ $flags -x c++-header tests/fuzz_segments.hpp -o "$work/fuzz_segments.pch"
# shellcheck disable=SC2086
clang++ $flags -c tests/fuzz.cpp -o "$work/fuzz.o"

fuzz() {  # WORD
  local word=$1
  # shellcheck disable=SC2086
  clang++ $flags -include-pch "$work/fuzz_segments.pch" -c "tests/fuzz_$word.cpp" -o "$work/$word.o" || return 1
  clang++ -fsanitize=address,undefined,fuzzer "$work/$word.o" "$work/fuzz.o" -o "$work/fuzz_$word" || return 1
  mkdir -p "$work/found_$word"
  local failed=0
  # An input may take 20 seconds and 2 GB.
  "$work/fuzz_$word" -max_total_time="$seconds" -max_len=512 -len_control=20 -timeout=20 -rss_limit_mb=2048 -print_final_stats=1 \
    -artifact_prefix="$work/crash_$word-" "$work/found_$word" "tests/corpus/$word" > "$work/$word.log" 2>&1 || failed=1
  [ $failed = 0 ] || grep -vE '^#[0-9]+|NEW_FUNC' "$work/$word.log" | head -40
  echo "$word: $(sed -n 's/^stat::number_of_executed_units: //p' "$work/$word.log") runs, $([ $failed = 0 ] && echo no || echo a) difference"
  return $failed
}
export -f fuzz
export work seconds flags
printf '%s\0' "$@" | xargs -0 -n 1 -P "$jobs" bash -c 'fuzz "$0"'
