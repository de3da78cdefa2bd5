// SPDX-License-Identifier: Apache-2.0
#include "tensor.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include <mustdrop/numerics.hpp>

namespace llava {

namespace {

using strided = Eigen::Map<matrix const, Eigen::Unaligned, Eigen::OuterStride<>>;
using strided_out = Eigen::Map<matrix, Eigen::Unaligned, Eigen::OuterStride<>>;

/// Elements of any alignment, as a file has them.
template <class T>
void widen_elements(void const* data, long begin, long count, float* out) {
  auto const* from = static_cast<unsigned char const*>(data) + begin * static_cast<long>(sizeof(T));
  for (long i = 0; i < count; ++i) {
    T element;
    std::memcpy(&element, from + i * static_cast<long>(sizeof(T)), sizeof(T));
    out[i] = md::widen(element);
  }
}

bool usable_in_place(weight const& w) {
  return w.type == weight_type::f32 && reinterpret_cast<std::uintptr_t>(w.data) % alignof(float) == 0;
}

/// One head's rows [begin, begin + count) as a matrix.
strided rows_of(md::tensor_view<float const, 3> const& x, long head, long begin, long count) {
  return {x.data + head * x.strides[0] + begin * x.strides[1], count, x.sizes[2], Eigen::OuterStride<>(x.strides[1])};
}

constexpr long row_block = 64, key_block = 256;

/// Rows [begin, begin + count) of one head: softmax over blocks of keys with a running maximum and sum.
void attend_block(attention_inputs const& in, long head, long begin, long count, matrix& out) {
  long const keys = in.k.size(1), dim = in.q.size(2), kv_head = head / (in.q.size(0) / in.k.size(0)), hidden = keys - in.q.size(1);
  strided const q = rows_of(in.q, head, begin, count);
  matrix scores, values = matrix::Zero(count, dim);
  Eigen::VectorXf top = Eigen::VectorXf::Constant(count, -std::numeric_limits<float>::infinity()), sum = Eigen::VectorXf::Zero(count);
  long const seen = in.causal ? hidden + begin + count : keys;  // by the last of these rows
  for (long first = 0; first < seen; first += key_block) {
    long const n = std::min(key_block, seen - first);
    scores.noalias() = q * rows_of(in.k, kv_head, first, n).transpose();
    scores *= in.scale;
    for (long r = 0; in.causal && r < count; ++r) {
      for (long j = std::max(0L, hidden + begin + r + 1 - first); j < n; ++j) { scores(r, j) = -std::numeric_limits<float>::infinity(); }
    }
    for (long r = 0; r < count; ++r) {
      float const higher = std::max(top(r), scores.row(r).maxCoeff()), shrink = std::exp(top(r) - higher);
      scores.row(r) = (scores.row(r).array() - higher).exp();
      values.row(r) *= shrink;
      sum(r) = sum(r) * shrink + scores.row(r).sum();
      top(r) = higher;
    }
    values.noalias() += scores * rows_of(in.v, kv_head, first, n);
  }
  for (long r = 0; r < count; ++r) { out.row(begin + r).segment(head * dim, dim) = values.row(r) / sum(r); }
}

}  // namespace

void widen_rows(weight const& w, long begin, long count, float* out) {
  switch (w.type) {
    case weight_type::f32: return widen_elements<float>(w.data, begin * w.cols, count * w.cols, out);
    case weight_type::f16: return widen_elements<md::half>(w.data, begin * w.cols, count * w.cols, out);
    case weight_type::bf16: return widen_elements<md::bfloat16>(w.data, begin * w.cols, count * w.cols, out);
  }
}

Eigen::RowVectorXf widened(weight const& w) {
  Eigen::RowVectorXf row(w.rows * w.cols);
  widen_rows(w, 0, w.rows, row.data());
  return row;
}

void linear(computer& on, matrix const& x, weight const& w, weight const& bias, matrix& y) {
  constexpr long block = 64;  // rows of w: a block of the widest layers fits a second-level cache
  y.resize(x.rows(), w.rows);
  Eigen::RowVectorXf const shift = bias.absent() ? Eigen::RowVectorXf::Zero(w.rows) : widened(bias);
  on.threads.run((w.rows + block - 1) / block, [&](long b) {
    long const first = b * block, count = std::min(block, w.rows - first);
    matrix copy;
    float const* rows = static_cast<float const*>(w.data) + first * w.cols;
    if (!usable_in_place(w)) {
      copy.resize(count, w.cols);
      widen_rows(w, first, count, copy.data());
      rows = copy.data();
    }
    strided const part(rows, count, w.cols, Eigen::OuterStride<>(w.cols));
    strided_out to(y.data() + first, y.rows(), count, Eigen::OuterStride<>(y.cols()));
    to.noalias() = x * part.transpose();
    to.rowwise() += shift.segment(first, count);
  });
  on.flops += 2.0 * static_cast<double>(x.rows()) * static_cast<double>(w.rows) * static_cast<double>(w.cols);
}

void layer_norm(matrix const& x, weight const& w, weight const& bias, float eps, matrix& y) {
  Eigen::RowVectorXf const scale = widened(w), shift = widened(bias);
  y.resize(x.rows(), x.cols());
  for (long r = 0; r < x.rows(); ++r) {
    auto const centred = x.row(r).array() - x.row(r).mean();
    float const variance = centred.square().mean();
    y.row(r) = (centred / std::sqrt(variance + eps)) * scale.array() + shift.array();
  }
}

void rms_norm(matrix const& x, weight const& w, float eps, matrix& y) {
  Eigen::RowVectorXf const scale = widened(w);
  y.resize(x.rows(), x.cols());
  for (long r = 0; r < x.rows(); ++r) { y.row(r) = x.row(r).array() / std::sqrt(x.row(r).array().square().mean() + eps) * scale.array(); }
}

void activate(activation act, matrix& x) {
  switch (act) {
    case activation::quick_gelu: x.array() /= 1 + (-1.702f * x.array()).exp(); return;
    case activation::silu: x.array() /= 1 + (-x.array()).exp(); return;
    case activation::gelu: x = x.unaryExpr([](float v) { return 0.5f * v * (1 + std::erf(v * 0.70710678f)); }); return;
  }
}

void attend(computer& on, attention_inputs const& in, matrix& out) {
  long const heads = in.q.size(0), rows = in.q.size(1), keys = in.k.size(1), dim = in.q.size(2);
  long const blocks = (rows + row_block - 1) / row_block;
  out.resize(rows, heads * dim);
  on.threads.run(heads * blocks, [&](long task) {
    long const begin = task % blocks * row_block;
    attend_block(in, task / blocks, begin, std::min(row_block, rows - begin), out);
  });
  auto const hidden = static_cast<double>(keys - rows), n = static_cast<double>(rows);
  double const pairs = in.causal ? n * hidden + n * (n + 1) / 2 : n * static_cast<double>(keys);  // that the softmax needs
  on.flops += 4 * pairs * static_cast<double>(heads * dim);
}

}  // namespace llava
