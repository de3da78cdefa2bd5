// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <numeric>
#include <set>
#include <string>

#include <nlohmann/json.hpp>

#include "error.hpp"
#include "overlay.hpp"
#include "panels.hpp"

namespace {

using json = nlohmann::json;

constexpr int side = 24;

llava::picture plain(int width, std::uint8_t value) {
  llava::picture out{width, width, {}};
  out.rgb.assign(static_cast<std::size_t>(width * width) * 3, value);
  return out;
}

/// One light grey picture: rows 0–2 of patches are eight merged windows (the first is key), patch (10, 10) is key, rows 12 and below are gone.
llava::run_result sample(int width = 96, std::uint8_t value = 200) {
  llava::run_result out;
  out.prompt = "USER: <image>\nwhat is at the top? ASSISTANT:";
  out.answer = "a moon";
  out.method = "mustdrop";
  out.model = "tiny";
  out.answer_ids = {5, 6, 2};
  out.side = side;
  out.pictures = {plain(width, value)};
  out.image_tokens = {576, 101.5, 80.25, 224, {224, 200, 100}};
  out.per_image = {out.image_tokens};
  out.text_tokens = 12;
  out.ttft_ms = 41.5;
  out.vision_ms = 20.25, out.projector_ms = 1.5, out.prefill_ms = 16, out.decode_ms_per_token = 0.75, out.reduction_ms = 0.5;
  out.kv_bytes_before = 4000, out.kv_bytes_after = 1000;
  out.flops_dense = 3e12, out.flops_spent = 0.75e12;
  out.peak_rss_bytes = 123456789;
  llava::panel stage;
  stage.stage = "layer 0";
  for (int patch = 0; patch < side * side; ++patch) {
    int const row = patch / side;
    (row < 3 ? stage.merged : row < 12 ? stage.kept : stage.dropped).push_back(patch);
  }
  for (int const first : {0, 24, 48}) { stage.key.insert(stage.key.end(), {first, first + 1, first + 2}); }
  stage.key.push_back(10 * side + 10);
  out.panels = {stage};
  return out;
}

struct pixel {
  int r, g, b;

  int sum() const { return r + g + b; }
  bool grey() const { return r == g && g == b; }
};

pixel at(llava::picture const& image, int x, int y) {
  auto const* p = &image.rgb.at((static_cast<std::size_t>(y) * static_cast<std::size_t>(image.width) + static_cast<std::size_t>(x)) * 3);
  return {p[0], p[1], p[2]};
}

/// Pixel (x, y) of patch (row, col).
pixel in_patch(llava::picture const& panel, int row, int col, int x, int y) {
  int const patch = panel.width / side;
  return at(panel, col * patch + x, row * patch + y);
}

std::string read(std::filesystem::path const& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::size_t count(std::string const& text, std::string const& word) {
  std::size_t found = 0;
  for (std::size_t at = text.find(word); at != std::string::npos; at = text.find(word, at + word.size())) { ++found; }
  return found;
}

struct folder {
  std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("llava_show_" + std::string(testing::UnitTest::GetInstance()->current_test_info()->name()));

  folder() { std::filesystem::create_directories(path); }
  ~folder() { std::filesystem::remove_all(path); }
  folder(folder const&) = delete;
  folder& operator=(folder const&) = delete;
};

std::string report_of(llava::run_result const& result) {
  folder const here;
  llava::write_report((here.path / "report.html").string(), result);
  return read(here.path / "report.html");
}

// Panels ------------------------------------------------------------------------------------------------------------------------------

TEST(panel, is_enlarged_by_a_whole_number_to_about_384_pixels) {
  EXPECT_EQ(llava::draw_input(sample(96), 0).width, 384);
  EXPECT_EQ(llava::draw_input(sample(336), 0).width, 336);
  EXPECT_EQ(llava::draw_input(sample(48), 0).width, 384);
  EXPECT_EQ(llava::draw_input(sample(672), 0).width, 672);
}

TEST(panel, enlarging_repeats_pixels) {
  llava::run_result result = sample();
  for (std::size_t i = 0; i < result.pictures[0].rgb.size(); ++i) { result.pictures[0].rgb[i] = static_cast<std::uint8_t>(i * 7 % 251); }
  llava::picture const drawn = llava::draw_input(result, 0);
  for (int y = 0; y < 384; y += 5) {
    for (int x = 0; x < 384; x += 5) { ASSERT_EQ(at(drawn, x, y).g, at(result.pictures[0], x / 4, y / 4).g) << x << ' ' << y; }
  }
}

TEST(panel, survivors_are_as_in_the_picture_and_dropped_patches_darker) {
  for (int const width : {96, 336}) {
    llava::run_result const result = sample(width);
    llava::picture const drawn = llava::draw_panel(result, result.panels[0]);
    int const patch = drawn.width / side;
    for (int y = 0; y < patch; ++y) {
      for (int x = 0; x < patch; ++x) {
        ASSERT_EQ(in_patch(drawn, 5, 5, x, y).sum(), 600) << "a survivor";
        ASSERT_LT(in_patch(drawn, 20, 5, x, y).sum(), 300) << "a dropped patch";
        ASSERT_TRUE(in_patch(drawn, 20, 5, x, y).grey());
      }
    }
  }
}

TEST(panel, a_dropped_patch_of_a_black_picture_is_hatched_and_a_survivor_is_not) {
  llava::run_result const result = sample(96, 0);
  llava::picture const drawn = llava::draw_panel(result, result.panels[0]);
  std::set<int> dropped, survivor;
  for (int i = 0; i < 16; ++i) {
    dropped.insert(in_patch(drawn, 20, 5, i, 3).r);
    survivor.insert(in_patch(drawn, 5, 5, i, 3).r);
  }
  EXPECT_EQ(dropped.size(), 2u);
  EXPECT_EQ(survivor, std::set<int>{0});
}

TEST(panel, merged_windows_have_a_blue_outline_around_the_window_and_none_within) {
  for (int const width : {96, 336}) {
    llava::run_result const result = sample(width);
    llava::picture const drawn = llava::draw_panel(result, result.panels[0]);
    int const patch = drawn.width / side, middle = patch / 2;
    // Window 1: columns 3–5, rows 0–2. Its line is one pixel inside its edge.
    for (pixel const p : {in_patch(drawn, 1, 3, 1, middle), in_patch(drawn, 1, 5, patch - 2, middle), in_patch(drawn, 0, 4, middle, 1),
                          in_patch(drawn, 2, 4, middle, patch - 2)}) {
      EXPECT_GT(p.b, p.r + 100);
    }
    for (int i = 0; i < patch; ++i) { EXPECT_EQ(in_patch(drawn, 1, 4, i, middle).sum(), 600) << "in the middle of the window"; }
    EXPECT_EQ(in_patch(drawn, 1, 3, patch - 1, middle).sum(), 600) << "between two patches of one window";
    EXPECT_EQ(in_patch(drawn, 5, 5, 1, middle).sum(), 600) << "a patch alone has no outline";
  }
}

TEST(panel, the_key_set_has_an_orange_outline_a_window_around_its_edge) {
  for (int const width : {96, 336}) {
    llava::run_result const result = sample(width);
    llava::picture const drawn = llava::draw_panel(result, result.panels[0]);
    int const middle = drawn.width / side / 2;
    for (pixel const p : {in_patch(drawn, 10, 10, 1, middle), in_patch(drawn, 10, 10, middle, 1), in_patch(drawn, 1, 0, 1, middle)}) {
      EXPECT_GT(p.r, p.b + 100);
    }
    EXPECT_EQ(in_patch(drawn, 10, 10, middle, middle).sum(), 600) << "its picture is still seen";
    EXPECT_EQ(in_patch(drawn, 1, 1, middle, middle).sum(), 600);
    EXPECT_EQ(in_patch(drawn, 1, 0, drawn.width / side - 1, middle).sum(), 600) << "no line within the key window";
  }
}

TEST(panel, counts_rows_not_patches) {
  llava::run_result const result = sample();
  llava::panel_counts const counts = llava::count_rows(result, result.panels[0]);
  EXPECT_EQ(counts.alone, 9 * 24);
  EXPECT_EQ(counts.windows, 8);
  EXPECT_EQ(counts.rows(), 9 * 24 + 8);
  EXPECT_EQ(counts.key, 2) << "one window and one patch";
  EXPECT_EQ(counts.dropped, 12 * 24);
}

TEST(panel, windows_cut_by_the_edge_are_counted_once) {
  llava::run_result result = sample();
  result.window_rows = 2, result.window_cols = 5;  // 12 × 5 windows, those at the right 4 wide
  llava::panel all;
  all.merged.resize(576);
  std::iota(all.merged.begin(), all.merged.end(), 0);
  EXPECT_EQ(llava::count_rows(result, all).windows, 60);
}

TEST(panel, a_patch_outside_the_grid_is_refused) {
  llava::run_result result = sample();
  result.panels[0].kept.push_back(576);
  EXPECT_THROW(llava::draw_panel(result, result.panels[0]), std::out_of_range);
  result = sample();
  result.panels[0].image = 1;
  EXPECT_THROW(llava::draw_overlay(result), std::out_of_range);
}

// Overlay -----------------------------------------------------------------------------------------------------------------------------

/// Pixels darker than grey in a box: what is written there.
int ink(llava::picture const& image, int left, int top, int width, int height) {
  int found = 0;
  for (int y = top; y < top + height; ++y) {
    for (int x = left; x < left + width; ++x) { found += at(image, x, y).sum() < 200 ? 1 : 0; }
  }
  return found;
}

TEST(overlay, has_the_input_and_a_panel_a_stage_side_by_side_with_captions) {
  llava::run_result const result = sample();
  llava::picture const drawn = llava::draw_overlay(result), panel = llava::draw_panel(result, result.panels[0]);
  ASSERT_EQ(drawn.rgb.size(), static_cast<std::size_t>(drawn.width) * static_cast<std::size_t>(drawn.height) * 3);
  ASSERT_EQ(drawn.width, 20 + 384 + 20 + 384 + 20);
  constexpr int top = 20 + 64, second = 20 + 384 + 20;
  for (int y = 0; y < 384; ++y) {
    for (int x = 0; x < 384; ++x) {
      ASSERT_EQ(at(drawn, 20 + x, top + y).sum(), 600) << "the input";
      ASSERT_EQ(at(drawn, second + x, top + y).r, at(panel, x, y).r) << "the stage";
    }
  }
  EXPECT_GT(ink(drawn, second, top + 384 + 4, 384, 24), 100) << "stage and count";
  EXPECT_GT(ink(drawn, 20, top + 384 + 4, 384, 24), 50) << "input";
  EXPECT_GT(ink(drawn, 20, 16, 384, 24), 100) << "question and answer";
}

TEST(overlay, captions_change_with_the_count) {
  llava::run_result result = sample();
  llava::picture const before = llava::draw_overlay(result);
  result.panels[0].dropped.push_back(result.panels[0].kept.back());
  result.panels[0].kept.pop_back();
  llava::picture const after = llava::draw_overlay(result);
  constexpr int caption = 20 + 64 + 384;
  int changed = 0;
  for (int y = caption; y < caption + 60; ++y) {
    for (int x = 0; x < before.width; ++x) { changed += at(before, x, y).sum() != at(after, x, y).sum() ? 1 : 0; }
  }
  EXPECT_GT(changed, 0);
}

TEST(overlay, has_a_row_a_picture_and_breaks_many_stages_into_even_rows) {
  llava::run_result result = sample();
  int const one = llava::draw_overlay(result).height;
  result.pictures.push_back(plain(96, 90));
  result.panels.push_back(result.panels[0]);
  result.panels.back().image = 1;
  llava::picture const two = llava::draw_overlay(result);
  EXPECT_EQ(two.height, one + 384 + 60);
  EXPECT_EQ(at(two, 20, 20 + 64 + 384 + 60).sum(), 270) << "the second picture";

  result = sample();
  result.panels.assign(7, result.panels[0]);  // with the input 8 cells: 2 rows of 4
  llava::picture const many = llava::draw_overlay(result);
  EXPECT_EQ(many.width, 20 + 4 * 384 + 3 * 20 + 20);
  EXPECT_EQ(many.height, one + 384 + 60);
}

TEST(overlay, any_text_and_no_panels_are_drawn) {
  llava::run_result result = sample(336);
  result.answer = std::string("\x01\xFF\xC3\xA9 moon\n", 10) + std::string(5000, 'W');
  result.panels[0].stage = std::string(3000, 'x');
  llava::picture const drawn = llava::draw_overlay(result);
  EXPECT_EQ(ink(drawn, drawn.width - 20, 0, 20, drawn.height), 0) << "text ends before the margin";
  result.panels.clear();
  EXPECT_GT(llava::draw_overlay(result).width, 336);
  result.pictures.clear();
  EXPECT_GT(llava::draw_overlay(result).width, 0);
}

// JSON --------------------------------------------------------------------------------------------------------------------------------

TEST(json_output, has_every_key_with_the_value_of_the_result) {
  llava::run_result const result = sample();
  json const got = json::parse(llava::to_json(result));
  json const trace = {{"total", 576}, {"average", 101.5}, {"average_papers", 80.25}, {"final", 224}, {"per_layer", {224, 200, 100}}};
  json image_tokens = trace;
  image_tokens["per_image"] = json::array({trace});
  llava::panel const& stage = result.panels[0];
  json const want = {{"answer", "a moon"},
                     {"method", "mustdrop"},
                     {"model", "tiny"},
                     {"prompt", result.prompt},
                     {"answer_ids", {5, 6, 2}},
                     {"text_tokens", 12},
                     {"image_tokens", image_tokens},
                     {"panels",
                      {{{"image", 0},
                        {"stage", "layer 0"},
                        {"kept", stage.kept},
                        {"merged", stage.merged},
                        {"key", stage.key},
                        {"dropped", stage.dropped}}}},
                     {"ttft_ms", 41.5},
                     {"ms", {{"vision", 20.25}, {"projector", 1.5}, {"prefill", 16.0}, {"decode_per_token", 0.75}, {"reduction", 0.5}}},
                     {"kv_bytes", {{"before", 4000}, {"after", 1000}}},
                     {"flops", {{"dense", 3e12}, {"spent", 0.75e12}}},
                     {"peak_rss_bytes", 123456789}};
  EXPECT_EQ(got, want) << json::diff(want, got).dump(1);
}

TEST(json_output, empty_lists_are_lists_and_it_is_one_line) {
  std::string const text = llava::to_json({});
  EXPECT_EQ(text.find('\n'), std::string::npos);
  json const got = json::parse(text);
  for (char const* key : {"/panels", "/answer_ids", "/image_tokens/per_layer", "/image_tokens/per_image"}) {
    EXPECT_EQ(got.at(json::json_pointer(key)), json::array()) << key;
  }
}

TEST(json_output, any_text_and_any_number_give_valid_json) {
  llava::run_result result = sample();
  result.answer = std::string("\"\\\n\0\x1f\x7f</script>", 15) + "\xFF\xC3 \xF0\x9F\x8C\x99";
  result.ttft_ms = std::numeric_limits<double>::quiet_NaN();
  result.flops_dense = std::numeric_limits<double>::infinity();
  json const got = json::parse(llava::to_json(result));
  EXPECT_EQ(got["answer"], std::string("\"\\\n\0\x1f\x7f</script>", 15) + "\xEF\xBF\xBD\xEF\xBF\xBD \xF0\x9F\x8C\x99");
  EXPECT_TRUE(got["ttft_ms"].is_null());
  EXPECT_TRUE(got["flops"]["dense"].is_null());
}

// Report ------------------------------------------------------------------------------------------------------------------------------

TEST(report, says_answer_tokens_times_and_bytes) {
  std::string const page = report_of(sample());
  for (char const* text :
       {"what is at the top?", "a moon", "mustdrop", "layer 0: 224 tokens", "20.2 ms", "41.5 ms", "3.1 % of the prefill", "4.00 kB",
        "1.00 kB", "−75.0 %", "3.00 TFLOP", "750 GFLOP", "123 MB", "image tokens", "language layer", "prefers-color-scheme: dark"}) {
    EXPECT_NE(page.find(text), std::string::npos) << text;
  }
}

TEST(report, has_a_bar_a_layer_and_a_picture_a_panel) {
  llava::run_result result = sample();
  std::string const page = report_of(result);
  EXPECT_EQ(count(page, "<figure>"), 2u);
  EXPECT_EQ(count(page, "<title>layer "), 3u);
  EXPECT_NE(page.find("<title>layer 1: 200 tokens</title>"), std::string::npos);
  result.pictures.push_back(plain(96, 90));
  result.per_image.push_back(result.per_image[0]);
  result.panels.push_back(result.panels[0]);
  result.panels.back().image = 1;
  EXPECT_EQ(count(report_of(result), "<figure>"), 4u);
}

TEST(report, pictures_are_png_in_base64) {
  std::string const page = report_of(sample()), start = "src=\"data:image/png;base64,";
  std::size_t const from = page.find(start) + start.size(), to = page.find('"', from);
  std::string const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::vector<std::uint8_t> bytes;
  unsigned group = 0, bits = 0;
  for (std::size_t i = from; i < to && page[i] != '='; ++i) {
    group = group << 6 | static_cast<unsigned>(digits.find(page[i])), bits += 6;
    if (bits >= 8) { bits -= 8, bytes.push_back(static_cast<std::uint8_t>(group >> bits)); }
  }
  EXPECT_EQ(bytes, llava::encode_png(llava::draw_input(sample(), 0)));
}

TEST(report, needs_no_other_file_and_no_script) {
  std::string const page = report_of(sample());
  for (char const* text : {"http:", "https:", "<script", "<link", "@import", "url("}) {
    EXPECT_EQ(page.find(text), std::string::npos) << text;
  }
}

TEST(report, text_from_outside_is_escaped) {
  llava::run_result result = sample();
  std::string const attack = "</title><script>alert('1' & \"2\")</script>";
  result.prompt = result.answer = result.model = result.method = attack;
  result.panels[0].stage = "\"><img src=x onerror=alert(1)>";
  std::string const page = report_of(result);
  EXPECT_EQ(page.find("<script"), std::string::npos);
  EXPECT_EQ(page.find("<img src=x"), std::string::npos);
  EXPECT_EQ(count(page, "</title>"), 1 + result.image_tokens.per_layer.size());
  EXPECT_NE(page.find("&lt;script&gt;alert(&#39;1&#39; &amp; &quot;2&quot;)"), std::string::npos);
}

TEST(report, is_valid_utf8_whatever_the_answer) {
  llava::run_result result = sample();
  result.answer = std::string("\xFF\xC3(\0\x02 moon", 10);
  std::string const page = report_of(result);
  EXPECT_NO_THROW(json(page).dump()) << "dump refuses invalid UTF-8";
  EXPECT_EQ(page.find('\0'), std::string::npos);
  EXPECT_EQ(page.find('\x02'), std::string::npos);
}

TEST(report, nothing_measured_and_not_finite_is_a_dash) {
  llava::run_result result = sample();
  result.ttft_ms = std::numeric_limits<double>::quiet_NaN();
  result.prefill_ms = 0, result.kv_bytes_before = 0;
  std::string const page = report_of(result);
  EXPECT_EQ(page.find("nan"), std::string::npos);
  EXPECT_EQ(page.find("inf"), std::string::npos);
  EXPECT_NE(page.find("<b>– ms</b>"), std::string::npos);
  EXPECT_NO_THROW(report_of({}));
}

TEST(report, a_file_that_cannot_be_written_is_named) {
  try {
    llava::write_report("/nonexistent/report.html", sample());
    FAIL();
  } catch (llava::input_error const& error) { EXPECT_STREQ(error.what(), "/nonexistent/report.html: cannot be written"); }
}

TEST(question, is_what_stands_between_the_words_of_the_template) {
  EXPECT_EQ(llava::question_of("USER: <image>\nwhat is it? ASSISTANT:"), "what is it?");
  EXPECT_EQ(llava::question_of("USER: <image>\n<image>\nsame? ASSISTANT:"), "same?");
  EXPECT_EQ(llava::question_of("<image> plain"), "plain");
  EXPECT_EQ(llava::question_of("USER: <image>\n ASSISTANT:"), "");
  EXPECT_EQ(llava::question_of(""), "");
}

}  // namespace
