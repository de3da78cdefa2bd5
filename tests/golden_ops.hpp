// SPDX-License-Identifier: Apache-2.0
#pragma once

// The ops that golden cases are of, and how one is run on every backend.

#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "backends.hpp"
#include "golden_case.hpp"

namespace golden {

/// One line for each backend that fails; none: the case passes.
using failures = std::vector<std::string>;

struct op {
  char const* name;
  failures (*run)(golden_case const&);
};

std::vector<op> vision_ops();   // window_merge, cls_topk, fastervlm, key_count
std::vector<op> prefill_ops();  // dual_mask, stage_compose, text_scores
std::vector<op> cache_ops();    // kv_evict, kv_rerotate, streaming, tova, h2o
std::vector<op> chain_ops();    // chain

template <class Run, template <class...> class List, class... Backend>
failures on_each(List<Backend...>, golden_case const& tested, Run const& run) {
  failures found;
  std::unique_ptr<trial> reference;  // the first backend: the others must give its bits
  auto const one = [&](auto backend) {
    auto now = std::make_unique<trial>(tested);
    try {
      run(backend, *now);
      now->finish();
      if (reference) { now->compare_bits(*reference); }
    } catch (std::exception const& e) { found.push_back(std::string("[") + name_of(backend) + "] " + e.what()); }
    if (!reference) { reference = std::move(now); }
  };
  (one(Backend{}), ...);
  return found;
}

template <class Run>
failures on_every_backend(golden_case const& tested, Run const& run) {
  return on_each(Backends{}, tested, run);
}

}  // namespace golden
