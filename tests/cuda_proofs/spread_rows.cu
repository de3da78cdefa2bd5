// SPDX-License-Identifier: Apache-2.0
#include <mustdrop/cuda/spread_rows.cuh>
#include <mustdrop/numerics.hpp>
#include <mustdrop/spread_rows.hpp>

#include "recorder.hpp"

namespace recorder {
namespace {

template <class T, class Index>
void one(std::string const& title, batch const& b, int dim, std::vector<std::int32_t> const& merged_offsets = {}) {
  begin(title);
  check(md::spread_rows(md::cuda::backend<>{}, md::view<T const>(memory<T>(), b.tokens, dim),
                        md::view<Index const>(memory<Index>(), b.tokens), b.cut, counts(merged_offsets),
                        md::view(memory<T>(), b.tokens, dim)));
}

}  // namespace

void calls() {
  for (int const n : {7, 8, 9, 16, 17}) { one<float, std::int32_t>(std::to_string(n) + " tokens, 128 f32", whole(n), 128); }
  for (int const dim : {1, 31, 32, 33, 255, 256, 257}) {
    one<md::half, std::int64_t>("5 tokens, " + std::to_string(dim) + " f16, 64-bit", whole(5), dim);
  }
  for (int const bytes : {33, 34, 36, 40, 48}) {  // words of 1, 2, 4, 8 and 16 bytes
    std::string const title = "9 tokens, " + std::to_string(bytes) + " bytes";
    one<std::uint8_t, std::int32_t>(title, whole(9), bytes);
    one<std::uint8_t, std::int64_t>(title + ", 64-bit", whole(9), bytes);
  }
  one<md::bfloat16, std::int32_t>("segments of 33 0 9", ragged({33, 0, 9}, 2), 64);
  one<float, std::int32_t>("segments of 33 0 9, packed", ragged({33, 0, 9}), 64, {0, 10, 10, 12});
}

}  // namespace recorder
