// SPDX-License-Identifier: Apache-2.0
// attention_scores, 32 heads of 128, LLaVA's prompt: the 40 rows of the text behind the image; the same with a log-sum-exp; every row of the
// prompt (H2O's sums in the prefill); one new row against a cache of 4096 (H2O's, SnapKV's and TOVA's in the decode).

#include "measure.hpp"

template <class T>
struct attention_step : step {
  static constexpr roof limit = roof::fma;
  static constexpr index_t heads = 32, dim = 128;
  index_t const batch, rows, keys;  // rows and keys of one request
  md::segments const row_cut, key_cut;
  array<T> const query = input<T>(heads * batch * rows * dim), cached = input<T>(heads * batch * keys * dim);
  array<std::int32_t> const limits;
  array<float> const lse;
  array<float> const sum = input<float>(batch * keys, true), max = input<float>(batch * keys, true);

  attention_step(index_t b, index_t r, index_t k)
      : batch(b),
        rows(r),
        keys(k),
        row_cut(even(b, r)),
        key_cut(even(b, k)),
        limits(input<std::int32_t>(b * r,
                                   [=](std::int32_t* data, std::mt19937&) {
                                     for (index_t t = 0; t < b * r; ++t) { data[t] = static_cast<std::int32_t>(k - r + t % r + 1); }
                                   })),
        lse(input<float>(heads * b * r, [=](float* data, std::mt19937&) { std::fill_n(data, heads * b * r, 9.0f); })) {
    auto const pairs = static_cast<double>(heads * batch) * static_cast<double>(rows * keys - rows * (rows - 1) / 2);  // causal
    flops = 2 * pairs * dim, bytes = static_cast<double>(heads * batch * (keys + rows) * dim) * sizeof(T);
  }
  template <class Backend>
  md::status run_with(Backend const& on, md::tensor_view<float const, 2> given_lse) {
    index_t const all_rows = batch * rows, all_keys = batch * keys;
    std::size_t const needed = md::attention_scores_workspace_size(on, {heads, all_rows, all_keys, heads, dim}, row_cut, key_cut);
    return md::attention_scores(on, {0.0884f}, view(query, heads, all_rows, dim), view(cached, heads, all_keys, dim), row_cut, key_cut,
                                view(limits, all_rows), given_lse, {}, view(sum, all_keys), view(max, all_keys), {}, lend(needed));
  }
  template <class Backend>
  md::status run(Backend const& on) {
    return run_with(on, {});
  }
};

template <class T>
struct text_rows : attention_step<T> {
  explicit text_rows(shape const& s) : attention_step<T>(s.batch, 40, s.prompt()) {}
};

template <class T>
struct text_rows_with_lse : text_rows<T> {
  using text_rows<T>::text_rows;
  template <class Backend>
  md::status run(Backend const& on) {
    return this->run_with(on, this->view(this->lse, this->heads, this->batch * this->rows));
  }
};

template <class T>
struct all_rows : attention_step<T> {
  explicit all_rows(shape const& s) : attention_step<T>(s.batch, s.prompt(), s.prompt()) {}
};

/// Each key is used once: what limits it is reading them.
template <class T>
struct one_row : attention_step<T> {
  static constexpr roof limit = roof::read;
  explicit one_row(shape const& s) : attention_step<T>(s.batch, 1, 4096) {}
};

int main(int argc, char** argv) {
  add_of_every_type<text_rows>("attention_scores");
  add<text_rows_with_lse, float>("attention_scores(lse)");
  for (bool const cold : {false, true}) {
    for (index_t const batch : {1, 8}) {
      add_one<one_row<float>>("attention_scores(decode)", "f32", {batch, 4096, cold});
      add_one<one_row<md::half>>("attention_scores(decode)", "f16", {batch, 4096, cold});
      add_one<one_row<md::bfloat16>>("attention_scores(decode)", "bf16", {batch, 4096, cold});
    }
  }
  add_one<all_rows<float>>("attention_scores(prefill)", "f32", {1, 576, false});
  return run_all(argc, argv);
}
