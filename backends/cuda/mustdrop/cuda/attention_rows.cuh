// SPDX-License-Identifier: Apache-2.0
#pragma once

// attention_scores after its dot products: from those to exponentials, a warp a row and head; from weights to their sum over heads, a
// thread a row and key; and to the sums over rows, a thread a key.

#include <mustdrop/attention_scores.hpp>
#include <mustdrop/cuda/numerics.cuh>

MUSTDROP_NAMESPACE_BEGIN
namespace cuda {

/// How a call is cut: so many rows pass at a time, and one row of one head takes `stride` floats of scratch. Pieces of it in floats.
struct attention_plan {
  index_t heads, rows, stride;  // heads: 0 for a map

  static constexpr attention_plan of(attention_shape shape, segments const& key_segments) noexcept {
    constexpr index_t most_floats = index_t{1} << 22;
    attention_plan plan{shape.kv_heads > 0 ? shape.heads : 0, 1, key_segments.bound(shape.keys)};
    index_t const at_once = plan.row_size() > 0 ? most_floats / plan.row_size() : shape.rows;
    plan.rows = at_once < 1 ? 1 : lesser(at_once, shape.rows);
    return plan;
  }
  constexpr index_t row_size() const noexcept { return heads * stride + heads + stride; }
  constexpr std::size_t bytes() const noexcept { return static_cast<std::size_t>(rows * row_size()) * sizeof(float); }
};

/// The inputs and outputs that rows and keys share, and the rows [first, last) that pass now.
struct attention_pass {
  attention_options options;
  attention_plan plan;
  segments row_segments, key_segments;
  tensor_view<std::int32_t const, 1> row_limits;
  tensor_view<key_span const, 1> spans;
  index_t all_rows, all_keys, first, last;
  float* scratch;

  /// Dot products, then exponentials, of row t and head h: one for each key.
  __device__ float* logits(index_t h, index_t t) const { return scratch + (h * plan.rows + t - first) * plan.stride; }
  /// What divides them.
  __device__ float& total(index_t h, index_t t) const { return scratch[plan.heads * plan.rows * plan.stride + h * plan.rows + t - first]; }
  __device__ float* over_heads(index_t t) const { return scratch + plan.heads * plan.rows * (plan.stride + 1) + (t - first) * plan.stride; }

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

constexpr int attention_threads = 256;

/// A warp a row and head: dot products become e^(logit − top), or e^(logit − lse) where that is given; their sum, or 1, is kept.
template <class Tag>
__global__ void __launch_bounds__(attention_threads, 1)
    exponentials_kernel(unsigned, attention_pass const pass, tensor_view<float const, 2> const lse) {
  index_t const warp = index_t{blockIdx.x} * (attention_threads / 32) + warp_of_thread(), rows = pass.last - pass.first;
  index_t const h = warp / rows, t = pass.first + warp % rows;
  if (h >= pass.plan.heads) { return; }
  index_t const s = pass.segment_of(t), limit = s < 0 ? 0 : pass.limit(s, t);
  float* const row = pass.logits(h, t);
  float const softcap = pass.options.softcap, scale = softcap > 0 ? softcap : pass.options.scale;
  float top = float_from_bits(0xff800000u);
  for (index_t j = lane_of_thread(); j < limit; j += 32) {
    float const dot = row[j], factor = softcap > 0 ? mustdrop::tanh(divide(dot * pass.options.scale, softcap)) : dot,
                logit = factor * scale;
    row[j] = factor;
    top = logit > top ? logit : top;
  }
  for (int other = 16; other > 0; other /= 2) {
    float const there = __shfl_xor_sync(all_lanes, top, other);
    top = there > top ? there : top;
  }
  if (!lse.absent()) { top = pass.options.lse_base == log_base::two ? lse(h, t) * 0.693147181f : lse(h, t); }
  float lane = 0;
  for (index_t j = lane_of_thread(); j < limit; j += 32) {
    float const power = mustdrop::exp(mustdrop::fma(row[j], scale, -top));
    row[j] = power, lane += power;
  }
  float const whole = lanes_total(lane);
  if (lane_of_thread() == 0) { pass.total(h, t) = lse.absent() ? whole : 1.0f; }
}

/// Weights as the kernel above leaves them.
struct computed_weights {
  __device__ float operator()(attention_pass const& pass, index_t h, index_t t, index_t j) const {
    return divide(pass.logits(h, t)[j], pass.total(h, t));
  }
};
/// Weights of a map.
template <class T>
struct map_weights {
  tensor_view<T const, 3> map;

  __device__ float operator()(attention_pass const&, index_t h, index_t t, index_t j) const { return to_float(map(h, t, j)); }
};

/// A thread a row and key: Σ_h p, in the order of the heads.
template <class Tag, class Weights>
__global__ void __launch_bounds__(attention_threads, 1) over_heads_kernel(unsigned parts, attention_pass const pass, Weights const weights,
                                                                          index_t heads, tensor_view<float, 2> const head_sum) {
  auto const [row, part] = block_place(parts);
  index_t const t = pass.first + row, s = pass.segment_of(t);
  if (s < 0) { return; }
  index_t const j = pass.written_from(s) + part * attention_threads + threadIdx.x;
  if (j >= pass.written_to(s)) { return; }
  index_t const seen_heads = j < pass.limit(s, t) ? heads : 0;
  float sum = 0;
  for (index_t h = 0; h < seen_heads; ++h) { sum += weights(pass, h, t, j); }
  pass.over_heads(t)[j] = sum;
  if (!head_sum.absent()) { head_sum(t, j) = sum; }
}

/// A thread a key: adds rows in their order.
template <class Tag>
__global__ void __launch_bounds__(attention_threads, 1) add_rows_kernel(unsigned parts, attention_pass const pass, float heads_total,
                                                                        tensor_view<float, 1> const sum, tensor_view<float, 1> const max) {
  auto const [s, part] = block_place(parts);
  index_t const j = pass.written_from(s) + part * attention_threads + threadIdx.x, at = pass.key_segments.begin(s) + j;
  if (j >= pass.written_to(s)) { return; }
  float const decay = pass.first == 0 ? pass.options.decay : 1.0f;
  float whole = __fmul_rn(sum.data[at], decay), most = __fmul_rn(max.data[at], decay);  // a plain product would fuse with the sum
  for (index_t t = pass.rows_from(s); t < pass.rows_to(s); ++t) {
    bool const seen = j < pass.limit(s, t);
    float const weight = divide(pass.over_heads(t)[j], heads_total);
    whole = seen ? whole + weight : whole;
    most = seen && (weight > most || is_nan(weight)) ? weight : most;
  }
  sum.data[at] = whole, max.data[at] = most;
}

}  // namespace cuda
MUSTDROP_NAMESPACE_END
