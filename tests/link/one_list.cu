// SPDX-License-Identifier: Apache-2.0

// A caller compiled for one list of architectures; two_lists.cu links several. MUSTDROP_TEST_CALLER is what it is called.

#include <mustdrop/cuda/top_k.cuh>

namespace md = mustdrop;

/// The best of `tokens` scores on the default stream, in memory of the caller's.
md::status MUSTDROP_TEST_CALLER(float const* scores, md::index_t tokens, std::int32_t* kept, std::int32_t* count, md::workspace scratch) {
  md::keep_lists<std::int32_t> const keep{md::view(kept, 1, 1), md::view(count, 1)};
  return md::top_k(md::cuda::backend<>{}, {}, md::view(scores, tokens), {}, {}, keep, scratch);
}
std::size_t MUSTDROP_TEST_SCRATCH(md::index_t tokens) { return md::top_k_workspace_size(md::cuda::backend<>{}, tokens, {}); }
