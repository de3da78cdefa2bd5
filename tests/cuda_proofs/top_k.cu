// SPDX-License-Identifier: Apache-2.0
#include <mustdrop/cuda/top_k.cuh>
#include <mustdrop/top_k.hpp>

#include "selections.hpp"

namespace recorder {
namespace {

template <class Index>
void one(std::string const& title, batch const& b, md::index_t k, md::output_order order, std::vector<std::int32_t> const& requested = {}) {
  begin(title + (order == md::output_order::score ? ", best first" : ""));
  md::workspace const scratch{memory<char>(), room};
  md::cuda::selection_memory const selection(scratch.data, b.tokens, b.cut.count);
  for (char const* reader : {"keep_kernel", "rank_kernel"}) { know(selection, b.tokens, choose(b, k, requested), reader); }
  check(md::top_k(md::cuda::backend<>{}, {order}, md::view<float const>(memory<float>(), b.tokens), b.cut, counts(requested),
                  lists<Index>(b.cut.count, k), scratch));
}

}  // namespace

void calls() {
  for (auto const order : {md::output_order::position, md::output_order::score}) {
    for (int const n : {1, 31, 32, 33, 64, 65, 255, 256, 257, 512, 513}) {
      one<std::int32_t>(std::to_string(n) + " scores, " + std::to_string(n / 3 + 1) + " stay", whole(n), n / 3 + 1, order);
    }
    for (int const k : {0, 1, 32, 33}) { one<std::int64_t>("33 scores, " + std::to_string(k) + " stay, 64-bit", whole(33), k, order); }
    one<std::int32_t>("segments of 33 0 257 31", ragged({33, 0, 257, 31}), 40, order);
    one<std::int32_t>("segments of 33 0 257 31, room behind, own k", ragged({33, 0, 257, 31}, 3), 300, order, {5, 0, 257, 40});
  }
}

}  // namespace recorder
