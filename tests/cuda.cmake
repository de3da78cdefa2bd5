# SPDX-License-Identifier: Apache-2.0

# The CUDA backend without a device: the tables of cases once more, with the kernels on threads of cuda_emulator.
if(NOT TARGET cuda_emulator)
  message(STATUS "tests: no CUDA toolkit, or MUSTDROP_CUDA_EMULATOR is off, so nothing of the CUDA backend is tested")
  return()
endif()

add_library(emulated_cuda INTERFACE)
target_include_directories(emulated_cuda INTERFACE ${PROJECT_SOURCE_DIR}/backends/cuda)
target_link_libraries(emulated_cuda INTERFACE mustdrop::mustdrop)
target_compile_definitions(emulated_cuda INTERFACE MUSTDROP_TEST_CUDA_EMULATOR)
target_compile_options(emulated_cuda INTERFACE -fno-strict-aliasing)  # as a device reads memory: in words of any type

add_custom_target(cuda_tables)
function(add_cuda_test name)
  add_executable(${name} ${ARGN})
  target_link_libraries(${name} PRIVATE cuda_emulator emulated_cuda GTest::gtest_main)  # the emulator's launch.cuh is found first
  target_compile_options(${name} PRIVATE ${table_options})
  add_test(NAME ${name} COMMAND ${name})
  add_dependencies(cuda_tables ${name})
endfunction()

file(GLOB sources CONFIGURE_DEPENDS test_*.cpp)
foreach(source IN LISTS sources)
  file(STRINGS ${source} typed REGEX "^TYPED_TEST_SUITE\\(.*Backends")
  if(typed)
    cmake_path(GET source STEM name)
    string(REPLACE test_ cuda_ name ${name})
    add_cuda_test(${name} ${source})
  endif()
endforeach()
add_cuda_test(cuda_launches cuda_launches.cpp)
add_cuda_test(cuda_attention_tiles cuda_attention_tiles.cpp)

file(GLOB sources CONFIGURE_DEPENDS golden.cpp golden_*.cpp)
add_executable(cuda_golden ${sources})
target_link_libraries(cuda_golden PRIVATE cuda_emulator emulated_cuda nlohmann_json::nlohmann_json)
target_include_directories(cuda_golden PRIVATE ${PROJECT_SOURCE_DIR}/examples/llava)  # safetensors.hpp
add_test(NAME cuda_golden COMMAND cuda_golden ${CMAKE_CURRENT_SOURCE_DIR}/golden)
add_dependencies(cuda_tables cuda_golden)
