// SPDX-License-Identifier: Apache-2.0
#include <mustdrop/cuda/gather.cuh>
#include <mustdrop/gather.hpp>

#include <algorithm>

#include "recorder.hpp"

namespace recorder {
namespace {

/// As many rows of each segment stay as said, whichever they are; rows of heads × dim numbers, `spare` behind each, and behind each head.
template <class T, class Index>
void one(std::string const& title, batch const& b, std::vector<std::int32_t> const& stay, int heads, int dim, int spare = 0,
         bool packed = false) {
  begin(title);
  md::index_t const head = dim + spare, row = heads * head + spare;
  auto const rows = [&](auto* data) {
    return md::tensor_view<std::remove_pointer_t<decltype(data)>, 3>{data, {b.tokens, heads, dim}, {row, head, 1}};
  };
  auto const capacity = static_cast<md::index_t>(*std::max_element(stay.begin(), stay.end()));
  md::tensor_view<std::int32_t const, 1> out_offsets;
  if (packed) {
    std::vector<std::int32_t> offsets{0};
    for (std::int32_t const n : stay) { offsets.push_back(offsets.back() + n); }
    out_offsets = counts(offsets);
  }
  check(md::gather(md::cuda::backend<>{}, rows(memory<T const>()), b.cut, kept<Index>(stay, capacity), rows(memory<T>()), out_offsets));
}

template <class T, class Index>
void side(int stay) {
  begin("a side tensor, " + std::to_string(stay) + " of 600 stay");
  check(md::gather(md::cuda::backend<>{}, md::view<T const>(memory<T>(), 600), {}, kept<Index>({stay}, stay), md::view(memory<T>(), 600),
                   {}));
}

template <class T, class Out, class W>
void norm(std::string const& title, batch const& b, std::vector<std::int32_t> const& stay, int dim) {
  begin(title);
  md::rms_norm<W> const norm{md::view<W const>(memory<W>(), dim)};
  auto const capacity = static_cast<md::index_t>(*std::max_element(stay.begin(), stay.end()));
  check(md::gather(md::cuda::backend<>{}, norm, md::view<T const>(memory<T>(), b.tokens, dim), b.cut, kept<std::int32_t>(stay, capacity),
                   md::view(memory<Out>(), b.tokens, dim), {}));
}

/// A transform of the caller's.
struct halves {
  template <class T, class Out>
  MUSTDROP_HD void operator()(T const* row, md::index_t dim, Out* out) const noexcept {
    for (md::index_t d = 0; d < dim; ++d) { out[d] = row[d] / 2; }
  }
};

}  // namespace

void calls() {
  for (int const n : {255, 256, 257, 513}) { side<std::int32_t, std::int32_t>(n); }
  side<std::uint8_t, std::int64_t>(257);
  side<std::uint16_t, std::int32_t>(257);
  for (int const dim : {4, 8, 124, 128, 132, 1020, 1024, 1028, 2052}) {  // 1 … 257, 513 words of 16 bytes
    one<float, std::int32_t>("5 of 9 rows, " + std::to_string(dim) + " f32", whole(9), {5}, 1, dim);
  }
  for (int const n : {7, 8, 9, 16, 17}) { one<md::half, std::int32_t>(std::to_string(n) + " of 20 rows, 256 f16", whole(20), {n}, 1, 256); }
  for (int const dim : {30, 31, 32, 33, 255, 257}) {
    one<md::half, std::int32_t>("5 of 9 rows, " + std::to_string(dim) + " f16", whole(9), {5}, 1, dim);
  }
  for (int const bytes : {33, 34, 36, 40, 48}) {  // words of 1, 2, 4, 8 and 16 bytes
    std::string const title = "5 of 9 rows, " + std::to_string(bytes) + " bytes";
    one<std::uint8_t, std::int32_t>(title, whole(9), {5}, 1, bytes);
    one<std::uint8_t, std::int64_t>(title + ", 64-bit", whole(9), {5}, 1, bytes);
  }
  one<float, std::int64_t>("5 of 9 rows, 3 heads apart, 32 f32, 64-bit", whole(9), {5}, 3, 32, 4);
  one<float, std::int32_t>("5 of 9 rows, 3 heads apart, 33 f32", whole(9), {5}, 3, 33, 1);
  one<float, std::int32_t>("segments of 33 0 257 31", ragged({33, 0, 257, 31}, 3), {12, 0, 65, 31}, 1, 64);
  one<float, std::int32_t>("segments of 33 0 257 31, packed", ragged({33, 0, 257, 31}, 3), {12, 0, 65, 31}, 1, 64, 0, true);
  for (int const n : {3, 4, 5, 9}) { norm<float, float, float>(std::to_string(n) + " of 9 rows, norm, 64 f32", whole(9), {n}, 64); }
  for (int const dim : {1, 31, 32, 33, 96, 97}) {
    norm<float, float, float>("3 of 9 rows, norm, " + std::to_string(dim) + " f32", whole(9), {3}, dim);
  }
  norm<md::half, float, float>("5 of 9 rows, norm, 33 f16 to f32", whole(9), {5}, 33);
  norm<md::bfloat16, md::bfloat16, md::bfloat16>("5 of 9 rows, norm, 33 bf16", whole(9), {5}, 33);
  norm<float, float, float>("segments of 33 0 9, norm, 33 f32", ragged({33, 0, 9}), {5, 0, 4}, 33);
  begin("5 of 9 rows, a transform of the caller's");
  check(md::gather(md::cuda::backend<>{}, halves{}, md::view<float const>(memory<float>(), 9, 33), {}, kept<std::int32_t>({5}, 5),
                   md::view(memory<float>(), 9, 33), {}));
}

}  // namespace recorder
