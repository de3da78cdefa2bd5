// SPDX-License-Identifier: Apache-2.0

// The input is a picture; what can be read is made ready for the vision tower, both ways.

#include "fuzz.hpp"
#include "image.hpp"

void llava_fuzz::use(std::uint8_t const* data, std::size_t size) {
  constexpr long most = 1 << 18;  // enough for small files to get everywhere, few enough for many of them
  llava::picture const read = llava::read_picture(data, size, "picture", most);
  if (read.rgb.size() != 3 * static_cast<std::size_t>(read.width) * static_cast<std::size_t>(read.height)) { std::abort(); }
  touch(read.rgb.data(), read.rgb.size());
  llava::preprocessing how;
  how.shortest_edge = 10, how.crop_height = how.crop_width = 12;
  constexpr int longest = 2048;
  if (read.width > longest || read.height > longest) { return; }
  for (llava::framing const framing : {llava::framing::crop, llava::framing::pad}) {
    std::vector<float> const values = llava::pixel_values(llava::frame(read, how, framing), how);
    touch(values.data(), values.size() * sizeof(float));
  }
}
