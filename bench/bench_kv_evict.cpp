// SPDX-License-Identifier: Apache-2.0
// kv_evict: output_aware, a third of the slots of each request stays; 35 text slots, the image with 8 % of key set, 40 text slots.

#include "measure.hpp"

template <class T>
struct kv_evict_step : step {
  static constexpr roof limit = roof::read;
  index_t const each, slots;
  md::segments const cut;
  array<float> const scores = input<float>(slots, true);
  array<md::slot_kind> const kinds;
  lists const kept;

  explicit kv_evict_step(shape const& s)
      : each(s.prompt()),
        slots(s.batch * each),
        cut(even(s.batch, each)),
        kinds(input<md::slot_kind>(slots,
                                   [slots = slots, each = each](md::slot_kind* data, std::mt19937& random) {
                                     for (index_t i = 0; i < slots; ++i) {
                                       bool const text = i % each < 35 || i % each >= each - 40, key_set = random() % 100 < 8;
                                       data[i] = text ? md::slot_kind::text : key_set ? md::slot_kind::key_set : md::slot_kind::visual;
                                     }
                                   })),
        kept(keep_output(s.batch, each)) {
    bytes = 5.0 * static_cast<double>(slots) + 4.0 * static_cast<double>(slots / 3);
  }
  template <class Backend>
  md::status run(Backend const& on) {
    return md::kv_evict(on, {md::evict_policy::output_aware, each / 3}, view(scores, slots), view(kinds, slots), cut, {}, keep(kept),
                        lend(md::kv_evict_workspace_size(on, slots, cut)));
  }
};

int main(int argc, char** argv) {
  add<kv_evict_step, float>("kv_evict");
  return run_all(argc, argv);
}
