// SPDX-License-Identifier: Apache-2.0

// CLIPImageProcessor's steps; resizing does PIL's arithmetic to the bit.

#include "image.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "error.hpp"

namespace llava {
namespace {

std::size_t at(long i) { return static_cast<std::size_t>(i); }

picture blank(int width, int height, std::uint8_t const (&colour)[3]) {
  picture p{width, height, {}};
  p.rgb.resize(at(3L * width * height));
  for (std::size_t i = 0; i < p.rgb.size(); ++i) { p.rgb[i] = colour[i % 3]; }
  return p;
}

void expect_room(long width, long height) {
  if (width * height > most_pixels) {
    throw input_error("picture: too elongated: it would become " + std::to_string(width) + " by " + std::to_string(height) + " pixels");
  }
}

/// Copies `from` into `to`, its upper left corner at (x, y), cut to what is inside.
void paste(picture const& from, picture& to, int x, int y) {
  int const left = std::max(x, 0), right = std::min(x + from.width, to.width);
  if (left >= right) { return; }
  for (int row = std::max(y, 0); row < std::min(y + from.height, to.height); ++row) {
    std::uint8_t const* const source = from.rgb.data() + 3 * (at(row - y) * at(from.width) + at(left - x));
    std::memcpy(to.rgb.data() + 3 * (at(row) * at(to.width) + at(left)), source, 3 * at(right - left));
  }
}

/// Keys' cubic with a = −0.5; support [−2, 2].
double cubic(double x) {
  constexpr double a = -0.5;
  x = std::fabs(x);
  if (x < 1) { return ((a + 2) * x - (a + 3)) * x * x + 1; }
  if (x < 2) { return (((x - 5) * x + 8) * x - 4) * a; }
  return 0;
}

/// Which inputs an output is made of, and their weights in fixed point: 32 bits less 8 for the value and 2 for what overshoots.
struct taps {
  int first = 0;
  std::vector<std::int32_t> weights;
};
constexpr int fraction_bits = 32 - 8 - 2;

std::vector<taps> make_taps(int in, int out) {
  double const scale = static_cast<double>(in) / out, filter_scale = std::max(scale, 1.0), support = 2 * filter_scale;
  std::vector<taps> all(at(out));
  std::vector<double> weights;
  for (int i = 0; i < out; ++i) {
    double const center = (i + 0.5) * scale, inverse = 1 / filter_scale;
    int const first = std::max(static_cast<int>(center - support + 0.5), 0);
    int const end = std::min(static_cast<int>(center + support + 0.5), in);
    weights.clear();
    double sum = 0;
    for (int x = first; x < end; ++x) {
      weights.push_back(cubic((x - center + 0.5) * inverse));
      sum += weights.back();
    }
    taps& t = all[at(i)];
    t.first = first;
    for (double const weight : weights) {
      double const share = (sum != 0 ? weight / sum : weight) * (1 << fraction_bits);
      t.weights.push_back(static_cast<std::int32_t>(share < 0 ? share - 0.5 : share + 0.5));
    }
  }
  return all;
}

/// One output channel: inputs `step` bytes apart.
std::uint8_t mix(taps const& t, std::uint8_t const* from, std::size_t step) {
  std::int32_t sum = 1 << (fraction_bits - 1);
  for (std::int32_t const weight : t.weights) {
    sum += *from * weight;
    from += step;
  }
  return static_cast<std::uint8_t>(std::clamp(sum >> fraction_bits, 0, 255));
}

picture resize_rows(picture const& from, int width) {
  std::vector<taps> const all = make_taps(from.width, width);
  picture to = blank(width, from.height, {0, 0, 0});
  for (int y = 0; y < from.height; ++y) {
    std::uint8_t const* const row = from.rgb.data() + 3 * at(y) * at(from.width);
    std::uint8_t* out = to.rgb.data() + 3 * at(y) * at(width);
    for (taps const& t : all) {
      for (std::size_t channel = 0; channel < 3; ++channel) { *out++ = mix(t, row + 3 * at(t.first) + channel, 3); }
    }
  }
  return to;
}

picture resize_columns(picture const& from, int height) {
  std::vector<taps> const all = make_taps(from.height, height);
  picture to = blank(from.width, height, {0, 0, 0});
  std::size_t const row = 3 * at(from.width);
  for (int y = 0; y < height; ++y) {
    taps const& t = all[at(y)];
    for (std::size_t x = 0; x < row; ++x) { to.rgb[at(y) * row + x] = mix(t, from.rgb.data() + at(t.first) * row + x, row); }
  }
  return to;
}

picture pad_to_square(picture const& from, preprocessing const& how) {
  std::uint8_t colour[3];
  for (int channel = 0; channel < 3; ++channel) {
    colour[channel] = static_cast<std::uint8_t>(std::clamp(how.mean[channel] * 255, 0.0f, 255.0f));
  }
  int const side = std::max(from.width, from.height);
  expect_room(side, side);
  picture to = blank(side, side, colour);
  paste(from, to, (side - from.width) / 2, (side - from.height) / 2);
  return to;
}

picture shorter_edge_to(picture const& from, int edge) {
  long const shorter = std::min(from.width, from.height), longer = std::max(from.width, from.height), other = edge * longer / shorter;
  expect_room(edge, other);
  bool const wide = from.width > from.height;
  return resize(from, wide ? static_cast<int>(other) : edge, wide ? edge : static_cast<int>(other));
}

/// Where the crop begins: CLIP rounds down what is cut off before, and up what is padded before.
int crop_start(int size, int crop) { return size >= crop ? (size - crop) / 2 : -((crop - size + 1) / 2); }

}  // namespace

picture resize(picture const& from, int width, int height) {
  // Columns first where that loses many more rows than columns: Pillow's rule since 13.0; before, rows came first always. What both orders make
  // differs only by rounding and clipping between the passes.
  long const fewer_rows = long{from.height} - height, fewer_columns = long{from.width} - width;
  bool const columns_first = fewer_rows > 0 && fewer_rows > 2 * fewer_columns;
  expect_room(width, height);
  expect_room(columns_first ? from.width : width, columns_first ? height : from.height);  // between the passes
  picture to = from;
  if (columns_first) { to = resize_columns(to, height); }
  if (width != to.width) { to = resize_rows(to, width); }
  return height == to.height ? to : resize_columns(to, height);
}

picture frame(picture const& from, preprocessing const& how, framing framing) {
  picture framed = framing == framing::pad ? pad_to_square(from, how) : from;
  if (how.resize) { framed = shorter_edge_to(framed, how.shortest_edge); }
  if (how.crop && (framed.width != how.crop_width || framed.height != how.crop_height)) {
    picture crop = blank(how.crop_width, how.crop_height, {0, 0, 0});
    paste(framed, crop, -crop_start(framed.width, how.crop_width), -crop_start(framed.height, how.crop_height));
    framed = std::move(crop);
  }
  if (framed.width != how.crop_width || framed.height != how.crop_height) {
    throw input_error("picture: " + std::to_string(framed.width) + " by " + std::to_string(framed.height) + " pixels, the model sees " +
                      std::to_string(how.crop_width) + " by " + std::to_string(how.crop_height) + " and crops nothing");
  }
  return framed;
}

std::vector<float> pixel_values(picture const& framed, preprocessing const& how) {
  std::size_t const pixels = at(framed.width) * at(framed.height);
  std::vector<float> values(3 * pixels);
  for (std::size_t channel = 0; channel < 3; ++channel) {
    float const mean = how.mean[channel], deviation = how.deviation[channel];
    for (std::size_t i = 0; i < pixels; ++i) {
      float value = framed.rgb[3 * i + channel];
      if (how.rescale) { value *= how.rescale_factor; }
      values[channel * pixels + i] = how.normalize ? (value - mean) / deviation : value;
    }
  }
  return values;
}

}  // namespace llava
