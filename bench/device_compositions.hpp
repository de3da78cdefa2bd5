// SPDX-License-Identifier: Apache-2.0
#pragma once

// Words put together from CUB's device-wide parts, as one would without this library: what the CUDA backend is measured against. A backend like
// any other, for the shapes of the benchmarks (even segments, nothing requested, no NaN), whose results are compared before they are timed.
// Only what a few parts make is here; nothing of CUB merges windows or moves the slots of a cache in place.

#include <thrust/iterator/counting_iterator.h>
#include <thrust/iterator/transform_iterator.h>
#include <cub/device/device_for.cuh>
#include <cub/device/device_segmented_radix_sort.cuh>
#include <mustdrop/gather.hpp>
#include <mustdrop/top_k.hpp>

#include "../tests/device/device.hpp"

namespace composed {

struct backend {
  using is_mustdrop_backend = void;
  cudaStream_t stream = nullptr;
};

constexpr std::size_t aligned(std::size_t bytes) { return (bytes + 255) / 256 * 256; }
inline md::status status_of(cudaError_t code) { return md::device_status(static_cast<std::int32_t>(code)); }

/// Where the items of each segment begin when all have as many.
struct even_offsets {
  int each;

  __host__ __device__ int operator()(int s) const { return s * each; }
};
using even_iterator = thrust::transform_iterator<even_offsets, thrust::counting_iterator<int>>;
inline even_iterator even(int first, int each) { return {thrust::counting_iterator<int>(first), even_offsets{each}}; }

/// Indices of the items within their segments.
struct number_items {
  int each;
  std::int32_t* out;

  __device__ void operator()(int i) const { out[i] = i % each; }
};
/// The first k of each segment, and their count.
struct take_first {
  int each, k;
  std::int32_t const* from;
  std::int32_t *out, *counts;

  __device__ void operator()(int i) const {
    out[i] = from[i / k * each + i % k];
    if (i % k == 0) { counts[i / k] = k; }
  }
};

/// Arrays of a sort of n items in m segments, the k best of which are sorted again, and what CUB asks for.
struct sort_memory {
  float* keys;
  std::int32_t *numbers, *sorted, *best;
  void* scratch;
  std::size_t scratch_bytes, bytes;

  sort_memory(void* at, int n, int m, int k) {
    char* next = static_cast<char*>(at);
    auto const take = [&next](std::size_t size) { return next += aligned(size), next - aligned(size); };
    auto const items = static_cast<std::size_t>(n) * 4;
    keys = reinterpret_cast<float*>(take(items));
    numbers = reinterpret_cast<std::int32_t*>(take(items));
    sorted = reinterpret_cast<std::int32_t*>(take(items));
    best = reinterpret_cast<std::int32_t*>(take(items));
    scratch = next;
    std::size_t first = 0, second = 0;
    on_device::must(sort_all(nullptr, first, nullptr, n, m, nullptr), "cub");
    on_device::must(sort_best(nullptr, second, nullptr, m, k, nullptr), "cub");
    scratch_bytes = first > second ? first : second;
    bytes = 4 * aligned(items) + scratch_bytes;
  }
  cudaError_t sort_all(void* with, std::size_t& size, float const* scores, int n, int m, cudaStream_t stream) const {
    return cub::DeviceSegmentedRadixSort::SortPairsDescending(with, size, scores, keys, numbers, sorted, n, m, even(0, n / m),
                                                              even(1, n / m), 0, 32, stream);
  }
  cudaError_t sort_best(void* with, std::size_t& size, std::int32_t* out, int m, int k, cudaStream_t stream) const {
    return cub::DeviceSegmentedRadixSort::SortKeys(with, size, best, out, m * k, m, even(0, k), even(1, k), 0, 32, stream);
  }
};

inline std::size_t top_k_workspace_size_impl(backend const&, md::index_t tokens, md::segments const& segments) noexcept {
  auto const n = static_cast<int>(tokens);
  return sort_memory(nullptr, n, static_cast<int>(segments.count), n / static_cast<int>(segments.count)).bytes;
}

inline md::status top_k_impl(backend const& on, md::top_k_options, md::tensor_view<float const, 1> scores, md::segments const& segments,
                             md::tensor_view<std::int32_t const, 1>, md::keep_lists<std::int32_t> keep, md::workspace lent) noexcept {
  int const n = static_cast<int>(scores.size(0)), m = static_cast<int>(segments.count), k = static_cast<int>(keep.capacity());
  sort_memory memory(lent.data, n, m, n / m);
  cudaError_t code = cub::DeviceFor::Bulk(n, number_items{n / m, memory.numbers}, on.stream);
  if (code == cudaSuccess) { code = memory.sort_all(memory.scratch, memory.scratch_bytes, scores.data, n, m, on.stream); }
  if (code == cudaSuccess) {
    code = cub::DeviceFor::Bulk(m * k, take_first{n / m, k, memory.sorted, memory.best, keep.counts.data}, on.stream);
  }
  if (code == cudaSuccess) { code = memory.sort_best(memory.scratch, memory.scratch_bytes, keep.indices.data, m, k, on.stream); }
  return status_of(code);
}

/// An element a thread, as an index_select does it.
template <class T>
struct copy_element {
  md::tensor_view<T const, 3> rows;
  md::tensor_view<T, 3> out;
  std::int32_t const *offsets, *indices;
  md::index_t capacity;

  __device__ void operator()(md::index_t i) const {
    md::index_t const dim = rows.size(2), d = i % dim, at = i / dim, s = at / capacity, begin = offsets[s];
    out.data[(begin + at % capacity) * out.strides[0] + d] = rows.data[(begin + indices[at]) * rows.strides[0] + d];
  }
};

template <class T>
md::status gather_impl(backend const& on, md::tensor_view<T const, 3> rows, md::segments const& segments,
                       md::keep_lists<std::int32_t const> keep, md::tensor_view<T, 3> out,
                       md::tensor_view<std::int32_t const, 1>) noexcept {
  copy_element<T> const copy{rows, out, segments.offsets, keep.indices.data, keep.capacity()};
  return status_of(cub::DeviceFor::Bulk(segments.count * keep.capacity() * rows.size(2), copy, on.stream));
}

}  // namespace composed
