// SPDX-License-Identifier: Apache-2.0
#include <mustdrop/cuda/kv_evict.cuh>
#include <mustdrop/kv_evict.hpp>

#include "selections.hpp"

namespace recorder {
namespace {

template <class Index>
void one(std::string const& title, batch const& b, md::evict_options options, std::vector<std::int32_t> const& requested = {}) {
  begin(title);
  md::workspace const scratch{memory<char>(), room};
  md::cuda::selection_memory const selection(scratch.data, b.tokens, b.cut.count);
  std::vector<chosen> parts;
  for (std::size_t s = 0; s < b.size.size(); ++s) {
    md::index_t const blocks = md::cuda::parts_of(b.size[s], options.block), budget = requested.empty() ? options.budget : requested[s];
    parts.push_back(choose(b.begin[s], blocks, budget < 0 ? blocks / 3 : budget / options.block));
  }
  know(selection, b.tokens, parts, "keep_blocks_kernel");
  bool const by_score = options.policy == md::evict_policy::output_aware;
  md::tensor_view<float const, 1> scores;
  if (by_score) { scores = md::view<float const>(memory<float>(), b.tokens); }
  check(md::kv_evict(md::cuda::backend<>{}, options, scores, md::view<md::slot_kind const>(memory<md::slot_kind>(), b.tokens), b.cut,
                     counts(requested), lists<Index>(b.cut.count, b.tokens), scratch));
}

}  // namespace

void calls() {
  using policy = md::evict_policy;
  for (int const n : {1, 31, 32, 33, 255, 256, 257, 513}) {
    one<std::int32_t>(std::to_string(n) + " slots, by score, 12 stay", whole(n), {policy::output_aware, 12});
  }
  for (int const n : {32, 33, 257}) { one<std::int32_t>(std::to_string(n) + " slots, survivors", whole(n), {policy::survivors}); }
  one<std::int64_t>("33 slots, key set, 64-bit", whole(33), {policy::key_set_only});
  for (int const n : {8 * 32, 8 * 32 + 1, 8 * 256 - 7, 8 * 256 + 8}) {
    one<std::int32_t>(std::to_string(n) + " slots in blocks of 8, 96 stay", whole(n), {policy::output_aware, 96, 4, 32, 8});
  }
  one<std::int32_t>("segments of 33 0 257 31", ragged({33, 0, 257, 31}), {policy::output_aware, 12});
  one<std::int32_t>("segments of 33 0 257 31 in blocks of 4, own budgets", ragged({33, 0, 257, 31}, 3), {policy::output_aware, 8, 4, 32, 4},
                    {8, 0, 200, 31});
}

}  // namespace recorder
