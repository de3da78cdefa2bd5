#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# verify_cuda.sh: one launch of each kernel of the CUDA backend, as nvcc compiles it, is proved free of races, and planted bugs are found.
# All launches: scripts/verify_cuda --all.
set -euo pipefail
cd "$(dirname "$0")/../.."
if ! command -v python3 > /dev/null; then echo "skipped: python3 is not installed" && exit 77; fi
exec scripts/verify_cuda --quick
