# SPDX-License-Identifier: Apache-2.0

# find_package(mustdrop 0.1): mustdrop::mustdrop, mustdrop::cpu where the backend is installed and xsimd is found, and mustdrop::cuda where that
# backend is installed and the CUDA toolkit is found.
include("${CMAKE_CURRENT_LIST_DIR}/mustdrop-targets.cmake")

if(EXISTS "${CMAKE_CURRENT_LIST_DIR}/xsimd.cmake" AND NOT TARGET mustdrop::cpu)
  include("${CMAKE_CURRENT_LIST_DIR}/xsimd.cmake")
  if(mustdrop_xsimd_includes)
    add_library(mustdrop::cpu INTERFACE IMPORTED)
    target_link_libraries(mustdrop::cpu INTERFACE mustdrop::mustdrop)
    target_include_directories(mustdrop::cpu SYSTEM INTERFACE ${mustdrop_xsimd_includes})
  endif()
endif()

if(EXISTS "${CMAKE_CURRENT_LIST_DIR}/../../../include/mustdrop/cuda/backend.cuh" AND NOT TARGET mustdrop::cuda)
  find_package(CUDAToolkit QUIET)
  if(CUDAToolkit_FOUND)
    add_library(mustdrop::cuda INTERFACE IMPORTED)
    target_link_libraries(mustdrop::cuda INTERFACE mustdrop::mustdrop CUDA::cudart)
  endif()
endif()

# find_package(mustdrop COMPONENTS cpu) asks for the backend.
foreach(component IN LISTS mustdrop_FIND_COMPONENTS)
  if(NOT TARGET mustdrop::${component} AND mustdrop_FIND_REQUIRED_${component})
    set(mustdrop_FOUND FALSE)
    set(mustdrop_NOT_FOUND_MESSAGE "no mustdrop::${component}; cpu needs xsimd, whose folder MUSTDROP_XSIMD_INCLUDE_DIR can name; cuda needs the CUDA toolkit")
  endif()
endforeach()
