// SPDX-License-Identifier: Apache-2.0
#pragma once

// attention_scores after its dot products: from those to exponentials, a block a row and head; from weights to their sum over heads, a
// thread a row and key; and to the sums over rows, a thread a key.

#include <mustdrop/attention_scores.hpp>
#include <mustdrop/cuda/numerics.cuh>

MUSTDROP_NAMESPACE_BEGIN
namespace cuda {

/// How a call is cut: so many rows pass at a time, as much alike as can be. A row of one head takes `stride` floats of scratch.
struct attention_plan {
  index_t heads, rows, stride;  // heads: 0 for a map

  static constexpr attention_plan of(attention_shape shape, segments const& key_segments) noexcept {
    constexpr index_t most_floats = index_t{1} << 22;  // what stays in the second cache from one kernel to the next
    attention_plan plan{shape.kv_heads > 0 ? shape.heads : 0, 1, round_up(key_segments.bound(shape.keys), 4)};
    index_t const at_once = plan.row_size() > 0 ? most_floats / plan.row_size() : shape.rows;
    plan.rows = at_once < 1 || shape.rows < 1 ? 1 : parts_of(shape.rows, parts_of(shape.rows, at_once));
    return plan;
  }
  constexpr index_t row_size() const noexcept { return (heads + 1) * stride + heads; }
  constexpr std::size_t bytes() const noexcept { return static_cast<std::size_t>(rows * row_size()) * sizeof(float); }
};

/// What all kernels of a call are told, and the rows [first, last) that pass now.
struct attention_pass {
  attention_options options;
  attention_plan plan;
  segments row_segments, key_segments;
  tensor_view<std::int32_t const, 1> row_limits;
  tensor_view<key_span const, 1> spans;
  index_t all_rows, all_keys, first, last;
  float* scratch;

  /// Dot products, then exponentials, of row t and head h: one for each key.
  __device__ float* dots(index_t h, index_t t) const { return scratch + (h * plan.rows + t - first) * plan.stride; }
  /// Weights of row t, over all heads.
  __device__ float* weights(index_t t) const { return dots(plan.heads, t); }
  /// What divides the exponentials.
  __device__ float& total(index_t h, index_t t) const { return dots(plan.heads + 1, first)[h * plan.rows + t - first]; }

  __device__ index_t keys(index_t s) const { return key_segments.size(s, all_keys); }
  __device__ index_t limit(index_t s, index_t t) const {
    index_t const size = keys(s);
    return row_limits.absent() || row_limits.data[t] > size ? size : row_limits.data[t] < 0 ? 0 : row_limits.data[t];
  }
  /// The keys of a segment that are written.
  __device__ index_t written_from(index_t s) const { return spans.absent() ? 0 : spans.data[s].begin; }
  __device__ index_t written_to(index_t s) const { return spans.absent() ? keys(s) : spans.data[s].end; }

  /// The rows of a segment that pass now.
  __device__ index_t rows_from(index_t s) const { return row_segments.begin(s) > first ? row_segments.begin(s) : first; }
  __device__ index_t rows_to(index_t s) const { return lesser(row_segments.begin(s) + row_segments.size(s, all_rows), last); }
  /// The segment that row t is of; -1: none.
  __device__ index_t segment_of(index_t t) const {
    index_t low = 0, high = row_segments.count;  // the last that begins at t or before
    while (high - low > 1) {
      index_t const middle = low + (high - low) / 2;
      bool const before = row_segments.begin(middle) <= t;
      low = before ? middle : low, high = before ? high : middle;
    }
    bool const inside =
        row_segments.count > 0 && t >= row_segments.begin(low) && t < row_segments.begin(low) + row_segments.size(low, all_rows);
    return inside ? low : -1;
  }
};

/// A block takes four keys a thread at a time, and every time the same thread the same keys: what it wrote, it reads.
struct exponential_block {
  static constexpr int threads = 256, step = 4 * threads, tile = 2 * step;

  struct alignas(16) shared {
    float powers[2][tile];
    float tops[threads / 32];
  };
};

/// The highest logit of a row; NaN is never that. Dot products become their tanh on the way if logits are capped.
__device__ inline float highest(attention_options const& options, float* row, index_t keys,
                                float (&tops)[exponential_block::threads / 32]) {
  bool const capped = options.softcap > 0;
  float const scale = capped ? options.softcap : options.scale;
  float top = float_from_bits(0xff800000u);
  for (index_t j = 4 * index_t{threadIdx.x}; j < keys; j += exponential_block::step) {
    auto four = packed<float, 4>::load(row + j);
    if (capped) {
      for (float& dot : four.at) { dot = mustdrop::tanh(divide(dot * options.scale, options.softcap)); }
      packed<float, 4>::store(row + j, four);
    }
    for (int e = 0; e < 4; ++e) {
      float const logit = four.at[e] * scale;
      top = j + e < keys && logit > top ? logit : top;
    }
  }
  for (int other = 16; other > 0; other /= 2) {
    float const there = __shfl_xor_sync(all_lanes, top, other);
    top = there > top ? there : top;
  }
  if (lane_of_thread() == 0) { tops[warp_of_thread()] = top; }
  __syncthreads();
  for (float const there : tops) { top = there > top ? there : top; }
  return top;
}

/// A block a row and head: dot products become e^(logit − top), or e^(logit − lse) where that is given; their sum, or 1, is kept.
template <class Tag>
__global__ void __launch_bounds__(exponential_block::threads, 1)
    exponentials_kernel(unsigned rows, attention_pass const pass, tensor_view<float const, 2> const lse) {
  MUSTDROP_SHARED(exponential_block::shared, shared);
  auto const [h, passing] = block_place(rows);
  index_t const t = pass.first + passing, s = pass.segment_of(t), keys = s < 0 ? 0 : pass.limit(s, t);
  if (keys == 0) { return; }
  bool const capped = pass.options.softcap > 0;
  float* const row = pass.dots(h, t);
  float const scale = capped ? pass.options.softcap : pass.options.scale;
  float top = lse.absent() || capped ? highest(pass.options, row, keys, shared.tops) : 0.0f;
  if (!lse.absent()) { top = pass.options.lse_base == log_base::two ? lse(h, t) * 0.693147181f : lse(h, t); }

  float lane = 0;  // of the first warp, which adds one tile while the others are at the next
  for (index_t base = 0; base < keys; base += exponential_block::tile) {
    index_t const end = lesser(base + exponential_block::tile, keys);
    float* const powers = shared.powers[base / exponential_block::tile % 2];
    for (index_t j = base + 4 * threadIdx.x; j < end; j += exponential_block::step) {
      auto four = packed<float, 4>::load(row + j);
      for (int e = 0; e < 4; ++e) { four.at[e] = mustdrop::exp(mustdrop::fma(four.at[e], scale, -top)); }
      packed<float, 4>::store(row + j, four);
      packed<float, 4>::store(powers + (j - base), four);
    }
    if (!lse.absent()) { continue; }
    __syncthreads();
    for (index_t i = lane_of_thread(); warp_of_thread() == 0 && i < end - base; i += 32) { lane += powers[i]; }
  }
  if (warp_of_thread() > 0) { return; }
  float const whole = lanes_total(lane);
  if (threadIdx.x == 0) { pass.total(h, t) = lse.absent() ? whole : 1.0f; }
}

constexpr int attention_threads = 128;

/// Weights as the kernel above leaves them, an exponential and what divides it. They are loaded before they are divided: so many at a time.
struct computed_weights {
  struct loaded {
    float power, total;
  };
  __device__ loaded load(attention_pass const& pass, index_t h, index_t t, index_t j) const {
    return {pass.dots(h, t)[j], pass.total(h, t)};
  }
  static __device__ float weight(loaded x) { return divide(x.power, x.total); }
};
/// Weights of a map.
template <class T>
struct map_weights {
  tensor_view<T const, 3> map;

  __device__ T load(attention_pass const&, index_t h, index_t t, index_t j) const { return map(h, t, j); }
  static __device__ float weight(T x) { return to_float(x); }
};

/// A thread a row and key: Σ_h p, in the order of the heads, and that over all heads.
template <class Tag, class Weights>
__global__ void __launch_bounds__(attention_threads, 1)
    over_heads_kernel(unsigned parts, attention_pass const pass, Weights const weights, index_t heads, index_t heads_total,
                      tensor_view<float, 2> const head_sum) {
  constexpr int at_once = 4;
  auto const [passing, part] = block_place(parts);
  index_t const t = pass.first + passing, s = pass.segment_of(t);
  if (s < 0) { return; }
  index_t const j = pass.written_from(s) + part * attention_threads + threadIdx.x;
  if (j >= pass.written_to(s)) { return; }
  index_t const seen_heads = j < pass.limit(s, t) ? heads : 0;
  float sum = 0;
  index_t h = 0;
  for (; h + at_once <= seen_heads; h += at_once) {
    decltype(weights.load(pass, h, t, j)) some[at_once];
    for (int i = 0; i < at_once; ++i) { some[i] = weights.load(pass, h + i, t, j); }
    for (auto const& one : some) { sum += Weights::weight(one); }
  }
  for (; h < seen_heads; ++h) { sum += Weights::weight(weights.load(pass, h, t, j)); }
  pass.weights(t)[j] = divide(sum, static_cast<float>(heads_total));
  if (!head_sum.absent()) { head_sum(t, j) = sum; }
}

/// A thread a key: adds rows in their order.
template <class Tag>
__global__ void __launch_bounds__(attention_threads, 1)
    add_rows_kernel(unsigned parts, attention_pass const pass, tensor_view<float, 1> const sum, tensor_view<float, 1> const max) {
  auto const [s, part] = block_place(parts);
  index_t const j = pass.written_from(s) + part * attention_threads + threadIdx.x, at = pass.key_segments.begin(s) + j;
  if (j >= pass.written_to(s)) { return; }
  float const decay = pass.first == 0 ? pass.options.decay : 1.0f;
  float whole = __fmul_rn(sum.data[at], decay), most = __fmul_rn(max.data[at], decay);  // a plain product would fuse with the sum
#pragma unroll 4
  for (index_t t = pass.rows_from(s); t < pass.rows_to(s); ++t) {
    bool const seen = j < pass.limit(s, t);
    float const weight = pass.weights(t)[j];
    whole = seen ? whole + weight : whole;
    most = seen && (weight > most || is_nan(weight)) ? weight : most;
  }
  sum.data[at] = whole, max.data[at] = most;
}

}  // namespace cuda
MUSTDROP_NAMESPACE_END
