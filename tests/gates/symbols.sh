#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# symbols.sh WORK_DIR: an object file with every word asks the linker for a few functions of libc and libm and for nothing else, and holds no
# variable: no allocation, output, environment, exception, abort, thread, global or guard.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$1
rm -rf "$work" && mkdir -p "$work"

allowed='^(memcpy|memmove|memset|fmaf|nearbyintf|sqrtf|_GLOBAL_OFFSET_TABLE_)$'
variables='^\.(t?data|t?bss|init_array|ctors|fini_array|dtors)(\.|$)'

offences() {  # OBJECT: what it should not ask for or hold, one a line
  nm -u "$1" | awk '{ print $NF }' | grep -vE "$allowed" | sort -u || true
  size -A -d "$1" | awk -v variables="$variables" '$1 ~ variables && $1 !~ /^\.data\.rel\.ro/ && $2 > 0 { print "section " $1 }'
}

# A check that finds nothing proves something only if it finds what is there.
planted() {  # WHAT it must name, CODE
  echo "$2" > "$work/planted.cpp"
  g++ -std=c++17 -O0 -c "$work/planted.cpp" -o "$work/planted.o"
  if ! offences "$work/planted.o" | grep "$1" > /dev/null; then echo "this check does not see $1 in: $2" && exit 1; fi
}
planted malloc '#include <cstdlib>
inline void* f() { return std::malloc(8); } void* g() { return f(); }'
planted __cxa_guard_acquire 'int seed(); inline int f() { static int const once = seed(); return once; } int g() { return f(); }'
planted 'section .bss' 'inline int f() { static int calls = 0; return ++calls; } int g() { return f(); }'
planted __cxa_throw 'inline void f() { throw 1; } void g() { f(); }'
planted _Znam 'inline float* f(int n) { return new float[n]; } float* g() { return f(1); }'
planted getenv '#include <cstdlib>
char* g() { return std::getenv("HOME"); }'

failed=0 missing=""
includes_words() {  # FILE BACKEND: the file includes the backend's header of every word
  for word in include/mustdrop/reference/*.hpp; do
    name=$(basename "$word" .hpp)
    if [ "$name" != backend ] && ! grep -q "<mustdrop/$2/$name.hpp>" "$1"; then echo "$1 does not include $2's $name" && failed=1; fi
  done
}
includes_words tests/link/tested_backend.hpp reference
includes_words tests/cpu_backends.hpp cpu

builds=("-O0" "-O2")
cpu="-I backends/cpu -DMUSTDROP_TEST_CPU"
builds+=("-O2 $cpu" "-O2 -mavx2 -mfma -mf16c $cpu" "-O2 -mavx512f -mavx512cd -mavx512dq -mavx512bw -mavx512vl -mfma -mf16c $cpu")
for compiler in g++ clang++; do
  if ! command -v $compiler > /dev/null; then missing="$missing $compiler" && continue; fi
  for flags in "${builds[@]}"; do
    $compiler -std=c++17 -fno-exceptions -fno-rtti $flags -I include -c tests/link/every_word.cpp -o "$work/every_word.o"
    found=$(offences "$work/every_word.o")
    echo "$compiler $flags:" ${found:-asks for nothing but $(nm -u "$work/every_word.o" | awk '{ print $NF }')}
    [ -z "$found" ] || failed=1
  done
done
[ $failed = 0 ] || exit 1
if [ -n "$missing" ]; then echo "skipped: not installed:$missing" && exit 77; fi
