# SPDX-License-Identifier: Apache-2.0

# mustdrop_executors: the adapters of examples/executors, and what they need. One that is not there is left out, and said.
find_package(Threads REQUIRED)
find_package(OpenMP QUIET COMPONENTS CXX)
find_package(TBB QUIET CONFIG)

add_library(mustdrop_executors INTERFACE)
target_include_directories(mustdrop_executors INTERFACE ${PROJECT_SOURCE_DIR}/examples)
target_link_libraries(mustdrop_executors INTERFACE mustdrop::cpu Threads::Threads)

if(CMAKE_CXX_COMPILER_ID STREQUAL GNU AND "${CMAKE_CXX_FLAGS} ${CMAKE_CXX_FLAGS_RELEASE}" MATCHES "fsanitize=thread")
  message(NOTICE "executors: no OpenMP in this build, because ThreadSanitizer does not see how GCC's libgomp waits and reports races that are none")
elseif(OpenMP_CXX_FOUND)
  target_link_libraries(mustdrop_executors INTERFACE OpenMP::OpenMP_CXX)
  target_compile_definitions(mustdrop_executors INTERFACE MUSTDROP_HAS_OPENMP)
else()
  message(NOTICE "executors: no OpenMP in this build, since the compiler has none (for clang, scripts/install_tools installs libomp-dev)")
endif()
if(TARGET TBB::tbb)
  target_link_libraries(mustdrop_executors INTERFACE TBB::tbb)
  target_compile_definitions(mustdrop_executors INTERFACE MUSTDROP_HAS_ONETBB)
else()
  message(NOTICE "executors: no oneTBB in this build, since it is not installed (scripts/install_tools installs libtbb-dev)")
endif()
