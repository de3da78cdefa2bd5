// SPDX-License-Identifier: Apache-2.0
#pragma once

// pooling: the other baseline: every window becomes the mean of its tokens, whatever they hold. 24 × 24 patches by 3 × 3: 64 tokens.
//
// = window_merge without similarities, all windows (or `requested` of them, from the first). Tokens that no window covers stay.
// Shapes, order, errors and workspace: as window_merge.
// Source      Wen et al., "Token Pruning in MLLMs: are we solving the right problem?": at 144 tokens 96.4 %, above SparseVLM and FastV.

#include <mustdrop/window_merge.hpp>

MUSTDROP_NAMESPACE_BEGIN
namespace method {

template <class Backend, class T, class Row, class Index, require_backend<Backend> = 0>
status pooling(Backend const& backend, window_shape window, tensor_view<T, 2> features, segments const& segments,
               tensor_view<token_grid const, 1> grids, tensor_view<std::int32_t const, 1> requested, tensor_view<Row, 2> rows,
               tensor_view<float, 1> sizes, tensor_view<Index, 1> source, keep_lists<Index> keep, workspace scratch) noexcept {
  merge_options all;
  all.count = most_tokens;
  return window_merge(backend, all, window, features, segments, grids, tensor_view<float const, 2>{}, requested, rows, sizes, source, keep,
                      scratch);
}

}  // namespace method
MUSTDROP_NAMESPACE_END
