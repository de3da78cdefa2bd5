# SPDX-License-Identifier: Apache-2.0

# Checks that build, or read, the whole tree another way. Those that keep several processors busy say so to CTest.
include(ProcessorCount)
ProcessorCount(jobs)
if(jobs EQUAL 0)
  set(jobs 1)
endif()
set(work ${CMAKE_CURRENT_BINARY_DIR}/gates)

# A tool that is not installed makes a gate say so and exit with 77, which counts as skipped.
function(add_gate name script processors)
  add_test(NAME ${name} COMMAND bash ${PROJECT_SOURCE_DIR}/tests/${script} ${ARGN})
  set_tests_properties(${name} PROPERTIES SKIP_RETURN_CODE 77 PROCESSORS ${processors} LABELS gate TIMEOUT 1800)
endfunction()

# With the main build: gcc and clang, C++17 and C++20, sanitizers. Clang's take a fifth of the time that gcc's take to compile.
add_gate(sanitizers_clang_cxx20 gates/build.sh ${jobs} ${work}/sanitizers ${jobs} clang++ 20 all
         "-O1 -g1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer")  # AVX2 under sanitizers: fuzz_words
set_property(TEST sanitizers_clang_cxx20 PROPERTY ENVIRONMENT  # libomp keeps some kilobytes
             "LSAN_OPTIONS=print_suppressions=0:suppressions=${PROJECT_SOURCE_DIR}/tests/gates/leaks_of_others.txt")
add_gate(library_clang_cxx17 gates/build.sh ${jobs} ${work}/clang_cxx17 ${jobs} clang++ 17 library "-O1")
add_gate(library_gcc_cxx20 gates/build.sh ${jobs} ${work}/gcc_cxx20 ${jobs} g++ 20 library "-O1")

# ThreadSanitizer, over the steps that an executor runs in parts. Clang's OpenMP tells it who waits for whom.
add_gate(threads gates/build.sh ${jobs} ${work}/threads ${jobs} clang++ 17 test_threads
         "-O1 -g1 -mavx2 -mfma -mf16c -fsanitize=thread" "" test_threads)
set_property(TEST threads PROPERTY ENVIRONMENT TSAN_OPTIONS=ignore_noninstrumented_modules=1)

# The emulator of CUDA kernels under sanitizers, which find what it does not see itself. (Clang's miss vectors that are not aligned.)
if(TARGET cuda_emulator)
  add_gate(cuda_emulator_memory gates/build.sh ${jobs} ${work}/cuda_emulator_memory ${jobs} g++ 17 cuda_emulator_tests
           "-O1 -g1 -fsanitize=address,undefined -fno-sanitize-recover=all" "" "test_cuda_emulator|test_planted_bugs")
  add_gate(cuda_emulator_threads gates/build.sh ${jobs} ${work}/cuda_emulator_threads ${jobs} g++ 17 cuda_emulator_tests
           "-O1 -g1 -fsanitize=thread" "" "test_cuda_emulator|test_planted_bugs")
endif()

add_gate(same_bits gates/same_bits.sh ${jobs} ${work}/same_bits ${jobs})
add_gate(nvcc gates/nvcc.sh 1 ${work}/nvcc)
add_gate(verify_cuda gates/verify_cuda.sh 1)
add_gate(symbols gates/symbols.sh 1 ${work}/symbols)
add_gate(fuzz gates/fuzz.sh 1 ${work}/fuzz 10)
add_gate(fuzz_words gates/fuzz_words.sh ${jobs} ${work}/fuzz_words ${jobs} avx2 10
         attention_scores gather window_merge merge_rows window_similarity rerotate cls_topk dual_mask)
add_gate(fuzz_words_that_move gates/fuzz_words.sh ${jobs} ${work}/fuzz_words_that_move ${jobs} avx2 5
         spread_rows compact positions kv_evict top_k random)
add_gate(benchmarks gates/benchmarks.sh ${jobs} ${work}/benchmarks ${jobs})
add_gate(format gates/format.sh 1)
add_gate(tidy gates/tidy.sh ${jobs} ${PROJECT_BINARY_DIR} ${jobs})

foreach(way subdirectory package wrong_version bare)
  add_gate(consumer_${way} consumer/consume.sh 1 ${way} ${PROJECT_BINARY_DIR} ${work}/consumer_${way})
endforeach()

find_package(Python3 REQUIRED COMPONENTS Interpreter)
# What the gate nvcc compiled: spills, lost vector loads, occupancy.
add_test(NAME cuda_report COMMAND Python3::Interpreter ${PROJECT_SOURCE_DIR}/scripts/cuda_report --compiled ${work}/nvcc sm_75 sm_100)
set_tests_properties(cuda_report PROPERTIES SKIP_RETURN_CODE 77 LABELS gate TIMEOUT 600 FIXTURES_REQUIRED compiled_kernels)
set_tests_properties(nvcc PROPERTIES FIXTURES_SETUP compiled_kernels)

if(EXISTS ${PROJECT_SOURCE_DIR}/scripts/check_docs.py)
  add_test(NAME docs COMMAND Python3::Interpreter ${PROJECT_SOURCE_DIR}/scripts/check_docs.py)
endif()
