// SPDX-License-Identifier: Apache-2.0

// PNG and JPEG through libpng and libjpeg. Both report errors by longjmp: functions that call setjmp hold no object with a destructor,
// and what the libraries call back throws nothing.

#include <csetjmp>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <new>
#include <stdexcept>

#include <jerror.h>
#include <jpeglib.h>
#include <png.h>

#include "error.hpp"
#include "image.hpp"
#include "json_file.hpp"
#include "safetensors.hpp"

namespace llava {
namespace {

/// What is read from, what is written to, and why that ended.
struct source {
  unsigned char const* bytes;
  std::size_t size, place = 0;
  long most;
  picture to;
  char why[JMSG_LENGTH_MAX] = "";

  bool fail(char const* text) {
    std::snprintf(why, sizeof why, "%s", text);
    return false;
  }
  bool accepts(unsigned long width, unsigned long height) {
    if (width == 0 || height == 0) { return fail("no pixels"); }
    if (width > static_cast<unsigned long>(most) || height > static_cast<unsigned long>(most) / width) {
      std::snprintf(why, sizeof why, "%lu by %lu pixels are more than %ld", width, height, most);
      return false;
    }
    to.width = static_cast<int>(width), to.height = static_cast<int>(height);
    return true;
  }
};

void png_failed(png_structp png, png_const_charp why) {
  static_cast<source*>(png_get_error_ptr(png))->fail(why);
  png_longjmp(png, 1);
}
void png_warned(png_structp, png_const_charp) {}

void png_read(png_structp png, png_bytep to, std::size_t size) {
  auto* const from = static_cast<source*>(png_get_io_ptr(png));
  if (size > from->size - from->place) { png_error(png, "the file ends too early"); }
  std::memcpy(to, from->bytes + from->place, size);
  from->place += size;
}

/// Deflate makes at most 1032 bytes of one: a short file that promises many pixels is not worth their memory.
bool png_can_hold(source const& from, std::size_t row_bytes) {
  constexpr std::size_t most_ratio = 1032;
  return row_bytes / most_ratio <= from.size / static_cast<std::size_t>(from.to.height);
}

bool read_png_rows(png_structp png, png_infop info, source& from) {
  if (setjmp(png_jmpbuf(png)) != 0) { return false; }
  png_set_read_fn(png, &from, png_read);
  png_read_info(png, info);
  if (!from.accepts(png_get_image_width(png, info), png_get_image_height(png, info))) { return false; }
  if (!png_can_hold(from, png_get_rowbytes(png, info))) { return from.fail("the file ends too early"); }
  int const colour = png_get_color_type(png, info), depth = png_get_bit_depth(png, info);
  if (depth == 16) {
    // PIL keeps 16-bit greys and clips them at 255 where it converts to RGB; of other 16-bit pictures it takes the upper bytes, as here.
    png_set_strip_16(png);
  }
  if (colour == PNG_COLOR_TYPE_PALETTE) { png_set_palette_to_rgb(png); }  // with alpha if it has a tRNS
  if ((colour & ~PNG_COLOR_MASK_ALPHA) == PNG_COLOR_TYPE_GRAY) {
    png_set_expand_gray_1_2_4_to_8(png);
    png_set_gray_to_rgb(png);
  }
  png_set_strip_alpha(png);
  int const passes = png_set_interlace_handling(png);
  png_read_update_info(png, info);
  std::size_t const row = 3 * static_cast<std::size_t>(from.to.width);
  if (png_get_rowbytes(png, info) != row) { return from.fail("a kind of picture that is not known"); }
  from.to.rgb.resize(row * static_cast<std::size_t>(from.to.height));
  for (int pass = 0; pass < passes; ++pass) {
    for (std::size_t y = 0; y < static_cast<std::size_t>(from.to.height); ++y) { png_read_row(png, from.to.rgb.data() + y * row, nullptr); }
  }
  png_read_end(png, nullptr);
  return true;
}

bool read_png(source& from) {
  png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &from, png_failed, png_warned);
  png_infop info = png != nullptr ? png_create_info_struct(png) : nullptr;
  bool const read = info != nullptr ? read_png_rows(png, info, from) : from.fail("no memory");
  png_destroy_read_struct(&png, &info, nullptr);
  return read;
}

/// libjpeg's decompressor with its way out; what libjpeg calls finds both through the address of the first member.
struct jpeg_reader {
  jpeg_decompress_struct state;
  jpeg_error_mgr errors;
  jpeg_progress_mgr progress;
  std::jmp_buf out;
  source* from;
};

void jpeg_failed(j_common_ptr state) {
  auto* const reader = reinterpret_cast<jpeg_reader*>(state);
  if (reader->from->why[0] == '\0') { state->err->format_message(state, reader->from->why); }
  std::longjmp(reader->out, 1);
}

/// A warning (level −1) is about damaged data, which libjpeg would go on from; only bytes that are too many do no harm.
void jpeg_said(j_common_ptr state, int level) {
  if (level >= 0 || state->err->msg_code == JWRN_EXTRANEOUS_DATA) { return; }
  if (state->err->msg_code == JWRN_JPEG_EOF) { reinterpret_cast<jpeg_reader*>(state)->from->fail("the file ends too early"); }
  jpeg_failed(state);
}
void jpeg_silent(j_common_ptr) {}

/// A small progressive file can ask for thousands of passes over a large picture.
void jpeg_counts_scans(j_common_ptr state) {
  constexpr int most = 500;
  if (reinterpret_cast<j_decompress_ptr>(state)->input_scan_number > most) {
    reinterpret_cast<jpeg_reader*>(state)->from->fail("too many scans");
    jpeg_failed(state);
  }
}

/// Inverted, as Adobe's programs write it and PIL reads it: 255 is no ink. What is left of white, times the ink of black.
void rgb_of_cmyk(unsigned char const* from, std::uint8_t* to, std::size_t width, bool inverted) {
  for (std::size_t x = 0; x < width; ++x, from += 4) {
    for (std::size_t channel = 0; channel < 3; ++channel) {
      unsigned const ink = inverted ? 255U - from[channel] : from[channel], white = inverted ? from[3] : 255U - from[3];
      unsigned const product = ink * white + 128;  // / 255, rounded
      *to++ = static_cast<std::uint8_t>(white - (((product >> 8) + product) >> 8));
    }
  }
}

bool read_jpeg_rows(jpeg_reader& reader, source& from) {
  jpeg_decompress_struct& state = reader.state;
  if (setjmp(reader.out) != 0) { return false; }
  jpeg_create_decompress(&state);
  state.progress = &reader.progress;
  jpeg_mem_src(&state, from.bytes, static_cast<unsigned long>(from.size));
  jpeg_read_header(&state, TRUE);
  if (!from.accepts(state.image_width, state.image_height)) { return false; }
  bool const inks = state.jpeg_color_space == JCS_CMYK || state.jpeg_color_space == JCS_YCCK;
  state.out_color_space = inks ? JCS_CMYK : JCS_RGB;
  jpeg_start_decompress(&state);
  std::size_t const width = static_cast<std::size_t>(from.to.width), row = 3 * width;
  JSAMPARRAY const line =
      state.mem->alloc_sarray(reinterpret_cast<j_common_ptr>(&state), JPOOL_IMAGE, static_cast<JDIMENSION>(4 * width), 1);
  from.to.rgb.reserve(row * static_cast<std::size_t>(from.to.height));  // touched only as far as there are lines
  while (state.output_scanline < state.output_height) {
    jpeg_read_scanlines(&state, line, 1);
    std::size_t const end = from.to.rgb.size();
    from.to.rgb.resize(end + row);
    if (inks) {
      rgb_of_cmyk(line[0], from.to.rgb.data() + end, width, state.saw_Adobe_marker != 0);
    } else {
      std::memcpy(from.to.rgb.data() + end, line[0], row);
    }
  }
  jpeg_finish_decompress(&state);
  return true;
}

bool read_jpeg(source& from) {
  jpeg_reader reader{};
  reader.from = &from;
  reader.state.err = jpeg_std_error(&reader.errors);
  reader.errors.error_exit = jpeg_failed;
  reader.errors.emit_message = jpeg_said;
  reader.errors.output_message = jpeg_silent;
  reader.progress.progress_monitor = jpeg_counts_scans;
  bool const read = read_jpeg_rows(reader, from);
  jpeg_destroy_decompress(&reader.state);
  return read;
}

struct sink {
  std::vector<std::uint8_t> bytes;
  bool no_memory = false;
};

void png_write(png_structp png, png_bytep from, std::size_t size) {
  auto* const to = static_cast<sink*>(png_get_io_ptr(png));
  try {
    to->bytes.insert(to->bytes.end(), from, from + size);
  } catch (std::bad_alloc const&) { to->no_memory = true; }
  if (to->no_memory) { png_error(png, "no memory"); }
}
void png_flushed(png_structp) {}

bool write_png_rows(png_structp png, png_infop info, picture const& image, sink& to) {
  if (setjmp(png_jmpbuf(png)) != 0) { return false; }
  png_set_write_fn(png, &to, png_write, png_flushed);
  png_set_IHDR(png, info, static_cast<png_uint_32>(image.width), static_cast<png_uint_32>(image.height), 8, PNG_COLOR_TYPE_RGB,
               PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  png_write_info(png, info);
  std::size_t const row = 3 * static_cast<std::size_t>(image.width);
  for (std::size_t y = 0; y < static_cast<std::size_t>(image.height); ++y) { png_write_row(png, image.rgb.data() + y * row); }
  png_write_end(png, nullptr);
  return true;
}

}  // namespace

picture read_picture(void const* bytes, std::size_t size, std::string const& name, long most) {
  constexpr unsigned char png_mark[] = {0x89, 'P', 'N', 'G'}, jpeg_mark[] = {0xff, 0xd8, 0xff};
  source from{static_cast<unsigned char const*>(bytes), size, 0, most, {}};
  auto const begins = [&](auto const& mark) { return size >= sizeof mark && std::memcmp(bytes, mark, sizeof mark) == 0; };
  if (size == 0) { throw input_error(name + ": the file is empty"); }
  if (!begins(png_mark) && !begins(jpeg_mark)) { throw input_error(name + ": neither PNG nor JPEG"); }
  bool const is_png = begins(png_mark);
  if (!(is_png ? read_png(from) : read_jpeg(from))) {
    throw input_error(name + ": not a " + (is_png ? "PNG" : "JPEG") + " picture that can be read: " + safetensors::printable(from.why));
  }
  return std::move(from.to);
}

picture read_picture(std::string const& path) {
  constexpr std::size_t most = std::size_t{1} << 30;
  std::vector<unsigned char> const bytes = read_file(path, most);
  return read_picture(bytes.data(), bytes.size(), path);
}

std::vector<std::uint8_t> encode_png(picture const& image) {
  sink to;
  source errors{nullptr, 0, 0, 0, {}};
  png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &errors, png_failed, png_warned);
  png_infop info = png != nullptr ? png_create_info_struct(png) : nullptr;
  bool const written = info != nullptr ? write_png_rows(png, info, image, to) : errors.fail("no memory");
  png_destroy_write_struct(&png, &info);
  if (!written) { throw std::runtime_error(std::string("PNG: ") + errors.why); }
  return std::move(to.bytes);
}

void write_png(std::string const& path, picture const& image) {
  std::vector<std::uint8_t> const bytes = encode_png(image);
  std::ofstream out(path, std::ios::binary);
  out.write(reinterpret_cast<char const*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  out.close();
  if (!out) { throw input_error(path + ": cannot be written"); }
}

}  // namespace llava
