// SPDX-License-Identifier: Apache-2.0
// llava: pictures and a question in; the answer, and which image tokens stayed, out.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>
#include <string>

#include "error.hpp"
#include "options.hpp"
#include "overlay.hpp"
#include "progress.hpp"
#include "run.hpp"
#include "safetensors.hpp"

namespace {

void print(llava::run_result const& r) {
  auto const& tokens = r.image_tokens;
  std::printf("%s\n\n", r.answer.c_str());
  std::printf("image tokens  %d, %.1f a layer, %d at the end (%s)\n", tokens.total, tokens.average, tokens.final, r.method.c_str());
  std::printf("              layer by layer:");
  for (int const n : tokens.per_layer) { std::printf(" %d", n); }
  std::printf("\ntime          %.1f ms to the first token: vision %.1f, projector %.1f, prefill %.1f, reduction %.2f; then %.2f a token\n",
              r.ttft_ms, r.vision_ms, r.projector_ms, r.prefill_ms, r.reduction_ms, r.decode_ms_per_token);
  std::printf("KV cache      %ld of %ld bytes after the prefill\n", r.kv_bytes_after, r.kv_bytes_before);
  std::printf("FLOPs         %.3g of %.3g up to the first token (%.1f %% fewer)\n", r.flops_spent, r.flops_dense,
              100 * (1 - r.flops_spent / r.flops_dense));
  std::printf("memory        %.1f MB at the most\n", static_cast<double>(r.peak_rss_bytes) / 1e6);
}

struct outputs {
  bool json = false, chat = false;
  std::string logits, overlay, report;
};

void answer(llava::model const& model, llava::request const& request, outputs const& to) {
  llava::conversation conversation(model, request);
  auto const& result = conversation.result();
  if (!to.logits.empty()) { safetensors::write(to.logits, {{"logits", {static_cast<std::int64_t>(result.logits.size())}, result.logits}}); }
  if (!to.overlay.empty()) { llava::write_png(to.overlay, llava::draw_overlay(result)); }
  if (!to.report.empty()) { llava::write_report(to.report, result); }
  if (to.json) {
    std::printf("%s\n", llava::to_json(result).c_str());
  } else {
    print(result);
  }
  bool const terminal = isatty(STDIN_FILENO) != 0;
  for (std::string question; to.chat;) {
    if (terminal) { std::printf("\n> "), std::fflush(stdout); }
    if (!std::getline(std::cin, question)) { break; }
    if (!question.empty()) { std::printf("%s\n", conversation.ask(question).c_str()), std::fflush(stdout); }
  }
}

int run(int argc, char** argv) {
  CLI::App app("Answers a question about pictures with a LLaVA model and drops image tokens on the way.", "llava");
  std::string folder;
  llava::request request;
  outputs to;
  bool pad = false;
  app.add_option("--model", folder, "folder with config.json, model.safetensors (or shards), tokenizer.model")->required();
  app.add_option("--image", request.images, "PNG or JPEG; repeat for several pictures")->required()->expected(1)->take_all();
  app.add_option("--prompt", request.prompt, "a question, or a whole prompt with one <image> for each picture")->required();
  app.add_option("--max-new-tokens", request.max_new_tokens, "default: as the model says")->check(CLI::Range(1, 1 << 20));
  app.add_option("--threads", request.threads)->check(CLI::Range(1, 1024))->capture_default_str();
  app.add_flag("--pad", pad, "pad pictures to a square with the mean colour instead of cropping them");
  app.add_option("--save-plan", request.save_plan, "write which tokens stayed, as --plan reads it");
  app.add_option("--logits", to.logits, "write the logits of the last prompt token (safetensors)");
  app.add_option("--overlay", to.overlay, "write a picture of what stayed (PNG)");
  app.add_option("--report", to.report, "write a page with everything (HTML)");
  app.add_flag("--json", to.json, "print one JSON object");
  app.add_flag("--chat", to.chat, "then answer further questions, a line each, from standard input");
  llava::add_reduction_options(app, request.reduce);
  if (auto const done = llava::parse(app, argc, argv)) { return *done; }
  if (pad) { request.frame = llava::framing::pad; }
  answer(llava::model(folder, llava::show_loading), request, to);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return llava::exit_code("llava", [&] { return run(argc, argv); });
}
