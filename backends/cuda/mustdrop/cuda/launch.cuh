// SPDX-License-Identifier: Apache-2.0
#pragma once

// What kernels are written in, and how they are launched. Tests that run the kernels without a device put their own file of this name first
// in the include order; no other header here knows of it.

#include <cstddef>

#include <cuda_runtime.h>

// An object in the block's shared memory: `MUSTDROP_SHARED(float, total);`. A type with commas or brackets needs a name first.
#define MUSTDROP_SHARED(Type, name) __shared__ Type name
// A pointer to the shared memory whose size the launch says.
#define MUSTDROP_DYN_SHARED(Type, name)                                    \
  extern __shared__ __align__(16) unsigned char mustdrop_dynamic_shared[]; \
  Type* const name = reinterpret_cast<Type*>(mustdrop_dynamic_shared)

#include <mustdrop/version.hpp>

MUSTDROP_NAMESPACE_BEGIN
namespace cuda {

/// Puts a kernel on the stream and returns what CUDA says to it, which may be a failure of earlier work on the device. Nobody's last error
/// is cleared here.
template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t dynamic_shared, cudaStream_t stream,
                   Arguments const&... arguments) noexcept {
  cudaLaunchConfig_t config{};
  config.gridDim = grid, config.blockDim = block, config.dynamicSmemBytes = dynamic_shared, config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
}

}  // namespace cuda
MUSTDROP_NAMESPACE_END
