// SPDX-License-Identifier: Apache-2.0
#pragma once

// Contract: mustdrop/window_merge.hpp. Two selections say where every token goes: which windows merge, then which tokens have a row, whose
// number is how many before them have one. Then the rows, which are the work.

#include <mustdrop/cuda/elements.cuh>
#include <mustdrop/cuda/selection.cuh>
#include <mustdrop/window_merge.hpp>

MUSTDROP_NAMESPACE_BEGIN
namespace cuda {

/// Of windows and of tokens what their selections need, and a place for each window. The windows of a segment are at most its tokens / n,
/// so they fit where those of the tokens before it end.
struct merge_memory {
  selection_memory windows, tokens;
  std::int32_t* places;  // among the windows that merge, from 1; 0: it does not

  static constexpr std::size_t bytes(index_t tokens, index_t n, index_t segments) noexcept {
    return selection_memory::bytes(tokens, segments) + selection_memory::bytes(tokens / n, segments) +
           static_cast<std::size_t>(tokens / n) * sizeof(std::int32_t);
  }
  merge_memory(void* scratch, index_t tokens_in_all, index_t n, index_t segments) noexcept
      : windows(static_cast<char*>(scratch) + selection_memory::bytes(tokens_in_all, segments), tokens_in_all / n, segments),
        tokens(scratch, tokens_in_all, segments),
        places(reinterpret_cast<std::int32_t*>(static_cast<char*>(scratch) + selection_memory::bytes(tokens_in_all, segments) +
                                               selection_memory::bytes(tokens_in_all / n, segments))) {}
};

template <class Tag>
constexpr std::size_t window_merge_workspace_size_impl(backend<Tag> const&, window_shape window, index_t tokens, index_t, index_t,
                                                       segments const& segments) noexcept {
  return window.tokens() < 1 ? 0 : merge_memory::bytes(tokens, window.tokens(), segments.count);
}

/// Which windows merge: the r most similar.
struct merged_windows_job {
  segments cut;
  window_shape window;
  merge_options options;
  tensor_view<token_grid const, 1> grids;
  tensor_view<float const, 2> similarity;
  tensor_view<std::int32_t const, 1> requested;

  __device__ index_t items(index_t s) const { return window.windows(grids.data[s]); }
  __device__ index_t slot(index_t s) const { return cut.begin(s) / window.tokens(); }
  __device__ std::uint32_t least() const { return score_order(options.threshold); }
  __device__ std::uint32_t key(index_t s, index_t w) const { return score_order(similarity.absent() ? 0.0f : similarity(s, w)); }
  __device__ index_t wanted(index_t s, index_t, index_t similar) const {
    index_t const asked = requested.absent() ? options.count : requested(s);
    return asked >= 0 ? asked : similar;
  }
};

template <class Tag>
__global__ void __launch_bounds__(select_threads)
    place_windows_kernel(unsigned parts, merged_windows_job const job, selection_memory const memory, std::int32_t* places) {
  auto const [s, part] = block_place(parts);
  index_t const n = job.items(s), w = part * select_threads + threadIdx.x, slot = job.slot(s);
  if (w / 32 * 32 >= n) { return; }  // whole warps
  kept_place const place = place_of(memory, s, slot, n, w);
  if (w >= n) { return; }
  std::uint32_t const* const keys = memory.keys + slot;
  bool const ranks = place.stays && job.options.order == output_order::score;
  index_t const at = ranks ? beaten_by(keys, n, w) : place.at;
  places[slot + w] = place.stays ? static_cast<std::int32_t>(at) + 1 : 0;
}

/// Which tokens count for the number of a row: those that stay alone, and by place the anchors of merged windows too.
struct merged_tokens_job {
  merged_windows_job of;
  std::int32_t const* places;

  __device__ index_t items(index_t s) const { return of.grids.data[s].tokens(); }
  __device__ index_t slot(index_t s) const { return of.cut.begin(s); }
  __device__ std::uint32_t least() const { return lowest_key + 1; }
  __device__ std::uint32_t key(index_t s, index_t t) const {
    index_t const w = merged_window(s, t);
    return w < 0 || (of.options.order == output_order::position && t == anchor(s, w)) ? highest_key : lowest_key;
  }
  __device__ index_t wanted(index_t, index_t, index_t may) const { return may; }

  /// The merged window that a token lies in; -1: it stays alone.
  __device__ index_t merged_window(index_t s, index_t t) const {
    index_t const w = window_of(of.grids.data[s], of.window, t);
    return w >= 0 && places[of.slot(s) + w] > 0 ? w : -1;
  }
  __device__ index_t anchor(index_t s, index_t w) const { return window_member(of.grids.data[s], of.window, w, window_anchor(of.window)); }
};

/// The outputs that say where tokens go.
template <class Index>
struct merge_plan {
  tensor_view<float, 1> sizes;
  tensor_view<Index, 1> source;
  keep_lists<Index> keep;
};

/// Rows of the tokens that have one.
template <class Tag, class Index>
__global__ void __launch_bounds__(select_threads)
    assign_rows_kernel(unsigned parts, merged_tokens_job const job, merge_memory const memory, merge_plan<Index> const out) {
  auto const [s, part] = block_place(parts);
  index_t const n = job.items(s), t = part * select_threads + threadIdx.x, begin = job.slot(s), r = memory.windows.cuts[s].kept;
  bool const by_place = job.of.options.order == output_order::position;
  if (t == 0) { out.keep.counts(s) = static_cast<std::int32_t>(memory.tokens.cuts[s].kept + (by_place ? 0 : r)); }
  if (t / 32 * 32 >= n) { return; }  // whole warps
  kept_place const place = place_of(memory.tokens, s, begin, n, t);
  if (t >= n) { return; }
  index_t const w = job.merged_window(s, t), prefix = job.of.grids.data[s].prefix;
  if (w >= 0 && t != job.anchor(s, w)) { return; }
  index_t const alone = place.at < prefix ? place.at : place.at + r;  // by score, merged windows stand behind the prefix
  index_t const row = by_place ? place.at : w >= 0 ? prefix + memory.places[job.of.slot(s) + w] - 1 : alone;
  out.keep.indices(s, row) = static_cast<Index>(t);
  out.source.data[begin + t] = static_cast<Index>(row);
  out.sizes.data[begin + row] = w >= 0 ? static_cast<float>(job.of.window.tokens()) : 1.0f;
}

constexpr int merged_row_threads = 128;

/// A block a row: the mean of a window, or a copy. The other members of a merged window learn where they went.
template <class Tag, int Count, class T, class Row, class Index>
__global__ void __launch_bounds__(merged_row_threads, 1)
    merged_rows_kernel(unsigned parts, merged_tokens_job const job, tensor_view<T const, 2> const features, tensor_view<Row, 2> const rows,
                       merge_plan<Index> const out) {
  auto const [s, row] = block_place(parts);
  if (row >= out.keep.counts(s)) { return; }
  index_t const begin = job.slot(s), token = out.keep.indices(s, row), w = job.merged_window(s, token), dim = features.size(1);
  index_t const n = w >= 0 ? job.of.window.tokens() : 1;
  token_grid const& grid = job.of.grids.data[s];
  for (index_t d = index_t{threadIdx.x} * Count; d < dim; d += merged_row_threads * Count) {
    numbers<Count> sum{};
    for (index_t m = 0; m < n; ++m) {
      index_t const member = w >= 0 ? window_member(grid, job.of.window, w, m) : token;
      numbers<Count> const x = packed<T, Count>::load(features.data + (begin + member) * features.strides[0] + d);
      for (int e = 0; e < Count; ++e) { sum.at[e] = w >= 0 ? sum.at[e] + x.at[e] : x.at[e]; }
    }
    for (int e = 0; e < Count; ++e) { sum.at[e] = w >= 0 ? divide(sum.at[e], static_cast<float>(n)) : sum.at[e]; }
    packed<Row, Count>::store(rows.data + (begin + row) * rows.strides[0] + d, sum);
  }
  for (index_t m = threadIdx.x; w >= 0 && m < n; m += merged_row_threads) {
    out.source.data[begin + window_member(grid, job.of.window, w, m)] = static_cast<Index>(row);
  }
}

template <class Tag, class T, class Row, class Index>
status window_merge_impl(backend<Tag> const& on, merge_options options, window_shape window, tensor_view<T const, 2> features,
                         segments const& segments, tensor_view<token_grid const, 1> grids, tensor_view<float const, 2> similarity,
                         tensor_view<std::int32_t const, 1> requested, tensor_view<Row, 2> rows, tensor_view<float, 1> sizes,
                         tensor_view<Index, 1> source, keep_lists<Index> keep, workspace scratch) noexcept {
  constexpr int count = together<T, Row>();
  index_t const n = window.tokens(), tokens = features.size(0), bound = segments.bound(tokens);
  segment_grid const of_windows = parts_for(segments.count, bound / n), of_tokens = parts_for(segments.count, bound);
  segment_grid const of_rows{segments.count, bound};
  if (!of_rows.fits() || !of_tokens.fits()) { return status::unsupported; }
  merge_memory const memory(scratch.data, tokens, n, segments.count);
  merged_windows_job const windows{segments, window, options, grids, similarity, requested};
  merged_tokens_job const job{windows, memory.places};
  merge_plan<Index> const out{sizes, source, keep};
  bool const wide = features.size(1) % count == 0 && aligned_rows(features) && aligned_rows(rows);
  auto const rows_kernel = wide ? merged_rows_kernel<Tag, count, T, Row, Index> : merged_rows_kernel<Tag, 1, T, Row, Index>;

  status s = select(on, windows, segments.count, bound / n, memory.windows);
  if (s != status::ok) { return s; }
  s = launch_parts(on, of_windows, select_threads, place_windows_kernel<Tag>, windows, memory.windows, memory.places);
  if (s != status::ok) { return s; }
  s = select(on, job, segments.count, bound, memory.tokens);
  if (s != status::ok) { return s; }
  s = launch_parts(on, of_tokens, select_threads, assign_rows_kernel<Tag, Index>, job, memory, out);
  if (s != status::ok) { return s; }
  return launch_parts(on, of_rows, merged_row_threads, rows_kernel, job, features, rows, out);
}

}  // namespace cuda
MUSTDROP_NAMESPACE_END
