// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "error.hpp"
#include "overlay.hpp"
#include "panels.hpp"

namespace llava {
namespace {

constexpr char const* style = R"(
:root { color-scheme: light dark; --back: #f6f7f9; --card: #ffffff; --ink: #1d2229; --faint: #5c6570; --line: #dde1e6; --bar: #2f7ed8; --bar2: #8fbcec;
  --ghost: #e6e9ed; --mean: #c2570c; --merge: #1596cc; --key: #e07b00; }
@media (prefers-color-scheme: dark) { :root { --back: #14171b; --card: #1d2127; --ink: #e8eaed; --faint: #9aa4b0; --line: #333a43; --bar: #5aa2f0;
  --bar2: #2c5f9e; --ghost: #2a3038; --mean: #ffa657; --merge: #40c4ff; --key: #ff9800; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1200px; margin: 0 auto; padding: 24px 20px 48px; }
header p { margin: 0; color: var(--faint); }
h1 { font-size: 22px; font-weight: 600; margin: 0 0 4px; overflow-wrap: anywhere; white-space: pre-wrap; }
h2 { font-size: 17px; font-weight: 600; margin: 0 0 12px; }
h3 { font-size: 15px; font-weight: 600; margin: 16px 0 8px; }
.answer { font-size: 28px; font-weight: 650; line-height: 1.25; margin: 4px 0 6px; overflow-wrap: anywhere; white-space: pre-wrap; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 18px 20px; margin-top: 18px; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin-top: 18px; }
.facts div { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 12px 16px; }
.facts b { display: block; font-size: 23px; font-weight: 650; line-height: 1.3; font-variant-numeric: tabular-nums; }
.facts span { color: var(--faint); font-size: 14px; }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(250px, 100%), 1fr)); gap: 16px; }
figure { margin: 0; }
figure img { width: 100%; height: auto; display: block; border-radius: 6px; }
figcaption { margin-top: 6px; font-size: 14px; color: var(--faint); }
figcaption b { color: var(--ink); }
.legend { display: flex; flex-wrap: wrap; gap: 6px 20px; margin: 0 0 12px; font-size: 14px; color: var(--faint); }
.legend i { display: inline-block; width: 14px; height: 14px; margin-right: 6px; vertical-align: -2px; background: #c3cbb4; border-radius: 2px; }
.legend .merged { border: 2px solid var(--merge); } .legend .key { border: 3px solid var(--key); }
.legend .dropped { background: repeating-linear-gradient(135deg, #2a2a2a 0 4px, #474747 4px 6px); }
.legend .mean { background: none; border-top: 2px dashed var(--mean); height: 0; vertical-align: 4px; border-radius: 0; }
.tables { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(340px, 100%), 1fr)); gap: 4px 40px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 14px 5px 0; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } th:last-child, td:last-child { padding-right: 0; }
th { font-weight: 500; color: var(--faint); font-size: 14px; }
.tight { width: auto; } .tight th, .tight td { padding-right: 28px; }
pre { margin: 0; font-size: 14px; white-space: pre-wrap; overflow-wrap: anywhere; color: var(--faint); }
svg { display: block; width: 100%; height: auto; min-width: 420px; } svg text { fill: var(--faint); font: 13px system-ui, "DejaVu Sans", sans-serif; }
svg .value { fill: var(--ink); stroke: var(--ghost); stroke-width: 5px; stroke-linejoin: round; paint-order: stroke; }
)";

std::string escaped(std::string const& text) {
  std::string out;
  for (char const c : clean(text)) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      case '\'': out += "&#39;"; break;
      default: out += c;
    }
  }
  return out;
}

std::string base64(std::vector<std::uint8_t> const& bytes) {
  constexpr char const* digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::size_t const here = std::min<std::size_t>(3, bytes.size() - i);
    unsigned group = 0;
    for (std::size_t j = 0; j < 3; ++j) { group = group << 8 | (j < here ? bytes[i + j] : 0u); }
    for (std::size_t j = 0; j < 4; ++j) { out += j <= here ? digits[group >> (18 - 6 * j) & 63] : '='; }
  }
  return out;
}

std::string number(double value, int decimals) {
  if (!std::isfinite(value)) { return "–"; }
  char text[400];
  std::snprintf(text, sizeof text, "%.*f", decimals, value);
  return text;
}

/// Three digits or so: 0.0123, 1.23, 12.3, 123.
std::string short_number(double value) { return number(value, value < 1 ? 3 : value < 10 ? 2 : value < 100 ? 1 : 0); }

/// A count that is not small: 1.23 MB, 45.6 GFLOP.
std::string scaled(double value, char const* unit) {
  static char const* const prefixes[] = {"", "k", "M", "G", "T", "P"};
  int step = 0;
  while (std::fabs(value) >= 1000 && step < 5) { value /= 1000, ++step; }
  return (step == 0 ? number(value, 0) : short_number(value)) + " " + prefixes[step] + unit;
}

std::string milliseconds(double value) { return short_number(value) + " ms"; }

std::string share(double part, double whole) { return whole > 0 ? number(100 * part / whole, 1) + " %" : "–"; }

/// The products of attention_scores in those of a prefill of LLaVA-1.5-7B with this prompt and these image tokens, by arithmetic: all text rows
/// against all keys at four layers, a bound from above, among 32 layers of the tokens that are left.
double share_at_7b(run_result const& r) {
  constexpr double width = 4096, inner = 11008, layers = 32, stages = 4;
  double const text = r.text_tokens, all = text + r.image_tokens.total, left = text + r.image_tokens.average;
  double const layer = 2 * left * (4 * width * width + 3 * width * inner) + 2 * left * left * width;  // causal: half of the pairs
  return stages * 2 * text * all * width / (layers * layer);
}

/// "−88.5 %": how much less AFTER is.
std::string saving(double before, double after) {
  if (!(before > 0)) { return "–"; }
  double const percent = 100 * (1 - after / before);
  return (percent > 0 ? "−" : percent < 0 ? "+" : "") + number(std::fabs(percent), 1) + " %";
}

struct page {
  std::ostringstream out;

  void fact(std::string const& value, std::string const& name) { out << "<div><b>" << value << "</b><span>" << name << "</span></div>\n"; }

  void row(std::vector<std::string> const& cells, bool head = false) {
    char const* const cell = head ? "th" : "td";
    out << "<tr>";
    for (std::string const& text : cells) { out << '<' << cell << '>' << text << "</" << cell << '>'; }
    out << "</tr>\n";
  }

  void figure(picture const& image, std::string const& name, std::string const& caption) {
    out << "<figure><img alt=\"" << name << "\" width=\"" << image.width << "\" height=\"" << image.height
        << "\" src=\"data:image/png;base64," << base64(encode_png(image)) << "\"><figcaption>" << caption << "</figcaption></figure>\n";
  }
};

void facts(page& to, run_result const& r) {
  token_trace const& tokens = r.image_tokens;
  to.out << "<div class=\"facts\">\n";
  to.fact(number(tokens.average, 1), "image tokens a layer, of " + std::to_string(tokens.total));
  to.fact(std::to_string(tokens.final), "image tokens left");
  to.fact(milliseconds(r.ttft_ms), "to the first token");
  to.fact(saving(static_cast<double>(r.kv_bytes_before), static_cast<double>(r.kv_bytes_after)), "KV bytes");
  to.fact(saving(r.flops_dense, r.flops_spent), "FLOPs");
  to.out << "</div>\n";
}

void panels(page& to, run_result const& r) {
  to.out << "<section><h2>What stayed</h2>\n<p class=\"legend\"><span><i></i>kept</span><span><i class=\"merged\"></i>merged into one "
            "token</span>"
            "<span><i class=\"key\"></i>key set</span><span><i class=\"dropped\"></i>dropped</span></p>\n";
  for (int image = 0; image < static_cast<int>(r.pictures.size()); ++image) {
    std::string const name = r.pictures.size() == 1 ? "input" : "input " + std::to_string(image + 1);
    if (r.pictures.size() > 1) { to.out << "<h3>Picture " << image + 1 << "</h3>\n"; }
    to.out << "<div class=\"panels\">\n";
    to.figure(draw_input(r, image), name, "<b>" + name + "</b><br>" + std::to_string(r.side) + " × " + std::to_string(r.side) + " patches");
    for (panel const& panel : r.panels) {
      if (panel.image != image) { continue; }
      panel_counts const n = count_rows(r, panel);
      std::string about = std::to_string(n.alone) + " alone";
      if (n.windows > 0) { about += ", " + std::to_string(n.windows) + " merged"; }
      if (n.key > 0) { about += "; " + std::to_string(n.key) + " of them key"; }
      if (n.dropped > 0) { about += "; " + std::to_string(n.dropped) + " patches dropped"; }
      std::string const stage = escaped(panel.stage);
      std::string caption = "<b>" + stage;
      caption.append(": ").append(std::to_string(n.rows())).append(n.rows() == 1 ? " token" : " tokens").append("</b><br>").append(about);
      to.figure(draw_panel(r, panel), stage, caption);
    }
    to.out << "</div>\n";
  }
  to.out << "</section>\n";
}

void numbers(page& to, run_result const& r) {
  double const before = static_cast<double>(r.kv_bytes_before), after = static_cast<double>(r.kv_bytes_after);
  to.out << "<section><h2>Numbers</h2>\n<div class=\"tables\">\n<div class=\"scroll\"><table>\n";
  to.row({"time", "", "of the first token"}, true);
  to.row({"vision tower", milliseconds(r.vision_ms), share(r.vision_ms, r.ttft_ms)});
  to.row({"projector", milliseconds(r.projector_ms), share(r.projector_ms, r.ttft_ms)});
  to.row({"prefill", milliseconds(r.prefill_ms), share(r.prefill_ms, r.ttft_ms)});
  to.row({"first token", milliseconds(r.ttft_ms), ""});
  to.row({"each further token", milliseconds(r.decode_ms_per_token), ""});
  to.row({"reduction", milliseconds(r.reduction_ms), share(r.reduction_ms, r.prefill_ms) + " of the prefill"});
  if (r.method == "mustdrop") { to.row({"reduction at 7B, by arithmetic", "", number(100 * share_at_7b(r), 3) + " % of the prefill"}); }
  to.out << "</table></div>\n<div class=\"scroll\"><table>\n";
  to.row({"cost", "all tokens", "in fact", ""}, true);
  to.row({"FLOPs", scaled(r.flops_dense, "FLOP"), scaled(r.flops_spent, "FLOP"), saving(r.flops_dense, r.flops_spent)});
  to.row({"KV cache", scaled(before, "B"), scaled(after, "B"), saving(before, after)});
  to.row({"peak memory", "", scaled(static_cast<double>(r.peak_rss_bytes), "B"), ""});
  to.out << "</table></div>\n</div>\n<h3>Image tokens</h3>\n<div class=\"scroll\"><table class=\"tight\">\n";
  to.row({"", "patches", "a layer, on average", "counted after pruning", "left"}, true);
  auto const trace = [&](std::string const& name, token_trace const& t) {
    to.row({name, std::to_string(t.total), number(t.average, 1), number(t.average_papers, 1), std::to_string(t.final)});
  };
  for (std::size_t i = 0; r.per_image.size() > 1 && i < r.per_image.size(); ++i) {
    trace("picture " + std::to_string(i + 1), r.per_image[i]);
  }
  trace(r.per_image.size() > 1 ? "together" : "picture", r.image_tokens);
  to.out << "</table></div>\n</section>\n";
}

/// Bars: what each language layer ran on, stacked by picture, before a ghost of all the patches; dashed: the mean.
void chart(page& to, run_result const& r) {
  token_trace const& all = r.image_tokens;
  int const layers = static_cast<int>(all.per_layer.size());
  if (layers == 0) { return; }
  constexpr double left = 64, top = 24, width = 820, height = 220, right = left + width, bottom = top + height;
  int const most = std::max({1, all.total, *std::max_element(all.per_layer.begin(), all.per_layer.end())});
  auto const y_of = [&](double tokens) { return bottom - height * tokens / most; };
  double const step = width / layers, bar = step * 0.76;
  int const every = std::max(1, (layers + 15) / 16);  // labels that do not touch

  to.out << "<section><h2>Image tokens that each language layer ran on</h2>\n<p class='legend'><span><i style='background:var(--bar)'></i>"
         << (r.per_image.size() > 1 ? "ran on, first picture at the bottom" : "ran on")
         << "</span><span><i style='background:var(--ghost)'></i>all patches</span><span><i class='mean'></i>mean over the layers, "
         << number(all.average, 1)
         << "</span></p>\n<div class='scroll'><svg viewBox='0 0 900 298' role='img' aria-label='Image tokens by layer'>\n";
  for (int quarter = 0; quarter <= 4; ++quarter) {
    double const y = y_of(most * quarter / 4.0);
    to.out << "<line x1='" << left << "' x2='" << right << "' y1='" << y << "' y2='" << y << "' stroke='var(--line)'/><text x='" << left - 8
           << "' y='" << y + 4 << "' text-anchor='end'>" << number(most * quarter / 4.0, 0) << "</text>\n";
  }
  auto const rect = [&](double x, double from, double to_tokens, char const* fill) {
    to.out << "<rect x='" << x << "' y='" << y_of(to_tokens) << "' width='" << bar << "' height='" << y_of(from) - y_of(to_tokens)
           << "' fill='" << fill << "'/>";
  };
  for (int layer = 0; layer < layers; ++layer) {
    auto const l = static_cast<std::size_t>(layer);
    double const x = left + step * layer + (step - bar) / 2;
    to.out << "<g><title>layer " << layer << ": " << all.per_layer[l] << " tokens</title>";
    rect(x, 0, all.total, "var(--ghost)");
    int from = 0;
    for (std::size_t image = 0; r.per_image.size() > 1 && image < r.per_image.size(); ++image) {
      if (l >= r.per_image[image].per_layer.size()) { continue; }
      int const next = from + r.per_image[image].per_layer[l];
      rect(x, from, next, image % 2 == 0 ? "var(--bar)" : "var(--bar2)");
      from = next;
    }
    if (from == 0) { rect(x, 0, all.per_layer[l], "var(--bar)"); }
    if (layer % every == 0) {
      to.out << "<text x='" << x + bar / 2 << "' y='" << bottom + 18 << "' text-anchor='middle'>" << layer << "</text>";
    }
    to.out << "</g>\n";
  }
  double const mean = y_of(all.average);
  to.out << "<line x1='" << left << "' x2='" << right << "' y1='" << mean << "' y2='" << mean
         << "' stroke='var(--mean)' stroke-width='2' stroke-dasharray='6 5'/>\n";
  for (int layer = 0; layers <= 16 && layer < layers; ++layer) {  // over the dashes
    int const tokens = all.per_layer[static_cast<std::size_t>(layer)];
    to.out << "<text class='value' x='" << left + step * (layer + 0.5) << "' y='" << y_of(tokens) - 6 << "' text-anchor='middle'>" << tokens
           << "</text>\n";
  }
  to.out << "<text x='" << (left + right) / 2 << "' y='" << bottom + 44
         << "' text-anchor='middle'>language layer</text>\n<text transform='translate(16 " << (top + bottom) / 2
         << ") rotate(-90)' text-anchor='middle'>image tokens</text>\n</svg></div></section>\n";
}

}  // namespace

std::string question_of(std::string const& prompt) {
  std::string text = prompt;
  auto const erase = [&](std::string const& word) {
    for (std::size_t at; (at = text.find(word)) != std::string::npos;) { text.erase(at, word.size()); }
  };
  if (text.rfind("USER:", 0) == 0) { text.erase(0, 5); }
  erase("<image>");
  std::string const end = "ASSISTANT:";
  if (text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0) { text.resize(text.size() - end.size()); }
  std::size_t const first = text.find_first_not_of(" \n\t"), last = text.find_last_not_of(" \n\t");
  return first == std::string::npos ? "" : text.substr(first, last - first + 1);
}

void write_report(std::string const& path, run_result const& result) {
  page to;
  std::string const question = escaped(question_of(result.prompt)), answer = escaped(result.answer), method = escaped(result.method);
  to.out << "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
            "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>"
         << method << ": " << question << "</title>\n<style>" << style << "</style>\n</head>\n<body>\n<main>\n<header>\n<h1>" << question
         << "</h1>\n<div class=\"answer\">" << answer << "</div>\n<p>" << escaped(result.model) << " · " << method << " · "
         << result.pictures.size() << (result.pictures.size() == 1 ? " picture" : " pictures") << ", " << result.text_tokens
         << " text tokens</p>\n</header>\n";
  facts(to, result);
  panels(to, result);
  chart(to, result);
  numbers(to, result);
  to.out << "<section><h2>Prompt</h2>\n<pre>" << escaped(result.prompt) << "</pre></section>\n</main>\n</body>\n</html>\n";

  std::ofstream file(path, std::ios::binary);
  file << to.out.str() << std::flush;
  if (!file) { throw input_error(path + ": cannot be written"); }
}

}  // namespace llava
