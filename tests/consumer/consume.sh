#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# consume.sh WAY BUILD_DIR WORK_DIR: a project of somebody else's uses the library in one of the ways that the README names.
set -euo pipefail
way=$1 build=$2 work=$3
here=$(cd "$(dirname "$0")" && pwd)
root=$here/../..
rm -rf "$work" && mkdir -p "$work"

configure() { cmake -S "$here" -B "$work/build" "$@"; }
install_to_prefix() { cmake --install "$build" --prefix "$work/prefix" > /dev/null; }

case $way in
  subdirectory)
    configure -DMUSTDROP_SOURCES="$root"
    cmake --build "$work/build" && "$work/build/consumer" && "$work/build/cpu_consumer"
    ;;
  package)
    install_to_prefix
    configure -DCMAKE_PREFIX_PATH="$work/prefix"
    cmake --build "$work/build" && "$work/build/consumer" && "$work/build/cpu_consumer"
    ;;
  wrong_version)
    install_to_prefix
    for version in 0.0 0.2 1.0 9.0; do
      if configure -DCMAKE_PREFIX_PATH="$work/prefix" -DMUSTDROP_WANTED=$version > "$work/log" 2>&1; then
        echo "version $version was accepted" && exit 1
      fi
      grep -q "compatible with requested version \"$version\"" "$work/log" || { cat "$work/log" && exit 1; }  # refused for that reason
    done
    ;;
  bare)
    install_to_prefix
    mkdir -p "$work/tree" && cp -r "$root/include/." "$root/backends/cpu/." "$work/tree"
    diff -r "$work/tree" "$work/prefix/include"
    g++ -I "$work/prefix/include" -std=c++17 -fno-exceptions -fno-rtti "$here/consumer.cpp" -o "$work/consumer" && "$work/consumer"
    ;;
  *) echo "no such way: $way" && exit 1 ;;
esac
echo "$way: ok"
