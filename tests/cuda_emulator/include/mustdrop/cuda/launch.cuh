// SPDX-License-Identifier: Apache-2.0
#pragma once

// Stands in for the shipped <mustdrop/cuda/launch.cuh> where the tests run kernels on the CPU: the order of include folders picks it.

#include <cuda_emulator/arithmetic.hpp>
#include <cuda_emulator/kernel.hpp>
#include <cuda_emulator/machine.hpp>
#include <tuple>
#include <type_traits>

#include <mustdrop/version.hpp>

/// A variable that the threads of a block share. Its address is aligned as T asks and no better.
#define MUSTDROP_SHARED(T, name)    \
  struct mustdrop_shared_##name {}; \
  T& name = ::cuda_emulator::shared_variable<mustdrop_shared_##name, T>()

/// The shared memory that the launch asked for. Aligned to 16 bytes.
#define MUSTDROP_DYN_SHARED(T, name) T* name = static_cast<T*>(::cuda_emulator::dynamic_shared_memory())

// A plain __shared__ variable would be one for all blocks, and nothing would watch it.
#undef __shared__
// NOLINTNEXTLINE(readability-identifier-naming)
#define __shared__ static_assert(false, "shared memory is declared with MUSTDROP_SHARED");

MUSTDROP_NAMESPACE_BEGIN
namespace cuda {

/// Queues kernel<<<grid, block, dynamic_shared, stream>>>(arguments...).
template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t dynamic_shared, cudaStream_t stream,
                   Arguments&&... arguments) noexcept {
  static_assert((std::is_trivially_copyable_v<Parameters> && ...), "parameters of a kernel are copied as bytes");
  static_assert((sizeof(Parameters) + ... + 0) <= 4096, "parameters of a kernel are at most 4 KB");
  std::tuple<Parameters...> parameters(static_cast<Parameters>(arguments)...);
  return ::cuda_emulator::queue_kernel({grid, block, dynamic_shared}, stream, [kernel, parameters] { std::apply(kernel, parameters); });
}

}  // namespace cuda
MUSTDROP_NAMESPACE_END
