# SPDX-License-Identifier: Apache-2.0

# mustdrop_executors: the adapters of examples/executors, and what they need. One that cannot be built is left out, and said.
find_package(Threads REQUIRED)
find_package(OpenMP QUIET COMPONENTS CXX)
find_package(TBB QUIET CONFIG)

add_library(mustdrop_executors INTERFACE)
target_include_directories(mustdrop_executors INTERFACE ${PROJECT_SOURCE_DIR}/examples)
target_link_libraries(mustdrop_executors INTERFACE mustdrop::cpu Threads::Threads)

set(why_no_openmp "")
set(why_no_onetbb "")
if("${CMAKE_CXX_FLAGS} ${CMAKE_CXX_FLAGS_RELEASE}" MATCHES "fsanitize=thread")
  # It reports races that are none where it does not see the threads wait for each other.
  set(why_no_onetbb "ThreadSanitizer does not see into the installed library")
  if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
    set(why_no_openmp "ThreadSanitizer does not see into GCC's libgomp (clang's libomp tells it)")
  endif()
endif()
if(NOT OpenMP_CXX_FOUND)
  set(why_no_openmp "the compiler has none (for clang, scripts/install_tools installs libomp-dev)")
endif()
if(NOT TARGET TBB::tbb)
  set(why_no_onetbb "it is not installed (scripts/install_tools installs libtbb-dev)")
endif()

if(why_no_openmp)
  message(NOTICE "examples/executors: without OpenMP, because ${why_no_openmp}")
else()
  target_link_libraries(mustdrop_executors INTERFACE OpenMP::OpenMP_CXX)
  target_compile_definitions(mustdrop_executors INTERFACE MUSTDROP_HAS_OPENMP)
endif()
if(why_no_onetbb)
  message(NOTICE "examples/executors: without oneTBB, because ${why_no_onetbb}")
else()
  target_link_libraries(mustdrop_executors INTERFACE TBB::tbb)
  target_compile_definitions(mustdrop_executors INTERFACE MUSTDROP_HAS_ONETBB)
endif()
