#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# fuzz.sh WORK_DIR SECONDS [TARGET…]: libFuzzer with ASan and UBSan on each loader of examples/llava, from the kept corpus on.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$1 seconds=$2
shift 2
[ $# -gt 0 ] || set -- safetensors index config image tokenizer

if ! command -v clang++ > /dev/null; then echo "skipped: clang++ is not installed" && exit 77; fi
mkdir -p "$work"
echo 'extern "C" int LLVMFuzzerTestOneInput(unsigned char const*, unsigned long) { return 0; }' > "$work/probe.cpp"
if ! clang++ -fsanitize=fuzzer,address,undefined "$work/probe.cpp" -o "$work/probe" 2> /dev/null; then
  echo "skipped: clang++ has no libFuzzer (libclang-rt-dev)" && exit 77
fi
for header in sentencepiece_processor.h png.h jpeglib.h nlohmann/json.hpp; do
  if ! echo "#include <cstdio>
#include <$header>" | clang++ -std=c++17 -fsyntax-only -x c++ - 2> /dev/null; then echo "skipped: $header is not installed" && exit 77; fi
done

flags=(-std=c++17 -O1 -g1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -I examples/llava -DMUSTDROP_LIBFUZZER)
sources=(checkpoint config image json_file picture_file sentencepiece_check tokenizer)
for source in "${sources[@]}"; do clang++ "${flags[@]}" -fsanitize=fuzzer-no-link -c "examples/llava/$source.cpp" -o "$work/$source.o"; done
objects=("${sources[@]/%/.o}")

failed=0
for what in "$@"; do
  clang++ "${flags[@]}" -fsanitize=fuzzer "tests/llava/fuzz_$what.cpp" tests/llava/fuzz.cpp "${objects[@]/#/$work/}" \
    -lsentencepiece -lpng -ljpeg -lpthread -o "$work/fuzz_$what"
  mkdir -p "$work/found_$what"
  # An input may take 20 seconds and 2 GB.
  if ! "$work/fuzz_$what" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -print_final_stats=1 \
    -artifact_prefix="$work/crash_$what-" "$work/found_$what" "tests/llava/corpus/$what" > "$work/$what.log" 2>&1; then
    tail -40 "$work/$what.log"
    failed=1
  fi
  grep -hE 'stat::number_of_executed_units|stat::new_units_added' "$work/$what.log" | sed "s/^/$what: /"
done
exit $failed
