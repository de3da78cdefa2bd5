// SPDX-License-Identifier: Apache-2.0
#pragma once

// Contract: mustdrop/top_k.hpp.

#include <mustdrop/cpu/selection.hpp>
#include <mustdrop/top_k.hpp>

MUSTDROP_NAMESPACE_BEGIN
namespace cpu {

template <class Arch, class Executor>
constexpr std::size_t top_k_workspace_size_impl(backend<Arch, Executor> const&, index_t tokens, segments const&) noexcept {
  return selection_memory<Arch>::bytes(tokens);
}

template <class Arch, class Executor, class Index>
status top_k_impl(backend<Arch, Executor> const& on, top_k_options options, tensor_view<float const, 1> scores, segments const& segments,
                  tensor_view<std::int32_t const, 1> requested, keep_lists<Index> keep, workspace scratch) noexcept {
  selection_memory<Arch> const memory(scratch, scores.size(0));
  in_parts(on, segments.count, many_a_part(on, selection_bytes * segments.bound(scores.size(0))), [&](index_t s) {
    index_t const begin = segments.begin(s), n = segments.size(s, scores.size(0));
    std::int32_t* const keys = memory.keys + begin;
    for_each_register<Arch>(n, [&](index_t t, auto left) {
      store_some<Arch>(keys + t, score_order<Arch>(load_some<Arch>(scores.data + begin + t, left)), left);
    });
    index_t const asked = requested.absent() || requested(s) > keep.capacity() ? keep.capacity() : requested(s);
    keep_best<Arch>(keys, n, asked, options.order, memory.order + begin, keep, s);
  });
  return status::ok;
}

}  // namespace cpu
MUSTDROP_NAMESPACE_END
