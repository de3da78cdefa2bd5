// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include <mustdrop/cuda/positions.cuh>
#include <mustdrop/positions.hpp>

#include "recorder.hpp"

namespace recorder {
namespace {

template <class P, class Index>
void one(std::string const& title, batch const& b, std::vector<std::int32_t> const& stay, md::position_policy policy, int axes,
         std::vector<std::int32_t> const& out_offsets = {}) {
  begin(title);
  md::tensor_view<P, 1> delta = md::view(memory<P>(), b.cut.count);
  auto const capacity = static_cast<md::index_t>(*std::max_element(stay.begin(), stay.end()));
  check(md::positions(md::cuda::backend<>{}, policy, md::view<P const>(memory<P>(), axes, b.tokens), b.cut, kept<Index>(stay, capacity),
                      md::view(memory<P>(), axes, b.tokens), delta, counts(out_offsets)));
}

}  // namespace

void calls() {
  using policy = md::position_policy;
  for (int const n : {0, 1, 31, 32, 33, 255, 256, 257, 513}) {
    one<std::int32_t, std::int32_t>(std::to_string(n) + " of 600 stay, kept", whole(600), {n}, policy::kept, 1);
    one<std::int32_t, std::int32_t>(std::to_string(n) + " of 600 stay, renumbered", whole(600), {n}, policy::renumbered, 1);
  }
  for (auto const p : {policy::kept, policy::renumbered, policy::closed}) {
    one<std::int64_t, std::int64_t>("33 of 65 stay, 3 axes, 64-bit, policy " + std::to_string(static_cast<int>(p)), whole(65), {33}, p, 3);
  }
  one<std::int32_t, std::int32_t>("segments of 33 0 257 31", ragged({33, 0, 257, 31}, 3), {12, 0, 65, 31}, policy::renumbered, 3);
  one<std::int32_t, std::int32_t>("segments of 33 0 257 31, packed", ragged({33, 0, 257, 31}), {12, 0, 65, 31}, policy::closed, 1,
                                  {0, 12, 12, 77, 108});
}

}  // namespace recorder
