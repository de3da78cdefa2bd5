// SPDX-License-Identifier: Apache-2.0
// rerotate: the keys of one layer that stayed, 32 heads of 128, close their ranks: 275 slots for 576 tokens.

#include "measure.hpp"

template <class T>
struct rerotate_step : step {
  static constexpr roof limit = roof::update;
  static constexpr index_t heads = 32, dim = 128;
  index_t const each, slots;
  md::segments const cut;
  array<T> const keys = input<T>(heads * slots * dim);
  lists const old;
  array<std::int32_t> const updated;
  array<float> const inv_freq;

  explicit rerotate_step(shape const& s)
      : each(s.prompt() * 275 / 651),
        slots(s.batch * each),
        cut(even(s.batch, each)),
        old(keep_input(s.batch, s.prompt(), each)),
        updated(input<std::int32_t>(slots,
                                    [slots = slots, each = each](std::int32_t* data, std::mt19937&) {
                                      for (index_t i = 0; i < slots; ++i) { data[i] = static_cast<std::int32_t>(i % each); }
                                    })),
        inv_freq(input<float>(dim / 2, [](float* data, std::mt19937&) {
          for (index_t f = 0; f < dim / 2; ++f) { data[f] = std::pow(10000.0f, -2.0f * static_cast<float>(f) / dim); }
        })) {
    auto const elements = static_cast<double>(heads * slots * dim);
    bytes = 2 * elements * sizeof(T), flops = 3 * elements;
  }
  template <class Backend>
  md::status run(Backend const& on) {
    return md::rerotate(on, md::rope_pairs::half_split, view(keys, heads, slots, dim), cut, view(old.indices, slots), view(updated, slots),
                        view(inv_freq, dim / 2));
  }
};

int main(int argc, char** argv) {
  add_of_every_type<rerotate_step>("rerotate");
  return run_all(argc, argv);
}
