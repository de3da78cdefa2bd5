// SPDX-License-Identifier: Apache-2.0
// [README.md]
#include <cstdio>
#include <mustdrop/reference/dual_mask.hpp>

namespace md = mustdrop;

int main() {
  float const sum[] = {0.02f, 0.90f, 0.01f, 0.50f, 0.03f, 0.04f};  // attention of the question's rows to six image tokens …
  float const max[] = {0.01f, 0.40f, 0.01f, 0.30f, 0.25f, 0.02f};  // … together, and the most from one row
  int key_token = 5, keys = 1, indices[6], count = 0;
  alignas(64) unsigned char scratch[64];
  md::keep_lists const key_set{md::view(&key_token, 1, 1), md::view(&keys, 1)};  // protected whatever the text thinks of it
  md::keep_lists const keep{md::view(indices, 1, 6), md::view(&count, 1)};       // for one image: what stays
  md::status const s = md::dual_mask(md::reference::backend{}, {0.1f, 0.2f}, md::view(sum, 6), md::view(max, 6), {}, key_set, {}, keep,
                                     {scratch, sizeof scratch});
  if (s != md::status::ok) { return std::puts(md::message(s)), 1; }
  for (int i = 0; i < count; ++i) { std::printf("%d ", indices[i]); }  // 1 3 4 5
}
// [end]
