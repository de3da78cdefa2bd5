// SPDX-License-Identifier: Apache-2.0
#include <mustdrop/attention_scores.hpp>
#include <mustdrop/cuda/attention_scores.cuh>

#include "recorder.hpp"

namespace recorder {
namespace {

struct shape {
  int heads, kv_heads, rows, keys, dim;
};

struct extras {
  float softcap = 0;
  bool lse = false, head_sum = false;
  std::vector<std::int32_t> limits = {}, row_offsets = {}, key_offsets = {};
  std::vector<md::key_span> spans = {};
};

md::segments cut(std::vector<std::int32_t> const& offsets) {
  md::segments segments;
  if (!offsets.empty()) { segments.count = static_cast<md::index_t>(offsets.size()) - 1, segments.offsets = memory(offsets); }
  return segments;
}
md::tensor_view<md::key_span const, 1> known(std::vector<md::key_span> const& spans) {
  if (spans.empty()) { return {}; }
  return md::view<md::key_span const>(memory(spans), spans.size());
}

template <class Q, class K>
void one(std::string const& title, shape s, extras const& with = {}) {
  begin(title);
  md::attention_options options;
  options.softcap = with.softcap;
  md::tensor_view<float const, 2> lse;
  md::tensor_view<float, 2> head_sum;
  if (with.lse) { lse = md::view<float const>(memory<float>(), s.heads, s.rows); }
  if (with.head_sum) { head_sum = md::view(memory<float>(), s.rows, s.keys); }
  check(md::attention_scores(md::cuda::backend<>{}, options, md::view<Q const>(memory<Q>(), s.heads, s.rows, s.dim),
                             md::view<K const>(memory<K>(), s.kv_heads, s.keys, s.dim), cut(with.row_offsets), cut(with.key_offsets),
                             counts(with.limits), lse, known(with.spans), md::view(memory<float>(), s.keys),
                             md::view(memory<float>(), s.keys), head_sum, {memory<char>(), room}));
}

template <class T>
void of_map(std::string const& title, shape s, extras const& with = {}) {
  begin(title);
  md::tensor_view<float, 2> head_sum;
  if (with.head_sum) { head_sum = md::view(memory<float>(), s.rows, s.keys); }
  check(md::attention_scores(md::cuda::backend<>{}, {}, md::view<T const>(memory<T>(), s.heads, s.rows, s.keys), cut(with.row_offsets),
                             cut(with.key_offsets), counts(with.limits), known(with.spans), md::view(memory<float>(), s.keys),
                             md::view(memory<float>(), s.keys), head_sum, {memory<char>(), room}));
}

}  // namespace

void calls() {
  for (int const keys : {31, 32, 33, 127, 128, 129, 257}) {  // tiles of 8 rows × 128 keys
    one<float, float>("2 heads, a row, " + std::to_string(keys) + " keys, 16 f32", {2, 2, 1, keys, 16});
  }
  for (int const rows : {7, 8}) { one<float, float>("a head, " + std::to_string(rows) + " rows, 33 keys, 16 f32", {1, 1, rows, 33, 16}); }
  for (int const dim : {1, 31, 32, 33, 40, 64, 68}) {  // 32 features at a time
    one<float, float>("2 heads, a row, 33 keys, " + std::to_string(dim) + " f32", {2, 1, 1, 33, dim});
  }
  for (int const rows : {9, 31, 32, 33, 65}) {  // tiles of 32 rows × 64 keys
    one<float, float>("a head, " + std::to_string(rows) + " rows, 33 keys, 8 f32", {1, 1, rows, 33, 8});
  }
  for (int const keys : {63, 64, 65}) { one<float, float>("a head, 9 rows, " + std::to_string(keys) + " keys, 8 f32", {1, 1, 9, keys, 8}); }
  one<float, float>("a head, 9 rows, 33 keys, 40 f32", {1, 1, 9, 33, 40});
  for (int const keys : {1024, 2047, 2048, 2049, 4097}) {  // tiles of 2048 exponentials, in one of two buffers
    one<float, float>("a head, a row, " + std::to_string(keys) + " keys, 4 f32", {1, 1, 1, keys, 4});
  }
  one<md::half, md::half>("4 heads of 2, 2 rows, 33 keys, 64 f16", {4, 2, 2, 33, 64});
  one<md::half, md::half>("2 heads of 1, 9 rows, 33 keys, 8 f16", {2, 1, 9, 33, 8});
  one<md::half, md::half>("2 heads, a row, 33 keys, 33 f16", {2, 2, 1, 33, 33});
  one<md::bfloat16, md::bfloat16>("2 heads, a row, 33 keys, 64 bf16", {2, 2, 1, 33, 64});
  one<md::bfloat16, md::bfloat16>("2 heads, a row, 33 keys, 33 bf16", {2, 2, 1, 33, 33});
  one<md::bfloat16, md::bfloat16>("a head, 9 rows, 33 keys, 8 bf16", {1, 1, 9, 33, 8});
  one<md::bfloat16, md::bfloat16>("a head, 9 rows, 33 keys, 9 bf16", {1, 1, 9, 33, 9});
  one<md::half, md::half>("a head, 9 rows, 33 keys, 9 f16", {1, 1, 9, 33, 9});
  one<float, float>("a head, 9 rows, 33 keys, 9 f32", {1, 1, 9, 33, 9});

  extras with;
  with.softcap = 30, with.head_sum = true, with.limits = {33, 0, 10};
  one<float, float>("2 heads, 3 rows of which one sees nothing, softcap, 33 keys, 8 f32", {2, 2, 3, 33, 8}, with);
  extras lse;
  lse.lse = true;
  one<float, float>("3 heads, 3 rows, log-sum-exp given, 33 keys, 8 f32", {3, 3, 3, 33, 8}, lse);
  extras ragged;
  ragged.row_offsets = {0, 1, 1, 3}, ragged.key_offsets = {0, 33, 40, 73}, ragged.spans = {{0, 33}, {2, 5}, {30, 33}};
  one<float, float>("segments of 1 0 2 rows and 33 7 33 keys, spans, 8 f32", {2, 2, 3, 73, 8}, ragged);

  for (int const keys : {1, 127, 128, 129, 255, 256, 257}) {  // 128 a block
    of_map<float>("a map of 2 heads, 3 rows, " + std::to_string(keys) + " keys, f32", {2, 2, 3, keys, 0});
  }
  for (int const heads : {4, 5}) {  // four at a time
    of_map<float>("a map of " + std::to_string(heads) + " heads, 5 rows, 33 keys, f32", {heads, heads, 5, 33, 0});
  }
  of_map<float>("a map of 2 heads, segments of 1 0 2 rows and 33 7 33 keys, spans, f32", {2, 2, 3, 73, 0}, ragged);
  extras limited;
  limited.head_sum = true, limited.limits = {33, 0, 10};
  of_map<md::half>("a map of 2 heads, 3 rows, 33 keys, limits, f16", {2, 2, 3, 33, 0}, limited);
  of_map<md::bfloat16>("a map of 2 heads, 3 rows, 33 keys, limits, bf16", {2, 2, 3, 33, 0}, limited);
}

}  // namespace recorder
