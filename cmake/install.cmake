# SPDX-License-Identifier: Apache-2.0

# Headers under include/, so that a bare -I works, and a package for find_package(mustdrop 0.1).
include(CMakePackageConfigHelpers)

set(package_dir share/cmake/mustdrop)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/mustdrop DESTINATION include FILES_MATCHING PATTERN "*.hpp")
install(TARGETS mustdrop EXPORT mustdrop)
install(EXPORT mustdrop NAMESPACE mustdrop:: FILE mustdrop-targets.cmake DESTINATION ${package_dir})
install(FILES ${PROJECT_SOURCE_DIR}/cmake/mustdrop-config.cmake DESTINATION ${package_dir})
if(MUSTDROP_CPU)
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/backends/cpu/mustdrop DESTINATION include FILES_MATCHING PATTERN "*.hpp")
  install(FILES ${PROJECT_SOURCE_DIR}/cmake/xsimd.cmake DESTINATION ${package_dir})
endif()
if(MUSTDROP_CUDA)
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/backends/cuda/mustdrop DESTINATION include FILES_MATCHING PATTERN "*.cuh")
endif()

# Before 1.0 a new minor version may break its callers.
write_basic_package_version_file(${PROJECT_BINARY_DIR}/mustdrop-config-version.cmake COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES ${PROJECT_BINARY_DIR}/mustdrop-config-version.cmake DESTINATION ${package_dir})
