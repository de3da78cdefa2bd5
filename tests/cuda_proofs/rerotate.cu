// SPDX-License-Identifier: Apache-2.0
#include <mustdrop/cuda/rerotate.cuh>
#include <mustdrop/rerotate.hpp>

#include "recorder.hpp"

namespace recorder {
namespace {

/// Slots of even number are moved, by how much is not known.
template <class T, class P>
void one(std::string const& title, batch const& b, int heads, int frequencies, md::rope_pairs pairs, int axes = 1) {
  begin(title);
  std::vector<P> old, updated;
  for (int axis = 0; axis < axes; ++axis) {
    for (md::index_t i = 0; i < b.tokens; ++i) {
      old.push_back(static_cast<P>(i + 7)), updated.push_back(static_cast<P>(i % 2 == 0 ? i : i + 7));
    }
  }
  std::vector<std::int32_t> axis_of;
  for (int f = 0; f < frequencies && axes > 1; ++f) { axis_of.push_back(f % axes); }
  check(md::rerotate(md::cuda::backend<>{}, pairs, md::view(memory<T>(), heads, b.tokens, 2 * frequencies + 3), b.cut,
                     md::view<P const>(memory(old), axes, b.tokens), md::view<P const>(memory(updated), axes, b.tokens),
                     md::view<float const>(memory<float>(), frequencies), counts(axis_of)));
}

}  // namespace

void calls() {
  using pairs = md::rope_pairs;
  for (int const n : {3, 4, 5, 9}) { one<float, std::int32_t>(std::to_string(n) + " slots, 32 pairs", whole(n), 2, 32, pairs::half_split); }
  for (int const f : {1, 31, 33, 127, 128, 129, 257}) {
    one<float, std::int32_t>("3 slots, " + std::to_string(f) + " pairs", whole(3), 2, f, pairs::half_split);
    one<float, std::int32_t>("3 slots, " + std::to_string(f) + " pairs, interleaved", whole(3), 1, f, pairs::interleaved);
  }
  one<md::half, std::int64_t>("5 slots, 32 pairs of f16, 3 axes, 64-bit", whole(5), 2, 32, pairs::half_split, 3);
  one<md::bfloat16, std::int32_t>("5 slots, 32 pairs of bf16", whole(5), 2, 32, pairs::interleaved);
  one<float, std::int32_t>("segments of 9 0 5", ragged({9, 0, 5}, 2), 2, 32, pairs::half_split);
}

}  // namespace recorder
