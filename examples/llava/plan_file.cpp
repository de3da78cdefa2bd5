// SPDX-License-Identifier: Apache-2.0
#include "plan_file.hpp"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include <mustdrop/budget.hpp>

#include "error.hpp"

namespace llava {

namespace {

using json = nlohmann::json;

[[noreturn]] void refuse(std::string const& path, std::string const& why) { throw input_error(path + ": " + why); }

json const& member(json const& object, char const* key, std::string const& path) {
  if (!object.is_object() || !object.contains(key)) { refuse(path, std::string("\"") + key + "\" is missing"); }
  return object[key];
}

std::int32_t whole(json const& value, char const* what, std::string const& path) {
  constexpr std::int64_t most = 1 << 30;
  bool const fits =
      value.is_number_unsigned() ? value.get<std::uint64_t>() <= most : value.is_number_integer() && value.get<std::int64_t>() >= -most;
  if (!fits) { refuse(path, std::string(what) + " is not a whole number, or too large"); }
  return value.get<std::int32_t>();
}

std::vector<std::int32_t> ascending(json const& list, char const* what, std::string const& path) {
  if (!list.is_array()) { refuse(path, std::string("\"") + what + "\" is not a list"); }
  std::vector<std::int32_t> numbers;
  for (auto const& value : list) {
    std::int32_t const number = whole(value, what, path);
    if (number < 0 || (!numbers.empty() && number <= numbers.back())) {
      refuse(path, std::string("\"") + what + "\" does not ascend from 0");
    }
    numbers.push_back(number);
  }
  return numbers;
}

image_plan read_image(json const& image, std::string const& path) {
  image_plan plan;
  plan.merge = ascending(member(image, "merge", path), "merge", path);
  plan.key_set = ascending(member(image, "key_set", path), "key_set", path);
  if (image.contains("window")) {
    json const& window = image["window"];
    if (!window.is_array() || window.size() != 2) { refuse(path, "\"window\" is not [rows, cols]"); }
    plan.window.rows = whole(window[0], "window", path), plan.window.cols = whole(window[1], "window", path);
    if (!plan.window.valid()) { refuse(path, "\"window\" is no window"); }
  }
  json const& stages = member(image, "stages", path);
  if (!stages.is_array()) { refuse(path, "\"stages\" is not a list"); }
  for (auto const& stage : stages) {
    stage_plan next{whole(member(stage, "layer", path), "layer", path), ascending(member(stage, "keep", path), "keep", path)};
    if (!plan.stages.empty()) {
      auto const& last = plan.stages.back();
      if (next.layer <= last.layer) { refuse(path, "layers of \"stages\" do not ascend"); }
      if (!std::includes(last.keep.begin(), last.keep.end(), next.keep.begin(), next.keep.end())) {
        refuse(path, "a stage keeps what the stage before it dropped");
      }
    }
    plan.stages.push_back(std::move(next));
  }
  return plan;
}

}  // namespace

plan_file read_plan(std::string const& path, merge_place by_default) {
  std::ifstream in(path, std::ios::binary);
  if (!in) { refuse(path, "cannot be read"); }
  std::string const text{std::istreambuf_iterator<char>(in), {}};
  json const root = json::parse(text, nullptr, false);
  if (root.is_discarded()) { refuse(path, "is not JSON"); }
  plan_file plan;
  plan.merge_at = by_default;
  json const& images = member(root, "images", path);
  if (!images.is_array()) { refuse(path, "\"images\" is not a list"); }
  if (root.contains("merge_at")) {
    if (root["merge_at"] != "layer0" && root["merge_at"] != "features") {
      refuse(path, R"("merge_at" is neither "layer0" nor "features")");
    }
    plan.merge_at = root["merge_at"] == "layer0" ? merge_place::layer0 : merge_place::features;
  }
  for (auto const& image : images) { plan.images.push_back(read_image(image, path)); }
  return plan;
}

void write_plan(std::string const& path, plan_file const& plan) {
  json images = json::array();
  for (auto const& image : plan.images) {
    json stages = json::array();
    for (auto const& stage : image.stages) { stages.push_back({{"layer", stage.layer}, {"keep", stage.keep}}); }
    images.push_back(
        {{"window", {image.window.rows, image.window.cols}}, {"merge", image.merge}, {"key_set", image.key_set}, {"stages", stages}});
  }
  json const root{{"merge_at", plan.merge_at == merge_place::layer0 ? "layer0" : "features"}, {"images", images}};
  std::ofstream out(path, std::ios::binary);
  out << root.dump() << '\n';
  out.close();
  if (!out) { refuse(path, "cannot be written"); }
}

void check_plan(image_plan const& plan, mustdrop::token_grid const& grid, int layers, std::string const& path) {
  auto const below = [&](std::vector<std::int32_t> const& list, mustdrop::index_t end, char const* what) {
    if (!list.empty() && list.back() >= end) {
      refuse(path, std::string(what) + " " + std::to_string(list.back()) + " is not below " + std::to_string(end));
    }
  };
  below(plan.merge, plan.window.windows(grid), "window");
  auto const rows = grid.patches() - static_cast<mustdrop::index_t>(plan.merge.size()) * (plan.window.tokens() - 1);
  below(plan.key_set, rows, "key set row");
  for (auto const& stage : plan.stages) {
    if (stage.layer < -1 || stage.layer >= layers) { refuse(path, "there is no layer " + std::to_string(stage.layer)); }
    below(stage.keep, rows, "row");
  }
}

}  // namespace llava
