# SPDX-License-Identifier: Apache-2.0

# The CUDA backend without a device: the same tables of cases, compiled by the C++ compiler, with the kernels on threads of an emulator. Needs the
# CUDA toolkit's headers, none of its libraries.
option(MUSTDROP_CUDA_EMULATOR "Test the CUDA backend's kernels on the CPU, where the CUDA toolkit's headers are found" ON)
find_path(MUSTDROP_CUDA_INCLUDE_DIR cuda_runtime_api.h PATHS ENV CUDA_HOME /usr/local/cuda PATH_SUFFIXES include
          DOC "The folder of cuda_runtime_api.h")
set(emulator ${CMAKE_CURRENT_SOURCE_DIR}/cuda_emulator/include)

if(NOT MUSTDROP_CUDA_EMULATOR OR NOT EXISTS ${emulator})
  message(STATUS "tests: the CUDA backend is not tested")
elseif(NOT MUSTDROP_CUDA_INCLUDE_DIR)
  message(STATUS "tests: no cuda_runtime_api.h, so the CUDA backend is not tested")
else()
  add_library(emulated_cuda INTERFACE)
  # Its launch.cuh hides the backend's: it must come first.
  target_include_directories(emulated_cuda INTERFACE ${emulator} ${PROJECT_SOURCE_DIR}/backends/cuda)
  target_include_directories(emulated_cuda SYSTEM INTERFACE ${MUSTDROP_CUDA_INCLUDE_DIR})
  target_link_libraries(emulated_cuda INTERFACE mustdrop::mustdrop)
  target_compile_definitions(emulated_cuda INTERFACE MUSTDROP_TEST_CUDA_EMULATOR)
  target_compile_options(emulated_cuda INTERFACE -fno-strict-aliasing)  # as a device reads memory: in words of any type

  file(GLOB kernels CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/backends/cuda/mustdrop/cuda/*.cuh)
  foreach(header IN LISTS kernels)
    cmake_path(GET header STEM word)
    if(EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/test_${word}.cpp)
      add_executable(cuda_${word} test_${word}.cpp)
      target_link_libraries(cuda_${word} PRIVATE emulated_cuda GTest::gtest_main)
      add_test(NAME cuda_${word} COMMAND cuda_${word})
    endif()
  endforeach()
endif()
