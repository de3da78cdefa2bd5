#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# format.sh: every source file is as .clang-format has it.
set -euo pipefail
cd "$(dirname "$0")/../.."
if ! command -v clang-format > /dev/null; then echo "skipped: clang-format is not installed" && exit 77; fi
mapfile -t sources < <(find . -path ./build -prune -o -type f \( -name '*.?pp' -o -name '*.cu' -o -name '*.cuh' \) -print)
clang-format --dry-run -Werror "${sources[@]}"
echo "${#sources[@]} files"
