// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <random>

#include <mustdrop/view.hpp>

/// Which of `left` rows each of `each` tokens goes to, for one crop after another: as ToMe leaves them, merged pairs anywhere.
struct sources {
  md::index_t tokens, each, left;

  void operator()(std::int32_t* data, std::mt19937& random) const {
    for (md::index_t i = 0; i < tokens; i += each) {
      for (md::index_t t = 0; t < each; ++t) {
        data[i + t] = static_cast<std::int32_t>(t < left ? t : static_cast<md::index_t>(random() % static_cast<unsigned>(left)));
      }
      std::shuffle(data + i, data + i + each, random);
    }
  }
};
