#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# tidy.sh BUILD_DIR JOBS: clang-tidy over every file that the build compiles, generated ones aside, and the headers that they include.
set -euo pipefail
build=$1 jobs=$2
cd "$(dirname "$0")/../.."
if ! command -v clang-tidy > /dev/null; then echo "skipped: clang-tidy is not installed" && exit 77; fi
mapfile -t sources < <(sed -n 's/^ *"file": "\(.*\)",*$/\1/p' "$build/compile_commands.json" | grep -v "^$build/" | sort -u)
[ ${#sources[@]} -gt 0 ] || { echo "nothing to look at" && exit 1; }

look_at() {  # BUILD_DIR FILE
  case $2 in
    */tests/link/every_word.cpp) clang-tidy --quiet -p "$1" --config-file=.clang-tidy "$2" ;;  # all headers, judged as the library is
    *) clang-tidy --quiet -p "$1" "$2" ;;
  esac
}
export -f look_at
printf '%s\0' "${sources[@]}" | xargs -0 -n 1 -P "$jobs" bash -c 'look_at "$0" "$1"' "$build"
echo "${#sources[@]} files"
