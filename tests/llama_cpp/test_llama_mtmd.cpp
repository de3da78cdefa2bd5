// SPDX-License-Identifier: Apache-2.0
// Pictures by libmtmd: the tiny model's tower as a GGUF (tiny_mmproj.py), whose rows merge until no more than the tokens asked for are left.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>

#include "error.hpp"
#include "session.hpp"

namespace {

using namespace mustdrop_llama;

std::string const picture_file = LLAVA_TINY "/questions/images/scene_000.png";
constexpr std::size_t width = 128, side = 24;

llama_model* words() {
  static model_pointer const model = load_model(LLAMA_MODELS "/tiny_words.gguf");
  return model.get();
}

front& tower() {
  static auto const all = mtmd_front(words(), LLAMA_MODELS "/tiny_mmproj.gguf", 1);
  return *all;
}

/// The word behind the picture's line feed is lost (tiny_mmproj.py).
prompt ask(int tokens) { return tower().ask(picture_file, "please what is at the top right?", tokens); }

double cosine(float const* a, float const* b) {
  double ab = 0, aa = 0, bb = 0;
  for (std::size_t i = 0; i < width; ++i) {
    ab += double{a[i]} * double{b[i]}, aa += double{a[i]} * double{a[i]}, bb += double{b[i]} * double{b[i]};
  }
  return ab / std::sqrt(aa * bb);
}

TEST(LlamaMtmd, RowsAreThoseOfExamplesLlavaButForTheFirstPatch) {
  picture const got = ask(0).image,
                expected = checkpoint_front(LLAVA_TINY "/model", 1)->ask(picture_file, "what is at the top right?", 0).image;
  ASSERT_EQ(got.at.size(), side * side);
  ASSERT_EQ(got.rows.size(), expected.rows.size());
  // llama.cpp 0.5: row r is patch r + 1, the last one is CLS.
  for (std::size_t r = 0; r + 1 < side * side; ++r) {
    EXPECT_GT(cosine(&got.rows[r * width], &expected.rows[(r + 1) * width]), 0.999) << r;
  }
}

TEST(LlamaMtmd, WindowsMergeUntilNoMoreTokensAreLeftThanAskedFor) {
  picture const all = ask(0).image;
  for (auto const& [tokens, rows] : {std::pair{192, 192U}, {128, 128U}, {64, 64U}, {100, 96U}, {575, 568U}, {576, 576U}, {1000, 576U}}) {
    picture const p = ask(tokens).image;
    EXPECT_EQ(p.at.size(), rows) << tokens << ": each window of 3 × 3 saves 8";
    EXPECT_EQ(p.rows.size(), p.at.size() * width);
    EXPECT_EQ(p.places, 576);
    EXPECT_TRUE(std::is_sorted(p.at.begin(), p.at.end()));
  }
  EXPECT_LE(ask(20).image.at.size(), 20U) << "larger windows, where all of 3 × 3 leave 64";
  EXPECT_EQ(ask(1).image.at.size(), 1U);

  picture const merged = ask(64).image;  // every window: the mean of its nine rows, in the middle one's place
  for (std::size_t w = 0; w < 64; ++w) {
    std::size_t const top = w / 8 * 3, left = w % 8 * 3;
    EXPECT_EQ(merged.at[w], static_cast<std::int32_t>((top + 1) * side + left + 1));
    for (std::size_t d = 0; d < width; ++d) {
      double mean = 0;
      for (std::size_t m = 0; m < 9; ++m) { mean += double{all.rows[((top + m / 3) * side + left + m % 3) * width + d]} / 9; }
      EXPECT_NEAR(merged.rows[w * width + d], mean, 1e-5 * (1 + std::fabs(mean)));
    }
  }
}

TEST(LlamaMtmd, AnyGridEndsWithNoMoreTokensThanAskedFor) {
  for (md::index_t edge = 2; edge <= 8; ++edge) {
    auto const n = static_cast<int>(edge * edge);
    for (int tokens = 1; tokens < n; ++tokens) {
      picture p;
      p.rows.resize(static_cast<std::size_t>(n) * 2, 1), p.places = n;
      for (int r = 0; r < n; ++r) { p.at.push_back(r); }
      merge_windows(p, edge, 2, tokens, 1);
      EXPECT_LE(p.at.size(), static_cast<std::size_t>(tokens)) << edge;
      EXPECT_GE(p.at.size(), 1U);
      EXPECT_EQ(p.rows, std::vector<float>(p.at.size() * 2, 1)) << "means of ones";
    }
  }
}

TEST(LlamaMtmd, AnswersAreWords) {
  session on(words(), {});
  answer const got = on.run(ask(0), {}, &tower(), 16);
  EXPECT_EQ(tower().text(got.ids), "mushroom");
  dropping how;
  how.after_prefill = 64;
  prompt all = ask(0);
  answer const dropped = on.run(all, how, &tower(), 16);
  EXPECT_EQ(dropped.image.size(), 64U);
  EXPECT_EQ(tower().text(dropped.ids), "mushroom");
}

TEST(LlamaMtmd, RefusesWhatItCannotRead) {
  EXPECT_THROW(tower().ask(LLAVA_TINY "/questions/scenes.jsonl", "what is it?", 64), llava::input_error);
  EXPECT_THROW(mtmd_front(words(), LLAVA_TINY "/model/model.safetensors", 1), llava::input_error);
  EXPECT_THROW(mtmd_front(words(), LLAMA_MODELS "/tiny_words.gguf", 1), llava::input_error) << "a language model is no encoder";
}

}  // namespace
