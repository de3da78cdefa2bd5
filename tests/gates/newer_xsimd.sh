#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# newer_xsimd.sh WORK_DIR JOBS: the CPU backend on the xsimd of Debian's testing and unstable suites, which is newer than the installed one:
# the same bits on every instruction set, and all tables of cases on AVX2 and AVX-512.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$1 jobs=$2 mirror=http://deb.debian.org/debian
mkdir -p "$work"
for suite in trixie sid; do
  if ! curl -sSf --max-time 120 "$mirror/dists/$suite/main/binary-amd64/Packages.xz" | xz -dc > "$work/packages"; then
    echo "skipped: $mirror cannot be reached" && exit 77
  fi
  entry() { awk -v field="$1:" '$0 == "Package: libxsimd-dev" { here = 1 } here && $1 == field { print $2 } /^$/ { here = 0 }' "$work/packages"; }
  version=$(entry Version)
  curl -sSf --max-time 120 "$mirror/$(entry Filename)" -o "$work/xsimd.deb"
  echo "$(entry SHA256)  $work/xsimd.deb" | sha256sum --check --quiet
  rm -rf "$work/$suite" && mkdir "$work/$suite" && dpkg-deb -x "$work/xsimd.deb" "$work/$suite"
  headers=$PWD/$work/$suite/usr/include
  case $work in /*) headers=$work/$suite/usr/include ;; esac

  echo "== xsimd $version"
  bash tests/gates/same_bits.sh "$work/same_bits" "$jobs" "$headers"
  cmake -S . -B "$work/build_$suite" -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_FLAGS_RELEASE=-O1 -DMUSTDROP_EXAMPLES=OFF -DMUSTDROP_BENCH=OFF \
    "-DMUSTDROP_XSIMD_INCLUDE_DIR=$headers" > "$work/configure.log"
  cmake --build "$work/build_$suite" --parallel "$jobs" --target words_avx2 words_avx512 > "$work/build.log" || { cat "$work/build.log" && exit 1; }
  ctest --test-dir "$work/build_$suite" -R '^words_avx' --output-on-failure --no-tests=error
done
