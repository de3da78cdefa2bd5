// SPDX-License-Identifier: Apache-2.0
#include <nlohmann/json.hpp>

#include "overlay.hpp"
#include "panels.hpp"

namespace llava {
namespace {

using json = nlohmann::ordered_json;

json of(token_trace const& trace) {
  return {{"total", trace.total},
          {"average", trace.average},
          {"average_papers", trace.average_papers},
          {"final", trace.final},
          {"per_layer", trace.per_layer}};
}

json of(panel const& panel) {
  return {{"image", panel.image},   {"stage", panel.stage}, {"kept", panel.kept},
          {"merged", panel.merged}, {"key", panel.key},     {"dropped", panel.dropped}};
}

}  // namespace

std::string clean(std::string const& text) {
  std::string const quoted = nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  std::string out;
  for (char const c : nlohmann::json::parse(quoted).get<std::string>()) {
    bool const control = (static_cast<unsigned char>(c) < 0x20 && c != '\t' && c != '\n') || c == 0x7F;
    out += control ? std::string("\xEF\xBF\xBD") : std::string(1, c);
  }
  return out;
}

std::string to_json(run_result const& result) {
  json image_tokens = of(result.image_tokens);
  image_tokens["per_image"] = json::array();
  for (token_trace const& trace : result.per_image) { image_tokens["per_image"].push_back(of(trace)); }
  json panels = json::array();
  for (panel const& panel : result.panels) { panels.push_back(of(panel)); }

  json const out = {{"answer", result.answer},
                    {"method", result.method},
                    {"model", result.model},
                    {"prompt", result.prompt},
                    {"answer_ids", result.answer_ids},
                    {"text_tokens", result.text_tokens},
                    {"image_tokens", image_tokens},
                    {"panels", panels},
                    {"ttft_ms", result.ttft_ms},
                    {"ms",
                     {{"vision", result.vision_ms},
                      {"projector", result.projector_ms},
                      {"prefill", result.prefill_ms},
                      {"decode_per_token", result.decode_ms_per_token},
                      {"reduction", result.reduction_ms}}},
                    {"kv_bytes", {{"before", result.kv_bytes_before}, {"after", result.kv_bytes_after}}},
                    {"flops", {{"dense", result.flops_dense}, {"spent", result.flops_spent}}},
                    {"peak_rss_bytes", result.peak_rss_bytes}};
  return out.dump(-1, ' ', false, json::error_handler_t::replace);
}

}  // namespace llava
