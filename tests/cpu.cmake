# SPDX-License-Identifier: Apache-2.0

# The CPU backend once more for each instruction set: all tables of cases in one program. The plain build tests the compiler's default set.
include(CheckCXXCompilerFlag)
set(MUSTDROP_TEST_SETS avx2 avx512 CACHE STRING "Instruction sets that get a program of their own")
set(flags_avx2 -mavx2 -mfma -mf16c)
set(flags_avx512 -mavx512f -mavx512cd -mavx512dq -mavx512bw -mavx512vl -mfma -mf16c)
set(arch_avx2 xsimd::fma3<xsimd::avx2>)
set(arch_avx512 xsimd::avx512bw)
set(needs_avx2 fma)
set(needs_avx512 avx512bw)

# Those that run on every backend.
set(word_sources "")
foreach(source IN LISTS sources)
  file(STRINGS ${source} typed REGEX "^TYPED_TEST_SUITE\\(.*Backends")
  if(typed OR source MATCHES "/test_threads.cpp$")
    list(APPEND word_sources ${source})
  endif()
endforeach()

foreach(set IN LISTS MUSTDROP_TEST_SETS)
  check_cxx_compiler_flag("${flags_${set}}" MUSTDROP_HAS_${set})
  if(NOT MUSTDROP_HAS_${set})
    message(STATUS "tests: this compiler does not know ${set}")
    continue()
  endif()
  add_library(flags_${set} INTERFACE)
  target_compile_options(flags_${set} INTERFACE ${flags_${set}})
  if(set STREQUAL avx512 AND CMAKE_CXX_COMPILER_ID STREQUAL GNU AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
    # GCC's own intrinsics begin with an undefined register, and it warns of that (bug 105593).
    target_compile_options(flags_${set} INTERFACE -Wno-uninitialized -Wno-maybe-uninitialized)
  endif()

  add_library(needs_${set} OBJECT processor.cpp)
  target_compile_definitions(needs_${set} PRIVATE MUSTDROP_TEST_PROCESSOR="${needs_${set}}")

  add_executable(words_${set} ${word_sources})
  target_link_libraries(words_${set} PRIVATE backends mustdrop_executors flags_${set} needs_${set} GTest::gtest_main)
  target_compile_definitions(words_${set} PRIVATE "MUSTDROP_TEST_ARCH=${arch_${set}}")
  target_compile_options(words_${set} PRIVATE ${table_options})
  add_test(NAME words_${set} COMMAND words_${set})
  set_tests_properties(words_${set} PROPERTIES SKIP_RETURN_CODE 77)
endforeach()

# Every word once, for clang-tidy to judge the backend's headers as it judges the library's.
if(TARGET flags_avx2)
  add_library(every_word_cpu OBJECT link/every_word.cpp)
  target_link_libraries(every_word_cpu PRIVATE backends flags_avx2)
  target_compile_options(every_word_cpu PRIVATE -fno-exceptions -fno-rtti)
endif()

# Two files for two instruction sets in one program, each calling its own code.
if(TARGET flags_avx2 AND TARGET flags_avx512)
  add_executable(two_sets link/two_sets.cpp)
  target_link_libraries(two_sets PRIVATE backends needs_avx512)
  foreach(set avx2 avx512)
    add_library(set_${set} OBJECT link/one_set.cpp)
    target_link_libraries(set_${set} PRIVATE backends flags_${set})
    target_compile_options(set_${set} PRIVATE -fno-exceptions -fno-rtti)
    target_compile_definitions(set_${set} PRIVATE "MUSTDROP_TEST_ARCH=${arch_${set}}" MUSTDROP_TEST_SET=${set})
    target_link_libraries(two_sets PRIVATE set_${set})
  endforeach()
  add_test(NAME two_sets COMMAND two_sets)
  set_tests_properties(two_sets PROPERTIES SKIP_RETURN_CODE 77)
  find_program(NM nm)
  find_program(OBJDUMP objdump)
  if(NM AND OBJDUMP)
    add_test(NAME two_sets_share_no_kernel COMMAND bash ${CMAKE_CURRENT_SOURCE_DIR}/link/shared_code.sh
             $<TARGET_OBJECTS:set_avx2> $<TARGET_OBJECTS:set_avx512>)
  endif()
endif()

# The reference against the CPU backend on inputs that bytes make: random ones and kept ones here, libFuzzer's in gates/fuzz_words.sh.
add_library(fuzz_driver OBJECT fuzz.cpp)
target_link_libraries(fuzz_driver PRIVATE backends)
file(GLOB sources CONFIGURE_DEPENDS fuzz_*.cpp)
foreach(source IN LISTS sources)
  cmake_path(GET source STEM name)
  string(REPLACE fuzz_ "" word ${name})
  add_executable(${name} ${source})
  target_link_libraries(${name} PRIVATE backends fuzz_driver)
  add_test(NAME ${name} COMMAND ${name} ${CMAKE_CURRENT_SOURCE_DIR}/corpus/${word})
endforeach()
