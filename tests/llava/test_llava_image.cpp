// SPDX-License-Identifier: Apache-2.0

// Pictures against what PIL and Hugging Face's CLIPImageProcessor made of the same files, and files that are none.

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "config.hpp"
#include "folder.hpp"
#include "image.hpp"
#include "safetensors.hpp"

namespace {

using namespace llava_test;
using llava::framing;
using llava::picture;

fs::path const golden = fs::path(LLAVA_DATA) / "golden";

/// The same 8-bit pictures give the same floats but for the order of operations, a rounding or two of numbers up to 1.
TEST(Image, PixelValuesAreHuggingFaces) {
  llava::config const config = llava::read_config(LLAVA_TINY);
  llava::preprocessing const how = llava::read_preprocessing(LLAVA_TINY, config.vision);
  int compared = 0;
  for (auto const& file : fs::directory_iterator(golden)) {
    if (file.path().extension() != ".safetensors") { continue; }
    safetensors::file const g = safetensors::read(file.path());
    if (g.tensors.count("pixel_values") == 0) { continue; }
    SCOPED_TRACE(file.path().filename().string());
    std::vector<float> const expected = safetensors::elements<float>(g, g.tensors.at("pixel_values"));
    std::vector<float> actual;
    for (std::string const image : nlohmann::json::parse(g.metadata.at("images"))) {
      picture const framed = llava::frame(llava::read_picture((golden / image).string()), how, framing::crop);
      std::vector<float> const values = llava::pixel_values(framed, how);
      actual.insert(actual.end(), values.begin(), values.end());
    }
    ASSERT_EQ(actual.size(), expected.size());
    float worst = 0;
    std::size_t differing = 0;
    for (std::size_t i = 0; i < actual.size(); ++i) {
      worst = std::max(worst, std::fabs(actual[i] - expected[i]));
      differing += std::fabs(actual[i] - expected[i]) > 1e-5f;
    }
    EXPECT_LE(worst, 1e-6f) << differing << " of " << actual.size();
    ++compared;
  }
  EXPECT_GE(compared, 6);
}

}  // namespace
