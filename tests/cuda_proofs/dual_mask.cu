// SPDX-License-Identifier: Apache-2.0
#include <mustdrop/cuda/dual_mask.cuh>
#include <mustdrop/dual_mask.hpp>

#include "selections.hpp"

namespace recorder {
namespace {

/// Every third token is protected, as far as there are `shielded` of them; shielded < 0: no list.
template <class Index>
void one(std::string const& title, batch const& b, md::index_t count, int shielded, std::vector<std::int32_t> const& requested = {}) {
  begin(title);
  md::workspace const scratch{memory<char>(), room};
  md::cuda::selection_memory const selection(scratch.data, b.tokens, b.cut.count);
  know(selection, b.tokens, choose(b, count < 0 ? b.tokens / 3 : count, requested), "keep_kernel");
  md::keep_lists<Index const> always;
  if (shielded >= 0) {
    std::vector<std::int32_t> many;
    for (std::int32_t const size : b.size) { many.push_back(std::min(shielded, size / 3)); }
    always = kept<Index>(many, std::max(shielded, 1), [](md::index_t, md::index_t i) { return 3 * i; });
  }
  auto const numbers = [&] { return md::view<float const>(memory<float>(), b.tokens); };
  md::dual_mask_options options;
  options.count = count;
  check(md::dual_mask<md::cuda::backend<>, Index>({}, options, numbers(), numbers(), b.cut, always, counts(requested),
                                                  lists<Index>(b.cut.count, b.tokens), scratch));
}

}  // namespace

void calls() {
  for (int const n : {1, 31, 32, 33, 64, 65, 255, 256, 257, 513}) {
    one<std::int32_t>(std::to_string(n) + " tokens, by threshold", whole(n), -1, n / 4);
  }
  one<std::int32_t>("33 tokens, by threshold, none protected", whole(33), -1, -1);
  for (int const n : {33, 257}) { one<std::int32_t>(std::to_string(n) + " tokens, 20 stay, none protected", whole(n), 20, -1); }
  one<std::int64_t>("257 tokens, 20 stay, 32 protected, 64-bit", whole(257), 20, 32);
  one<std::int32_t>("900 tokens, 257 protected", whole(900), -1, 257);
  one<std::int32_t>("segments of 33 0 257 31", ragged({33, 0, 257, 31}), -1, 5);
  one<std::int32_t>("segments of 33 0 257 31, room behind, own counts", ragged({33, 0, 257, 31}, 3), -1, 5, {8, 0, 200, 31});
}

}  // namespace recorder
