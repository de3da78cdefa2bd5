// SPDX-License-Identifier: Apache-2.0
#pragma once

#define MUSTDROP_VERSION_MAJOR 0
#define MUSTDROP_VERSION_MINOR 1
#define MUSTDROP_VERSION_PATCH 0

// Two versions of the library can live in one program: the version is part of every symbol.
#define MUSTDROP_NAMESPACE_BEGIN \
  namespace mustdrop {           \
  inline namespace v0_1 {
#define MUSTDROP_NAMESPACE_END \
  }                            \
  }

// What a kernel may call too.
#if defined(__CUDACC__)
#define MUSTDROP_HD __host__ __device__
#else
#define MUSTDROP_HD
#endif
