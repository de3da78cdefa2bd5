// SPDX-License-Identifier: Apache-2.0
#include <mustdrop/cls_topk.hpp>
#include <mustdrop/cuda/cls_topk.cuh>

#include "selections.hpp"

namespace recorder {
namespace {

template <class T, class Index>
void one(std::string const& title, batch const& b, md::index_t heads, md::cls_topk_options options,
         std::vector<std::int32_t> const& requested = {}) {
  begin(title + (options.order == md::output_order::score ? ", best first" : ""));
  md::workspace const scratch{memory<char>(), room};
  md::cuda::selection_memory const selection(scratch.data, b.tokens, b.cut.count);
  std::vector<chosen> parts;
  for (std::size_t s = 0; s < b.size.size(); ++s) {
    md::index_t const patches = std::max<md::index_t>(b.size[s] - options.prefix - options.suffix, 0);
    parts.push_back(choose(b.begin[s], patches, requested.empty() ? md::retained_count(options, b.size[s]) : requested[s]));
  }
  for (char const* reader : {"keep_kernel", "rank_kernel"}) { know(selection, b.tokens, parts, reader); }
  check(md::cls_topk(md::cuda::backend<>{}, options, md::view<T const>(memory<T>(), heads, b.tokens), b.cut, counts(requested),
                     lists<Index>(b.cut.count, b.tokens), scratch));
}

}  // namespace

void calls() {
  for (auto const order : {md::output_order::position, md::output_order::score}) {
    for (int const n : {1, 32, 33, 34, 256, 257, 258}) {
      one<float, std::int32_t>("2 heads, " + std::to_string(n) + " tokens", whole(n), 2, {8, 1, 0, order});
    }
    one<md::half, std::int32_t>("2 heads, 34 tokens", whole(34), 2, {8, 1, 0, order});
    one<md::bfloat16, std::int64_t>("1 head, 34 tokens, 64-bit", whole(34), 1, {8, 1, 0, order});
    one<float, std::int32_t>("3 heads, segments of 40 2 0 259, prefix 1, suffix 2", ragged({40, 2, 0, 259}, 1), 3, {8, 1, 2, order});
    one<float, std::int32_t>("3 heads, segments of 40 2 0 259, own k", ragged({40, 2, 0, 259}), 3, {8, 1, 0, order}, {5, 1, 0, 258});
  }
}

}  // namespace recorder
