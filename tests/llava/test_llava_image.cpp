// SPDX-License-Identifier: Apache-2.0

// Pictures against what PIL and Hugging Face's CLIPImageProcessor made of the same files, and files that are none.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
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

fs::path const pictures = fs::path(LLAVA_DATA) / "pictures";

picture shown(std::string const& name) { return llava::read_picture((pictures / name).string()); }

std::string difference(picture const& a, picture const& b) {
  if (a.width != b.width || a.height != b.height || a.rgb.size() != b.rgb.size()) { return "another size"; }
  int worst = 0, count = 0;
  for (std::size_t i = 0; i < a.rgb.size(); ++i) {
    int const d = std::abs(a.rgb[i] - b.rgb[i]);
    worst = std::max(worst, d), count += d > 0;
  }
  return count == 0 ? "" : std::to_string(count) + " bytes differ, by up to " + std::to_string(worst);
}

bool ends_with(std::string const& text, std::string const& with) {
  return text.size() >= with.size() && text.substr(text.size() - with.size()) == with;
}

/// make_pictures.py says what each of them is. They have to be the same to the last bit.
TEST(Image, EveryKindOfFileIsReadAsPilReadsIt) {
  int compared = 0;
  for (auto const& file : fs::directory_iterator(pictures)) {
    std::string const name = file.path().filename().string(), expected = file.path().stem().string() + ".rgb.png";
    if (ends_with(name, ".rgb.png") || !fs::exists(pictures / expected)) { continue; }
    EXPECT_EQ(difference(shown(name), shown(expected)), "") << name;
    ++compared;
  }
  EXPECT_EQ(compared, 31);
}

TEST(Image, ResizedPicturesAreTheBitsOfPil) {
  picture const from = shown("rgb.png");
  int compared = 0;
  for (auto const& file : fs::directory_iterator(pictures)) {
    std::string const name = file.path().filename().string();
    int width = 0, height = 0;
    if (std::sscanf(name.c_str(), "resized_%dx%d.png", &width, &height) != 2) { continue; }
    EXPECT_EQ(difference(llava::resize(from, width, height), shown(name)), "") << name;
    ++compared;
  }
  EXPECT_EQ(compared, 10);  // of them, 150x3 and 39x25 columns first
}

picture turned_left(picture const& from) {
  picture to{from.height, from.width, std::vector<std::uint8_t>(from.rgb.size())};
  for (int y = 0; y < to.height; ++y) {
    for (int x = 0; x < to.width; ++x) {
      int const source = 3 * (x * from.width + from.width - 1 - y), target = 3 * (y * to.width + x);
      std::copy_n(from.rgb.begin() + source, 3, to.rgb.begin() + target);
    }
  }
  return to;
}

llava::preprocessing sizes(int edge, int crop) {
  llava::preprocessing how;
  how.shortest_edge = edge, how.crop_height = how.crop_width = crop;
  return how;
}

TEST(Image, FramesAreClips) {
  picture const wide = shown("rgb.png"), tall = turned_left(wide);
  int compared = 0;
  for (auto const& file : fs::directory_iterator(pictures)) {
    std::string const name = file.path().filename().string();
    int edge = 0, crop = 0;
    if (std::sscanf(name.c_str(), "framed_wide_%d_%d.png", &edge, &crop) == 2) {
      EXPECT_EQ(difference(llava::frame(wide, sizes(edge, crop), framing::crop), shown(name)), "") << name;
    } else if (std::sscanf(name.c_str(), "framed_tall_%d_%d.png", &edge, &crop) == 2) {
      EXPECT_EQ(difference(llava::frame(tall, sizes(edge, crop), framing::crop), shown(name)), "") << name;
    } else {
      continue;
    }
    ++compared;
  }
  EXPECT_EQ(compared, 10);
  EXPECT_EQ(difference(llava::frame(wide, sizes(24, 24), framing::pad), shown("framed_padded_wide.png")), "");
  EXPECT_EQ(difference(llava::frame(tall, sizes(24, 24), framing::pad), shown("framed_padded_tall.png")), "");
}

TEST(Image, OnePixelFillsTheFrame) {
  picture const one = shown("one_pixel.png"), framed = llava::frame(one, sizes(8, 8), framing::crop);
  for (std::size_t i = 0; i < framed.rgb.size(); ++i) { ASSERT_EQ(framed.rgb[i], one.rgb[i % 3]); }
}

TEST(Image, StepsThatTheModelLeavesOutAreLeftOut) {
  llava::preprocessing how = sizes(8, 4);
  how.resize = false;
  picture const from = shown("rgb.png"), cropped = llava::frame(from, how, framing::crop);
  EXPECT_EQ(cropped.width, 4);
  int const left = (from.width - 4) / 2, top = (from.height - 4) / 2;
  EXPECT_EQ(cropped.rgb[0], from.rgb[static_cast<std::size_t>(3 * (top * from.width + left))]);
  how.crop = false;
  expect_refused([&] { llava::frame(from, how, framing::crop); }, {"picture: 41 by 30 pixels", "4 by 4"});
  how.rescale = how.normalize = false;
  std::vector<float> const raw = llava::pixel_values(cropped, how);
  for (std::size_t i = 0; i < 16; ++i) { EXPECT_EQ(raw[16 + i], cropped.rgb[3 * i + 1]); }
  how.rescale = true;
  EXPECT_EQ(llava::pixel_values(cropped, how)[0], static_cast<float>(cropped.rgb[0]) * how.rescale_factor);
}

TEST(Image, ElongatedPicturesAreRefusedBeforeTheyGrow) {
  picture const line{1, 2'000'000, std::vector<std::uint8_t>(6'000'000)};
  expect_refused([&] { llava::frame(line, sizes(336, 336), framing::crop); }, {"picture: too elongated", "672000000"});
  expect_refused([&] { llava::frame(line, sizes(336, 336), framing::pad); }, {"picture: too elongated", "2000000 by 2000000"});
  EXPECT_EQ(llava::frame(picture{1, 2000, std::vector<std::uint8_t>(6000)}, sizes(8, 8), framing::crop).width, 8);
}

TEST(Image, PngIsWrittenAndReadBack) {
  for (char const* name : {"rgb.png", "one_pixel.png", "jpeg_420.jpg"}) {
    picture const before = shown(name);
    std::vector<std::uint8_t> const bytes = llava::encode_png(before);
    EXPECT_EQ(difference(llava::read_picture(bytes.data(), bytes.size(), "p"), before), "");
  }
  expect_refused([] { llava::write_png("/no/such/folder/a.png", picture{1, 1, {0, 0, 0}}); }, {"/no/such/folder/a.png: cannot be written"});
}

void refuse(std::string const& bytes, std::string const& why, long most = llava::most_pixels) {
  expect_refused([&] { llava::read_picture(bytes.data(), bytes.size(), "p.file", most); }, {"p.file: ", why});
}

/// JPEG alone may end in bytes that nothing depends on; no file does here.
TEST(Image, EveryPrefixOfAFileIsRefused) {
  for (char const* name : {"rgb.png", "rgb_interlaced.png", "palette4.png", "jpeg_420.jpg", "jpeg_progressive.jpg", "jpeg_inks.jpg"}) {
    std::string const whole = bytes_of(pictures / name);
    for (std::size_t size = 0; size < whole.size(); ++size) {
      SCOPED_TRACE(std::string(name) + " cut to " + std::to_string(size));
      refuse(whole.substr(0, size), size == 0 ? "the file is empty" : "");
    }
  }
}

TEST(Image, WhatIsNoPictureIsRefused) {
  refuse("", "the file is empty");
  refuse("GIF89a", "neither PNG nor JPEG");
  refuse(std::string(1000, '\0'), "neither PNG nor JPEG");
  expect_refused([] { llava::read_picture("/no/such.png"); }, {"/no/such.png: no such file"});
  expect_refused([] { llava::read_picture("/"); }, {"/: not a file that can be read"});
  std::string broken = bytes_of(pictures / "rgb.png");
  broken[broken.size() / 2] = static_cast<char>(broken[broken.size() / 2] ^ 1);
  refuse(broken, "not a PNG picture that can be read: ");
}

TEST(Image, TooManyPixelsAreRefusedBeforeMemoryIsAskedFor) {
  std::string const png = bytes_of(pictures / "rgb.png"), jpeg = bytes_of(pictures / "jpeg_420.jpg");
  refuse(png, "41 by 30 pixels are more than 1229", 41 * 30 - 1);
  refuse(jpeg, "41 by 30 pixels are more than 1229", 41 * 30 - 1);
  EXPECT_NO_THROW(llava::read_picture(png.data(), png.size(), "p", 41 * 30));
  // 50000 by 50000 in the header; libjpeg reads it before anything else.
  std::size_t const frame = jpeg.find("\xff\xc0") + 5;
  refuse(std::string(jpeg).replace(frame, 4, "\xc3\x50\xc3\x50"), "50000 by 50000 pixels are more than 100000000");
}

}  // namespace
