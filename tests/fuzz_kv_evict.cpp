// SPDX-License-Identifier: Apache-2.0
#include <mustdrop/reference/kv_evict.hpp>
#include "fuzz_segments.hpp"

namespace {

template <class Index>
void fuzz_kv_evict(fuzz::input& in) {
  fuzz::call call("kv_evict", in);
  fuzz::cut const segments(call, in, fuzz::any_sizes(in, 4, 150));
  md::index_t const slots = segments.tokens();
  md::evict_options options;
  options.policy = in.pick({md::evict_policy::output_aware, md::evict_policy::survivors, md::evict_policy::key_set_only});
  options.budget = in.one_in(8) ? md::index_t{-1} - in.one_in(8) : in.upto(segments.longest() + 3);
  options.sinks = in.upto(9) - in.one_in(32), options.recent = in.upto(40) - in.one_in(32);
  options.block = in.pick<md::index_t>({1, 1, 2, 8, 16, 1 + in.upto(200)}) - in.one_in(32);
  fuzz::tensor<float, 1> scores(call, in, "scores", fuzz::role::in, fuzz::last_axis::dense, slots);
  fuzz::tensor<md::slot_kind, 1> kind(call, in, "kind", fuzz::role::in, fuzz::last_axis::dense, slots);
  fuzz::tensor<std::int32_t, 1> requested(call, in, "requested", fuzz::role::in, fuzz::last_axis::dense, segments.count());
  fuzz::lists<Index> keep(call, in, "keep", fuzz::role::out, segments, segments.bound() + in.upto(3) - in.one_in(16));
  fuzz::reals numbers(in);
  scores.fill([&] { return numbers.next<float>(); });
  md::index_t const kinds = in.upto(7);  // all visual, or mixed
  kind.fill([&] { return kinds < 2 || !in.one_in(kinds) ? md::slot_kind::visual : static_cast<md::slot_kind>(in.upto(3)); });
  if (in.one_in(8)) { scores.leave_out(); }
  fuzz::fill_requested(requested, in, segments.longest() + 2);
  call.run([&] { return md::check(segments.of_tokens(), kind.size(0)); },
           [&](auto const& backend) { return md::kv_evict_workspace_size(backend, slots, segments.of_tokens()); },
           [&](auto const& backend, fuzz::side on, md::workspace scratch) {
             return md::kv_evict(backend, options, scores.view(), kind.view(), segments.of_tokens(), requested.view(), keep.view(on),
                                 scratch);
           });
}

}  // namespace

void fuzz::run(input& in) { in.one_in(2) ? fuzz_kv_evict<std::int64_t>(in) : fuzz_kv_evict<std::int32_t>(in); }
