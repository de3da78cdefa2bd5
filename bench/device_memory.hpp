// SPDX-License-Identifier: Apache-2.0
#pragma once

// What a step keeps outside its block, on a device: offsets, grids and scratch that both the reference and the kernels use. Pages go where they
// are used, and while something is measured that is the device.

#include <mustdrop/cuda/backend.cuh>

#include "../tests/device/device.hpp"

template <class T>
struct managed_allocator {
  using value_type = T;

  managed_allocator() = default;
  template <class U>
  managed_allocator(managed_allocator<U> const&) {}
  T* allocate(std::size_t n) {
    void* memory = nullptr;
    on_device::must(cudaMallocManaged(&memory, n * sizeof(T)), "cudaMallocManaged");
    return static_cast<T*>(memory);
  }
  void deallocate(T* memory, std::size_t) { on_device::must(cudaFree(memory), "cudaFree"); }

  template <class U>
  bool operator==(managed_allocator<U> const&) const {
    return true;
  }
  template <class U>
  bool operator!=(managed_allocator<U> const&) const {
    return false;
  }
};

template <class T>
using lasting = std::vector<T, managed_allocator<T>>;

/// On the stream of a backend that has one.
template <class Tag>
void set_zeros(md::cuda::backend<Tag> const& on, float* data, index_t n) {
  on_device::must(cudaMemsetAsync(data, 0, static_cast<std::size_t>(n) * sizeof(float), on.stream), "cudaMemsetAsync");
}
