// SPDX-License-Identifier: Apache-2.0
#pragma once

// Contract: mustdrop/cls_topk.hpp.

#include <mustdrop/cls_topk.hpp>
#include <mustdrop/cpu/selection.hpp>

MUSTDROP_NAMESPACE_BEGIN
namespace cpu {

template <class Arch, class Executor>
constexpr std::size_t cls_topk_workspace_size_impl(backend<Arch, Executor> const&, index_t, index_t tokens, segments const&) noexcept {
  return selection_memory<Arch>::bytes(tokens);
}

/// Keys of n tokens from the mean of their heads. Four registers of sums stay in registers while the heads pass by; a mean becomes its key
/// at once and is never stored.
template <class Arch, class T>
MUSTDROP_FLATTEN void head_mean_keys(T const* attention, index_t heads, index_t head_stride, index_t n, std::int32_t* keys) noexcept {
  constexpr int registers = 4;
  floats<Arch> const divisor(static_cast<float>(heads));
  index_t t = 0;
  for (; t + registers * lanes<Arch> <= n; t += registers * lanes<Arch>) {
    floats<Arch> sum[registers];
    unroll<registers>([&](auto r) { sum[r] = floats<Arch>(0.0f); });
    for (index_t h = 0; h < heads; ++h) {
      T const* const row = attention + h * head_stride + t;
      unroll<registers>([&](auto r) { sum[r] = sum[r] + load_lanes<Arch>(row + r * lanes<Arch>); });
    }
    unroll<registers>([&](auto r) { score_order<Arch>(divide<Arch>(sum[r], divisor)).store_unaligned(keys + t + r * lanes<Arch>); });
  }
  for (; t < n; t += lanes<Arch>) {
    floats<Arch> sum(0.0f);
    for (index_t h = 0; h < heads; ++h) { sum = sum + load_some<Arch>(attention + h * head_stride + t, n - t); }
    store_some<Arch>(keys + t, score_order<Arch>(divide<Arch>(sum, divisor)), n - t);
  }
}

template <class Arch, class Executor, class T, class Index>
status cls_topk_impl(backend<Arch, Executor> const& on, cls_topk_options options, tensor_view<T const, 2> attention,
                     segments const& segments, tensor_view<std::int32_t const, 1> requested, keep_lists<Index> keep,
                     workspace scratch) noexcept {
  selection_memory<Arch> const memory(scratch, attention.size(1));
  index_t const each = selection_bytes + attention.size(0) * static_cast<index_t>(sizeof(T));
  in_parts(on, segments.count, many_a_part(on, each * segments.bound(attention.size(1))), [&](index_t s) {
    index_t const size = segments.size(s, attention.size(1)), first = segments.begin(s) + options.prefix;
    index_t const left = size - options.prefix - options.suffix, patches = left > 0 ? left : 0;
    keep.counts(s) = 0;
    if (patches == 0) { return; }
    head_mean_keys<Arch>(attention.data + first, attention.size(0), attention.strides[0], patches, memory.keys + first);
    index_t const wanted = requested.absent() ? retained_count(options, size) : requested(s);
    index_t const k = wanted < keep.capacity() ? wanted : keep.capacity();
    keep_best<Arch>(memory.keys + first, patches, k, options.order, memory.order + first, keep, s);
  });
  return status::ok;
}

}  // namespace cpu
MUSTDROP_NAMESPACE_END
