#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# tidy.sh BUILD_DIR JOBS: clang-tidy over every file that the build compiles, and the headers that they include; generated files, fuzz targets
# and the tests of examples/llava aside.
set -euo pipefail
build=$1 jobs=$2
cd "$(dirname "$0")/../.."
if ! command -v clang-tidy > /dev/null; then echo "skipped: clang-tidy is not installed" && exit 77; fi
if ! command -v jq > /dev/null; then echo "skipped: jq is not installed" && exit 77; fi
# A file that is compiled for several instruction sets is read once, as it is compiled first.
once=$build/tidy
mkdir -p "$once"
jq 'unique_by(.file)' "$build/compile_commands.json" > "$once/compile_commands.json"
mapfile -t sources < <(jq -r '.[].file' "$once/compile_commands.json" | grep -vE "^$build/|/tests/(llava/|fuzz)")
[ ${#sources[@]} -gt 0 ] || { echo "nothing to look at" && exit 1; }

look_at() {  # DATABASE FILE
  local as=(--quiet -p "$1" --extra-arg=-Wno-unknown-warning-option)
  case $2 in
    */tests/link/every_word.cpp) as+=(--config-file=.clang-tidy) ;;  # all headers, judged as the library is
    */tests/test_threads.cpp | */tests/test_word_memory.cpp) ;;
    # A table of cases is the same code for every backend; without the headers of vector instructions it is read faster.
    */tests/test_*.cpp | */tests/golden*.cpp) as+=(--extra-arg=-UMUSTDROP_TEST_CPU) ;;
  esac
  clang-tidy "${as[@]}" "$2"
}
export -f look_at
printf '%s\0' "${sources[@]}" | xargs -0 -n 1 -P "$jobs" bash -c 'look_at "$0" "$1"' "$once"
echo "${#sources[@]} files"
