// SPDX-License-Identifier: Apache-2.0
#include <mustdrop/cuda/merge_rows.cuh>
#include <mustdrop/merge_rows.hpp>

#include "recorder.hpp"

namespace recorder {
namespace {

/// Two tokens go to each row, or where `far`, the tokens of a segment are dealt to two of its rows.
template <class T, class Out, class Index>
void one(std::string const& title, batch const& b, int dim, bool far = false, bool sized = false,
         std::vector<std::int32_t> const& out_offsets = {}) {
  begin(title);
  std::vector<Index> source(static_cast<std::size_t>(b.tokens));
  for (std::size_t s = 0; s < b.size.size(); ++s) {
    for (std::int32_t i = 0; i < b.size[s]; ++i) {
      source[static_cast<std::size_t>(b.begin[s] + i)] = static_cast<Index>(far ? i % 2 : i / 2);
    }
  }
  md::tensor_view<float const, 1> sizes;
  md::tensor_view<float, 1> out_sizes;
  if (sized) { sizes = md::view<float const>(memory<float>(), b.tokens), out_sizes = md::view(memory<float>(), b.tokens); }
  check(md::merge_rows(md::cuda::backend<>{}, md::view<T const>(memory<T>(), b.tokens, dim), sizes,
                       md::view<Index const>(memory(source), b.tokens), b.cut, md::view(memory<Out>(), b.tokens, dim), out_sizes,
                       counts(out_offsets)));
}

}  // namespace

void calls() {
  for (int const n : {1, 31, 32, 33, 65}) {
    one<float, float, std::int32_t>(std::to_string(n) + " tokens, 8 f32", whole(n), 8, false, true);
  }
  for (int const dim : {4, 508, 512, 516, 1028}) {  // 128 threads × 4
    one<float, float, std::int32_t>("6 tokens, " + std::to_string(dim) + " f32", whole(6), dim, true);
  }
  for (int const dim : {1, 127, 129, 257}) { one<float, float, std::int32_t>("6 tokens, " + std::to_string(dim) + " f32", whole(6), dim); }
  one<md::half, md::half, std::int32_t>("6 tokens, 136 f16", whole(6), 136);
  one<md::half, float, std::int64_t>("6 tokens, 136 f16 to f32, 64-bit", whole(6), 136);
  one<md::bfloat16, md::bfloat16, std::int32_t>("6 tokens, 33 bf16", whole(6), 33);
  one<md::bfloat16, md::bfloat16, std::int32_t>("6 tokens, 136 bf16", whole(6), 136);
  one<md::half, md::half, std::int32_t>("6 tokens, 33 f16", whole(6), 33);
  one<md::half, float, std::int64_t>("6 tokens, 33 f16 to f32, 64-bit", whole(6), 33);
  one<float, float, std::int32_t>("segments of 33 0 9, room behind", ragged({33, 0, 9}, 2), 33, false, true);
  one<float, float, std::int32_t>("segments of 33 0 9, packed", ragged({33, 0, 9}), 8, false, true, {0, 17, 17, 22});
}

}  // namespace recorder
