// SPDX-License-Identifier: Apache-2.0
#pragma once

// What both towers are made of: products with mapped weights, norms, activations, attention without a map. Activations are f32, row-major,
// one row a token.

#include <Eigen/Core>
#include <chrono>
#include <cstdint>
#include <vector>

#include <mustdrop/cpu/backend.hpp>
#include <mustdrop/view.hpp>

#include <executors/thread_pool.hpp>

#include "checkpoint.hpp"

namespace llava {

namespace md = mustdrop;
using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// Adds the time of a scope to a number of milliseconds.
class stopwatch {
 public:
  explicit stopwatch(double& milliseconds) : total_(milliseconds) {}
  ~stopwatch() { total_ += std::chrono::duration<double, std::milli>(clock::now() - begin_).count(); }
  stopwatch(stopwatch const&) = delete;
  stopwatch& operator=(stopwatch const&) = delete;

 private:
  using clock = std::chrono::steady_clock;
  double& total_;
  clock::time_point begin_ = clock::now();
};

/// Who computes, and what it came to.
struct computer {
  executors::thread_pool threads;                                              // the library's words run on them too
  md::cpu::backend<xsimd::default_arch, executors::pooled> words{{&threads}};  // the one place to choose another backend
  double flops = 0;         // multiplications and additions of products, counted from the shapes that were really run
  double reduction_ms = 0;  // scores, plans and moves of reduced tokens: all that a run without reduction does not do

  explicit computer(int count) : threads(count) {}
};

/// Rows [begin, begin + count) of a weight as floats: out [count, cols].
void widen_rows(weight const& w, long begin, long count, float* out);
/// A vector of weights as floats.
Eigen::RowVectorXf widened(weight const& w);

/// y [n, out] = x [n, in] · wᵀ (+ bias), w [out, in] in its file's type, widened a block of rows at a time.
void linear(computer& on, matrix const& x, weight const& w, weight const& bias, matrix& y);

/// y = (x − mean) / sqrt(variance + eps) · weight + bias, row by row.
void layer_norm(matrix const& x, weight const& w, weight const& bias, float eps, matrix& y);
/// y = x / sqrt(mean(x²) + eps) · weight, row by row.
void rms_norm(matrix const& x, weight const& w, float eps, matrix& y);

void activate(activation act, matrix& x);

/// out [rows, heads·dim] = softmax(scale · q kᵀ) v for each head, head h with keys of head h / (heads / kv_heads); a causal row i sees keys
/// [0, keys − rows + i]. In blocks with a running maximum: scratch is rows × keys of one block, never of the sequence.
struct attention_inputs {
  md::tensor_view<float const, 3> q, k, v;  // [heads, rows, dim], [kv_heads, keys, dim] twice
  float scale = 1;
  bool causal = false;
};
void attend(computer& on, attention_inputs const& in, matrix& out);

/// A matrix [rows, heads·dim] as [heads, rows, dim].
inline md::tensor_view<float const, 3> by_head(matrix const& x, md::index_t heads) {
  md::index_t const dim = x.cols() / heads;
  return {x.data(), {heads, x.rows(), dim}, {dim, x.cols(), 1}};
}

}  // namespace llava
