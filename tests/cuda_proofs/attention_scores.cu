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
  for (int const keys : {31, 32, 33, 63, 64, 65, 129}) {
    one<float, float>("2 heads, a row, " + std::to_string(keys) + " keys, 16 f32", {2, 2, 1, keys, 16});
  }
  one<float, float>("a head, 9 rows, 33 keys, 16 f32", {1, 1, 9, 33, 16});
}

}  // namespace recorder
