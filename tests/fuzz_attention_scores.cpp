// SPDX-License-Identifier: Apache-2.0
#include <mustdrop/reference/attention_scores.hpp>
#include "fuzz_segments.hpp"

namespace {

using fuzz::last_axis;
using fuzz::role;

/// As many segments of rows as there are of keys.
std::vector<md::index_t> row_sizes(fuzz::input& in, std::vector<md::index_t> const& keys) {
  std::vector<md::index_t> rows(keys.size());
  for (md::index_t& size : rows) { size = in.upto(keys.size() > 1 ? 4 : 9); }
  return rows;
}

md::attention_options any_options(fuzz::input& in, md::index_t heads) {
  md::attention_options options;
  options.scale = in.one_in(3) ? in.pick({0.0f, 30.0f, 1e-20f, 1e20f, in.one_in(8) ? inf : -1e20f}) : in.pick({0.125f, 1.0f, -0.5f, 3.0f});
  options.softcap = in.one_in(6) ? in.pick({50.0f, 1.0f, 1e-3f, 1e30f, in.one_in(8) ? -1.0f : 30.0f}) : 0.0f;
  options.lse_base = in.pick({md::log_base::e, md::log_base::two});
  options.heads_total = in.one_in(4) ? heads + in.upto(9) - (in.one_in(16) ? 1 : 0) : 0;
  options.decay = in.pick({1.0f, 1.0f, 0.5f, 0.9f, 0.0f, in.one_in(16) ? quiet_nan : 1.0f});
  return options;
}

/// What the forms share.
struct attention_arguments {
  attention_arguments(fuzz::call& of, fuzz::input& in)
      : key_sizes(fuzz::any_sizes(in, 3, 150)),
        key_segments(of, in, key_sizes),
        row_segments(of, in, row_sizes(in, key_sizes)),
        rows(row_segments.tokens()),
        keys(key_segments.tokens()),
        row_limits(of, in, "row_limits", role::in, last_axis::dense, rows),
        spans(of, in, "spans", role::in, last_axis::dense, key_segments.count()),
        sum(of, in, "sum", role::out, last_axis::dense, keys),
        max(of, in, "max", role::out, last_axis::dense, keys),
        head_sum(of, in, "head_sum", role::out, last_axis::dense, rows, key_segments.bound() + in.upto(3)) {
    md::index_t const longest = key_segments.longest();
    row_limits.fill([&] { return static_cast<std::int32_t>(in.one_in(4) ? in.upto(longest + 3) - 1 : in.length(longest)); });
    for (md::index_t s = 0; s < spans.size(0); ++s) {
      auto const end = static_cast<std::int32_t>(in.upto(key_segments.size(s)));
      spans(s) = {static_cast<std::int32_t>(in.upto(end)), end};
    }
    fuzz::reals before(in);
    bool const zeros = in.one_in(2);
    sum.fill([&] { return zeros ? 0.0f : before.next<float>(); });
    max.fill([&] { return zeros ? 0.0f : before.next<float>(); });
    head_sum.guard();
    if (in.one_in(2)) { row_limits.leave_out(); }
    if (in.one_in(2)) { spans.leave_out(); }
    only_head_sum = in.one_in(4);
    if (only_head_sum) { sum.leave_out(), max.leave_out(); }
    if (!only_head_sum && in.one_in(2)) { head_sum.leave_out(); }
    if (in.one_in(64)) { max.leave_out(); }
  }

  /// Of `row_count` rows and `key_count` keys.
  md::status contents(md::index_t row_count, md::index_t key_count) {
    md::status status = fuzz::first_error(md::check(row_segments.of_tokens(), row_count), md::check(key_segments.of_tokens(), key_count));
    md::index_t const cut = row_segments.of_tokens().count, count = key_segments.of_tokens().count;
    for (md::index_t s = 0; status == md::status::ok && cut == count && !spans.view().absent() && spans.size(0) == count && s < count;
         ++s) {
      if (spans(s).end > key_segments.of_tokens().size(s, key_count)) { status = md::status::bad_argument; }
    }
    return status;
  }

  std::vector<md::index_t> key_sizes;
  fuzz::cut key_segments, row_segments;
  md::index_t rows, keys;
  fuzz::tensor<std::int32_t, 1> row_limits;
  fuzz::tensor<md::key_span, 1> spans;
  fuzz::tensor<float, 1> sum, max;
  fuzz::tensor<float, 2> head_sum;
  bool only_head_sum = false;
};

enum class form : std::uint8_t { softmax, given_lse };

template <class Q, class K>
void fuzz_query_and_keys(fuzz::input& in, form which) {
  fuzz::call call(which == form::softmax ? "attention_scores" : "attention_scores with lse", in);
  attention_arguments common(call, in);
  md::index_t const kv_heads = 1 + in.upto(2), heads = kv_heads * (1 + in.upto(3)) + (in.one_in(64) ? 1 : 0), dim = in.length(80);
  md::attention_options const options = any_options(in, heads);
  fuzz::tensor<Q, 3> query(call, in, "query", role::values, last_axis::dense, heads, common.rows, dim);
  fuzz::tensor<K, 3> keys(call, in, "keys", role::values, last_axis::dense, kv_heads, common.keys, dim);
  fuzz::tensor<float, 2> lse(call, in, "lse", role::values, last_axis::any, heads, common.rows);
  fuzz::reals of_query(in), of_keys(in), of_lse(in);
  query.fill([&] { return of_query.next<Q>(); });
  keys.fill([&] { return of_keys.next<K>(); });
  lse.fill([&] { return of_lse.next<float>() * 8.0f; });
  if (which == form::softmax) { lse.leave_out(); }
  call.run([&] { return common.contents(query.size(1), keys.size(1)); },
           [&](auto const& backend) {
             md::attention_shape const shape{query.size(0), query.size(1), keys.size(1), keys.size(0), keys.size(2)};
             return md::attention_scores_workspace_size(backend, shape, common.row_segments.of_tokens(), common.key_segments.of_tokens());
           },
           [&](auto const& backend, fuzz::side on, md::workspace scratch) {
             return md::attention_scores(backend, options, query.view(), keys.view(), common.row_segments.of_tokens(),
                                         common.key_segments.of_tokens(), common.row_limits.view(), lse.view(), common.spans.view(),
                                         common.sum.view(on), common.max.view(on), common.head_sum.view(on), scratch);
           });
}

template <class T>
void fuzz_map(fuzz::input& in) {
  fuzz::call call("attention_scores of a map", in);
  attention_arguments common(call, in);
  md::index_t const heads = 1 + in.upto(9) - (in.one_in(64) ? 1 : 0);
  md::attention_options const options = any_options(in, heads);
  // Without sum and max only the map says how many keys there are.
  md::index_t const columns = common.only_head_sum || common.keys == 0 ? common.keys : common.key_segments.bound() + in.upto(3);
  fuzz::tensor<T, 3> map(call, in, "map", role::values, last_axis::any, heads, common.rows, columns);
  fuzz::reals weights(in);
  map.fill([&] { return weights.next<T>(); });
  md::attention_shape const shape{heads, common.rows, common.keys, 0, 0};
  call.run([&] { return common.contents(map.size(1), common.sum.view().absent() ? map.size(2) : common.sum.size(0)); },
           [&](auto const& backend) {
             return md::attention_scores_workspace_size(backend, shape, common.row_segments.of_tokens(), common.key_segments.of_tokens());
           },
           [&](auto const& backend, fuzz::side on, md::workspace scratch) {
             return md::attention_scores(backend, options, map.view(), common.row_segments.of_tokens(), common.key_segments.of_tokens(),
                                         common.row_limits.view(), common.spans.view(), common.sum.view(on), common.max.view(on),
                                         common.head_sum.view(on), scratch);
           });
}

}  // namespace

void fuzz::run(input& in) {
  form const which = in.pick({form::softmax, form::given_lse});
  switch (in.upto(7)) {
    case 0: return fuzz_query_and_keys<float, float>(in, which);
    case 1: return fuzz_query_and_keys<md::half, md::half>(in, which);
    case 2: return fuzz_query_and_keys<md::bfloat16, md::bfloat16>(in, which);
    case 3: return fuzz_query_and_keys<float, md::half>(in, which);
    case 4: return fuzz_query_and_keys<md::bfloat16, float>(in, which);
    case 5: return fuzz_map<float>(in);
    case 6: return fuzz_map<md::half>(in);
    default: return fuzz_map<md::bfloat16>(in);
  }
}
