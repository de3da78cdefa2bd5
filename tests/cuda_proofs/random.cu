// SPDX-License-Identifier: Apache-2.0
#include <mustdrop/cuda/random.cuh>
#include <mustdrop/method/random.hpp>

#include "selections.hpp"

namespace recorder {
namespace {

void one(std::string const& title, batch const& b) {
  begin(title);
  md::workspace const scratch{memory<char>(), room};
  know(md::cuda::selection_memory(scratch.data, b.tokens, b.cut.count), b.tokens, choose(b, 10), "keep_kernel");
  check(md::method::random(md::cuda::backend<>{}, {}, b.cut, {}, md::view(memory<float>(), b.tokens), lists<std::int32_t>(b.cut.count, 10),
                           scratch));
}

}  // namespace

void calls() {
  for (int const n : {1, 255, 256, 257, 513}) { one(std::to_string(n) + " tokens", whole(n)); }
  one("segments of 33 0 257 31", ragged({33, 0, 257, 31}, 3));
}

}  // namespace recorder
