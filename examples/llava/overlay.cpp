// SPDX-License-Identifier: Apache-2.0
#include "overlay.hpp"

#include <stb/stb_easy_font.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "panels.hpp"

namespace llava {
namespace {

using colour = std::array<std::uint8_t, 3>;

constexpr colour paper{255, 255, 255}, ink{32, 36, 42}, faint{110, 118, 129};
constexpr colour merge_blue{64, 196, 255}, merge_edge{0, 56, 92}, key_orange{255, 160, 0}, key_edge{96, 32, 0};
constexpr int panel_width = 384, text_scale = 2;
constexpr int margin = 20, gap = 20, caption_height = 60, panels_in_a_row = 5;

/// A picture that rectangles and text are put on; what lies outside is cut off.
struct canvas {
  picture image;

  canvas(int width, int height, colour background) : image{width, height, {}} {
    image.rgb.resize(static_cast<std::size_t>(width) * static_cast<std::size_t>(height) * 3);
    fill(0, 0, width, height, background);
  }

  explicit canvas(picture start) : image(std::move(start)) {}

  std::uint8_t* at(int x, int y) {
    return &image.rgb[(static_cast<std::size_t>(y) * static_cast<std::size_t>(image.width) + static_cast<std::size_t>(x)) * 3];
  }

  void fill(int left, int top, int width, int height, colour with) {
    for (int y = std::max(top, 0); y < std::min(top + height, image.height); ++y) {
      for (int x = std::max(left, 0); x < std::min(left + width, image.width); ++x) { std::copy(with.begin(), with.end(), at(x, y)); }
    }
  }

  void outline(int left, int top, int width, int height, int thickness, colour with) {
    fill(left, top, width, thickness, with);
    fill(left, top + height - thickness, width, thickness, with);
    fill(left, top, thickness, height, with);
    fill(left + width - thickness, top, thickness, height, with);
  }

  void put(int left, int top, picture const& other) {
    for (int y = 0; y < std::min(other.height, image.height - top); ++y) {
      auto const row = static_cast<std::size_t>(std::min(other.width, image.width - left)) * 3;
      std::memcpy(at(left, top + y), &other.rgb[static_cast<std::size_t>(y) * static_cast<std::size_t>(other.width) * 3], row);
    }
  }

  /// One line; returns where it ends.
  int text(int left, int top, std::string line, colour with);
};

/// The font has the printable characters of ASCII only.
std::string printable(std::string const& line) {
  std::string out;
  for (char const c : line) {
    if ((static_cast<unsigned char>(c) & 0xC0) == 0x80) { continue; }  // one mark for a character of several bytes
    out += c >= ' ' && c <= '~' ? c : (c == '\n' || c == '\t' ? ' ' : '?');
  }
  return out;
}

int text_width(std::string line) { return stb_easy_font_width(line.data()) * text_scale; }

/// Cut to WIDTH pixels.
std::string fitted(std::string const& line, int width) {
  std::string out = printable(line);
  if (text_width(out) <= width) { return out; }
  while (!out.empty() && text_width(out + "...") > width) { out.pop_back(); }
  return out + "...";
}

int canvas::text(int left, int top, std::string line, colour with) {
  line = printable(line);
  struct vertex {
    float x, y, z;
    std::uint8_t colour[4];
  };
  std::vector<vertex> quads(line.size() * 20 * 4 + 4);  // a character needs about 270 bytes: 4.2 quads; the widest 15
  int const count = stb_easy_font_print(0, 0, line.data(), nullptr, quads.data(), static_cast<int>(quads.size() * sizeof(vertex)));
  for (int q = 0; q < count; ++q) {
    vertex const& first = quads[static_cast<std::size_t>(q) * 4];
    vertex const& last = quads[static_cast<std::size_t>(q) * 4 + 2];
    int const x = static_cast<int>(first.x) * text_scale, y = static_cast<int>(first.y) * text_scale;
    fill(left + x, top + y, static_cast<int>(last.x) * text_scale - x, static_cast<int>(last.y) * text_scale - y, with);
  }
  return left + text_width(line);
}

picture enlarge(picture const& from, int times) {
  picture out{from.width * times, from.height * times, {}};
  out.rgb.reserve(static_cast<std::size_t>(out.width) * static_cast<std::size_t>(out.height) * 3);
  for (int y = 0; y < out.height; ++y) {
    for (int x = 0; x < out.width; ++x) {
      auto const* pixel =
          &from.rgb[(static_cast<std::size_t>(y / times) * static_cast<std::size_t>(from.width) + static_cast<std::size_t>(x / times)) * 3];
      out.rgb.insert(out.rgb.end(), pixel, pixel + 3);
    }
  }
  return out;
}

/// For each patch: the region that it belongs to (its window if merged, itself if alone), or −1 where it is gone.
std::vector<int> regions_of(run_result const& result, panel const& panel) {
  int const side = result.side, patches = side * side;
  std::vector<int> region(static_cast<std::size_t>(patches), -1);
  for (int const patch : panel.kept) { region.at(static_cast<std::size_t>(patch)) = patch; }
  int const window_rows = std::max(1, result.window_rows), window_cols = std::max(1, result.window_cols);
  int const windows_across = (side + window_cols - 1) / window_cols;
  for (int const patch : panel.merged) {
    int const window = patch / side / window_rows * windows_across + patch % side / window_cols;
    region.at(static_cast<std::size_t>(patch)) = patches + window;
  }
  return region;
}

/// Grey, dark, and hatched, so that a dark part of the picture is not taken for a dropped one, nor the other way round.
void dim(canvas& on, int left, int top, int size) {
  for (int y = top; y < top + size; ++y) {
    for (int x = left; x < left + size; ++x) {
      std::uint8_t* pixel = on.at(x, y);
      int const grey = (pixel[0] * 77 + pixel[1] * 150 + pixel[2] * 29) / 256;
      int const value = grey * 28 / 100 + ((x + y) % 8 < 2 ? 28 : 4);
      std::fill(pixel, pixel + 3, static_cast<std::uint8_t>(value));
    }
  }
}

struct pen {
  colour edge, line;  // one pixel along the region's edge, and inside it what is seen: together they stand out on any background
  int thickness;      // of both
};

/// Lines along the inner edge of every region for which `drawn` holds.
template <class Drawn>
void outline_regions(canvas& on, std::vector<int> const& region, int side, int patch, pen const& with, Drawn drawn) {
  auto const of = [&](int row, int col) {
    return row < 0 || col < 0 || row >= side || col >= side ? -1 : region[static_cast<std::size_t>(row * side + col)];
  };
  std::pair<int, colour> const strokes[] = {{with.thickness, with.line}, {1, with.edge}};
  for (auto const& [wide, ink_of] : strokes) {
    for (int row = 0; row < side; ++row) {
      for (int col = 0; col < side; ++col) {
        int const own = of(row, col), x = col * patch, y = row * patch;
        if (own < 0 || !drawn(own)) { continue; }
        if (of(row - 1, col) != own) { on.fill(x, y, patch, wide, ink_of); }
        if (of(row + 1, col) != own) { on.fill(x, y + patch - wide, patch, wide, ink_of); }
        if (of(row, col - 1) != own) { on.fill(x, y, wide, patch, ink_of); }
        if (of(row, col + 1) != own) { on.fill(x + patch - wide, y, wide, patch, ink_of); }
      }
    }
  }
}

enum class mark { alone, merged, key, dropped };

/// A small patch that looks as such patches do in the panels; returns where text beside it begins.
int swatch(canvas& on, int left, int top, mark which) {
  constexpr int size = 16;
  on.fill(left, top, size, size, {188, 196, 176});
  if (which == mark::merged) { on.outline(left, top, size, size, 2, merge_blue); }
  if (which == mark::key) { on.outline(left, top, size, size, 3, key_orange); }
  if (which == mark::dropped) { dim(on, left, top, size); }
  on.outline(left - 1, top - 1, size + 2, size + 2, 1, faint);
  return left + size + 8;
}

void caption(canvas& on, int left, int top, int width, run_result const& result, panel const& panel) {
  panel_counts const counts = count_rows(result, panel);
  std::string const tokens = std::to_string(counts.rows()) + (counts.rows() == 1 ? " token" : " tokens");
  on.text(left, top, fitted(panel.stage, width - text_width(": " + tokens)) + ": " + tokens, ink);
  int x = left;
  std::pair<mark, int> const marks[] = {
      {mark::alone, counts.alone}, {mark::merged, counts.windows}, {mark::key, counts.key}, {mark::dropped, counts.dropped}};
  for (auto const& [which, count] : marks) {
    if (count > 0) { x = on.text(swatch(on, x + 1, top + 26, which), top + 27, std::to_string(count), faint) + 16; }
  }
}

int legend(canvas& on, int left, int top) {
  int x = left;
  std::pair<mark, char const*> const marks[] = {
      {mark::alone, "kept"}, {mark::merged, "merged window"}, {mark::key, "key set"}, {mark::dropped, "dropped"}};
  for (auto const& [which, name] : marks) { x = on.text(swatch(on, x + 1, top, which), top + 1, name, ink) + 24; }
  return x;
}

}  // namespace

panel_counts count_rows(run_result const& result, panel const& panel) {
  std::vector<int> const region = regions_of(result, panel);
  std::set<int> windows, keys;
  for (int const patch : panel.merged) { windows.insert(region[static_cast<std::size_t>(patch)]); }
  for (int const patch : panel.key) { keys.insert(region.at(static_cast<std::size_t>(patch))); }
  keys.erase(-1);
  return {static_cast<int>(panel.kept.size()), static_cast<int>(windows.size()), static_cast<int>(keys.size()),
          static_cast<int>(panel.dropped.size())};
}

picture draw_input(run_result const& result, int image) {
  picture const& from = result.pictures.at(static_cast<std::size_t>(image));
  return enlarge(from, std::max(1, (panel_width + from.width / 2) / std::max(1, from.width)));
}

picture draw_panel(run_result const& result, panel const& panel) {
  canvas on(draw_input(result, panel.image));
  int const side = std::max(1, result.side), patch = std::min(on.image.width, on.image.height) / side;
  std::vector<int> const region = regions_of(result, panel);
  std::set<int> keys;
  for (int const key : panel.key) { keys.insert(region.at(static_cast<std::size_t>(key))); }
  for (int row = 0; row < side; ++row) {
    for (int col = 0; col < side; ++col) {
      if (region[static_cast<std::size_t>(row * side + col)] < 0) { dim(on, col * patch, row * patch, patch); }
    }
  }
  outline_regions(on, region, side, patch, {merge_edge, merge_blue, 3},
                  [&](int own) { return own >= side * side && keys.count(own) == 0; });
  outline_regions(on, region, side, patch, {key_edge, key_orange, 4}, [&](int own) { return keys.count(own) != 0; });
  return on.image;
}

picture draw_overlay(run_result const& result) {
  int const pictures = static_cast<int>(result.pictures.size());
  std::vector<std::vector<panel const*>> stages(static_cast<std::size_t>(pictures));
  for (panel const& panel : result.panels) { stages.at(static_cast<std::size_t>(panel.image)).push_back(&panel); }

  std::vector<picture> inputs;
  int most = 1, across = 1, down = 1;
  for (int image = 0; image < pictures; ++image) {
    inputs.push_back(draw_input(result, image));
    most = std::max(most, 1 + static_cast<int>(stages[static_cast<std::size_t>(image)].size()));
    across = std::max(across, inputs.back().width);
    down = std::max(down, inputs.back().height);
  }
  int const lines = (most + panels_in_a_row - 1) / panels_in_a_row;  // of one picture
  int const columns = (most + lines - 1) / lines;                    // as even as they come
  int const head = 64, foot = 52, cell = down + caption_height;
  int const legend_width = canvas(1, 1, paper).text(0, 0, "kept merged window key set dropped", ink) + 4 * 60;
  int const width = std::max(2 * margin + columns * across + (columns - 1) * gap, 2 * margin + legend_width);
  canvas on(width, margin + head + pictures * lines * cell + foot, paper);

  std::string const totals = result.method + ": " + std::to_string(result.image_tokens.total) + " image tokens, " +
                             std::to_string(result.image_tokens.final) + " left";
  on.text(margin, margin, fitted(question_of(result.prompt) + " - " + result.answer, width - 2 * margin), ink);
  on.text(margin, margin + 26, fitted(totals, width - 2 * margin), faint);
  for (int image = 0; image < pictures; ++image) {
    auto const& row = stages[static_cast<std::size_t>(image)];
    for (int i = 0; i < 1 + static_cast<int>(row.size()); ++i) {
      int const left = margin + i % columns * (across + gap), top = margin + head + (image * lines + i / columns) * cell;
      if (i == 0) {
        on.put(left, top, inputs[static_cast<std::size_t>(image)]);
        on.text(left, top + down + 8, pictures == 1 ? "input" : "input " + std::to_string(image + 1), ink);
      } else {
        panel const& stage = *row[static_cast<std::size_t>(i) - 1];
        on.put(left, top, draw_panel(result, stage));
        caption(on, left, top + down + 8, across, result, stage);
      }
    }
  }
  legend(on, margin, on.image.height - foot + 10);
  return on.image;
}

}  // namespace llava
