// SPDX-License-Identifier: Apache-2.0
#pragma once

// Pictures as CLIPImageProcessor makes them ready: RGB, bicubic antialiased resize of the short edge, centre crop, rescale, normalise.

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "config.hpp"

namespace llava {

/// 8-bit RGB, row-major: rgb[(y·width + x)·3 + channel].
struct picture {
  int width = 0, height = 0;
  std::vector<std::uint8_t> rgb;
};

enum class framing { crop, pad };  // pad: first to a square with the mean colour, as the original LLaVA code does

constexpr long most_pixels = 100'000'000;  // of a file, and of what resizing makes of it

/// A PNG or JPEG file as PIL's convert("RGB") makes it: alpha and an orientation are not looked at, of 16 bits the upper 8 count.
/// Refused in one line: other formats, damaged or truncated files, more than `most` pixels (before memory is asked for).
picture read_picture(std::string const& path);
picture read_picture(void const* bytes, std::size_t size, std::string const& name, long most = most_pixels);

/// What the vision tower sees, as a picture (8-bit, before rescaling): crop_width × crop_height.
picture frame(picture const& from, preprocessing const& how, framing framing);

/// [channels, height, width] floats of a framed picture: rescaled and normalised.
std::vector<float> pixel_values(picture const& framed, preprocessing const& how);

/// Bicubic with antialiasing, a = −0.5, rounded to 8 bits after each of two passes: the bits of PIL (Pillow 13).
picture resize(picture const& from, int width, int height);

/// PNG. Throws input_error where the file cannot be written.
void write_png(std::string const& path, picture const& image);
std::vector<std::uint8_t> encode_png(picture const& image);

}  // namespace llava
