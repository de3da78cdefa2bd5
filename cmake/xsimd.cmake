# SPDX-License-Identifier: Apache-2.0

# Where xsimd's headers are: of a target `xsimd`, or found as xsimd/xsimd.hpp. Its own package is not asked: Debian's target of xsimd 8.1
# would link libxtl too. Read by this project and by the package that it installs.
if(TARGET xsimd)
  set(mustdrop_xsimd_includes $<TARGET_PROPERTY:xsimd,INTERFACE_INCLUDE_DIRECTORIES>)
else()
  find_path(MUSTDROP_XSIMD_INCLUDE_DIR xsimd/xsimd.hpp DOC "The folder above xsimd/xsimd.hpp")
  set(mustdrop_xsimd_includes "")
  if(MUSTDROP_XSIMD_INCLUDE_DIR)
    set(mustdrop_xsimd_includes ${MUSTDROP_XSIMD_INCLUDE_DIR})
  endif()
endif()
