// SPDX-License-Identifier: Apache-2.0
// cls_topk: 8 % of the patches of each crop by the mean of 16 heads, [crops, heads, 1 + 576] as a vision tower writes it.

#include "measure.hpp"

template <class T>
struct cls_topk_step : step {
  static constexpr roof limit = roof::read;
  static constexpr index_t heads = 16, tokens = 577;
  index_t const crops;
  lasting<std::int32_t> offsets, counts;
  array<T> const attention = input<T>(crops * heads * tokens, true);
  lists const kept;

  explicit cls_topk_step(shape const& s) : crops(s.crops()), kept(keep_output(crops, md::retained_count(md::cls_topk_options{}, tokens))) {
    for (index_t c = 0; c <= crops; ++c) { offsets.push_back(static_cast<std::int32_t>(c * heads * tokens)); }
    counts.assign(static_cast<std::size_t>(crops), tokens);
    bytes = static_cast<double>(crops * heads * tokens) * sizeof(T);
  }
  template <class Backend>
  md::status run(Backend const& on) {
    md::segments const cut{crops, offsets.data(), counts.data(), tokens};
    md::tensor_view<T, 2> const map{at(attention), {heads, ((crops - 1) * heads + 1) * tokens}, {tokens, 1}};
    return md::cls_topk(on, {}, map, cut, {}, keep(kept), lend(md::cls_topk_workspace_size(on, heads, map.size(1), cut)));
  }
};

int main(int argc, char** argv) {
  add_of_every_type<cls_topk_step>("cls_topk");
  return run_all(argc, argv);
}
