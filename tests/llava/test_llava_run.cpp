// SPDX-License-Identifier: Apache-2.0
#include "run.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>

#include "dense_llama.hpp"
#include "error.hpp"
#include "folder.hpp"
#include "safetensors.hpp"

namespace md = mustdrop;

namespace {

using json = nlohmann::json;
using floats = std::vector<float>;

std::string const goldens = LLAVA_DATA "/golden";

llava::model const& tiny() {
  static llava::model const model(LLAVA_TINY);
  return model;
}

llava::request a_question(llava::method method, int tokens) {
  llava::request r;
  r.images = {goldens + "/images/scene_0.png"};
  r.prompt = "what is at the right?";
  r.reduce.method = method, r.reduce.tokens = tokens;
  return r;
}

bool same_bits(floats const& a, floats const& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

double furthest(floats const& a, floats const& b) {
  double most = a.size() == b.size() ? 0 : INFINITY;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    most = std::max(most, std::fabs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  }
  return most;
}

std::string temporary(char const* name) {
  return (std::filesystem::path(testing::TempDir()) / (std::to_string(getpid()) + "_" + name)).string();
}

/// What transformers said, of one case.
struct golden {
  std::string name, prompt, answer;
  llava::request request;
  safetensors::file file;

  floats of(char const* tensor) const { return safetensors::elements<float>(file, file.tensors.at(tensor)); }
};

std::vector<golden> golden_cases() {
  std::vector<golden> cases;
  std::ifstream in(goldens + "/cases.json");
  for (auto const& c : json::parse(in)) {
    golden g;
    g.name = c["name"], g.prompt = c["prompt"];
    for (auto const& image : c["images"]) { g.request.images.push_back(goldens + "/" + image.get<std::string>()); }
    g.request.prompt = g.prompt;
    g.file = safetensors::read(goldens + "/" + g.name + ".safetensors");
    g.answer = g.file.metadata.at("answer");
    cases.push_back(std::move(g));
  }
  return cases;
}

TEST(LlavaRun, LogitsAndAnswersAreThoseOfTransformers) {
  auto const cases = golden_cases();
  ASSERT_GE(cases.size(), 15u);
  for (auto const& c : cases) {
    SCOPED_TRACE(c.name);
    auto const result = llava::run(tiny(), c.request);
    EXPECT_LE(furthest(result.logits, c.of("logits")), 1e-3);  // float32 on both sides, sums in another order
    auto const ids = safetensors::elements<std::int64_t>(c.file, c.file.tensors.at("answer_ids"));
    EXPECT_EQ(std::vector<std::int64_t>(result.answer_ids.begin(), result.answer_ids.end()), ids);
    EXPECT_EQ(result.answer, c.answer);
  }
}

TEST(LlavaRun, TheTowerSeesWhatTransformersSees) {
  int compared = 0;
  for (auto const& c : golden_cases()) {
    if (c.file.tensors.count("vision_features") == 0) { continue; }
    SCOPED_TRACE(c.name);
    auto const pixels = c.of("pixel_values"), features = c.of("vision_features"), attention = c.of("cls_attention");
    std::size_t const pictures = c.request.images.size(), heads = 3, patches = 576;
    for (std::size_t i = 0; i < pictures; ++i) {
      llava::computer on(1);
      llava::sight_options look;
      look.cls_attention = true;
      auto const begin = pixels.begin() + static_cast<std::ptrdiff_t>(i * pixels.size() / pictures);
      auto const seen = llava::see(on, tiny().settings, tiny().weights.vision,
                                   {begin, begin + static_cast<std::ptrdiff_t>(pixels.size() / pictures)}, look);
      floats const got(seen.features.data(), seen.features.data() + seen.features.size());
      auto const wanted = features.begin() + static_cast<std::ptrdiff_t>(i * features.size() / pictures);
      EXPECT_LE(furthest(got, {wanted, wanted + static_cast<std::ptrdiff_t>(got.size())}), 1e-3);
      floats mean(patches);
      for (std::size_t h = 0; h < heads; ++h) {
        for (std::size_t p = 0; p < patches; ++p) { mean[p] += attention[(i * heads + h) * patches + p] / static_cast<float>(heads); }
      }
      EXPECT_LE(furthest(seen.cls_attention, mean), 1e-5);
      ++compared;
    }
  }
  EXPECT_GE(compared, 5);
}

TEST(LlavaRun, WithEveryTokenKeptMustDropHasTheBitsOfNone) {
  auto const none = llava::run(tiny(), a_question(llava::method::none, 0));
  auto all = a_question(llava::method::mustdrop, 0);
  all.reduce.merge_threshold = 2;  // no cosine is that high
  all.reduce.global_threshold = all.reduce.individual_threshold = 0;
  auto const by_thresholds = llava::run(tiny(), all);
  EXPECT_EQ(by_thresholds.image_tokens.final, 576);
  EXPECT_TRUE(same_bits(by_thresholds.logits, none.logits));
  EXPECT_EQ(by_thresholds.answer_ids, none.answer_ids);

  json keep = json::array();
  for (int row = 0; row < 576; ++row) { keep.push_back(row); }
  json const stages = {{{"layer", 0}, {"keep", keep}}, {{"layer", 3}, {"keep", keep}}};
  std::string const path = temporary("all.json");
  std::ofstream(path) << json{{"images", {{{"merge", json::array()}, {"key_set", {5, 7}}, {"stages", stages}}}}};
  auto planned = a_question(llava::method::mustdrop, 0);
  planned.reduce.plan = path;
  auto const by_plan = llava::run(tiny(), planned);
  EXPECT_TRUE(same_bits(by_plan.logits, none.logits));
  EXPECT_EQ(by_plan.kv_bytes_after, none.kv_bytes_after);
}

/// Stages without a merge, drawn at random: what a dense run with masks must agree with.
json random_stages(unsigned seed, std::vector<int> const& layers) {
  std::mt19937 random(seed);
  std::vector<int> left(576);
  std::iota(left.begin(), left.end(), 0);
  json stages = json::array();
  for (int const layer : layers) {
    std::shuffle(left.begin(), left.end(), random);
    left.resize(left.size() / 2);
    std::sort(left.begin(), left.end());
    stages.push_back({{"layer", layer}, {"keep", left}});
  }
  return stages;
}

TEST(LlavaRun, DroppingEqualsMaskingInADenseRun) {
  auto const& settings = tiny().settings;
  auto request = a_question(llava::method::mustdrop, 0);
  llava::computer on(1);
  double vision = 0, projector = 0;
  auto const pixels =
      llava::pixel_values(llava::frame(llava::read_picture(request.images[0]), tiny().prepare, request.frame), tiny().prepare);
  auto const image = llava::prepare_picture(on, settings, tiny().weights, pixels, {}, 0, nullptr, vision, projector);
  auto const prompt = tiny().words.encode(llava::in_template(request.prompt, 1));
  auto const place = std::find(prompt.begin(), prompt.end(), settings.image_token) - prompt.begin();
  long const rows = static_cast<long>(prompt.size()) - 1 + 576;
  dense::matrix x(rows, settings.text.hidden);
  llava::matrix const text = llava::embed_tokens(tiny().weights.text, prompt);
  x << text.topRows(place).cast<double>(), image.rows.cast<double>(), text.bottomRows(text.rows() - place - 1).cast<double>();
  std::vector<int> positions(static_cast<std::size_t>(rows));
  std::iota(positions.begin(), positions.end(), 0);

  unsigned seed = 7;
  for (std::vector<int> const& layers : {std::vector<int>{0}, {1, 3}, {-1, 2}, {0, 1, 2, 3, 4}}) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    json const stages = random_stages(seed++, layers);
    std::string const path = temporary("stages.json");
    std::ofstream(path) << json{{"images", {{{"merge", json::array()}, {"key_set", json::array()}, {"stages", stages}}}}};
    request.reduce.plan = path;
    auto const dropped = llava::run(tiny(), request);

    std::vector<std::vector<char>> alive(static_cast<std::size_t>(settings.text.layers),
                                         std::vector<char>(static_cast<std::size_t>(rows), 1));
    for (auto const& stage : stages) {
      std::vector<char> kept(576);
      for (auto const& row : stage["keep"]) { kept[row] = 1; }
      for (std::size_t l = static_cast<std::size_t>(stage["layer"].get<int>() + 1); l < alive.size(); ++l) {
        std::copy(kept.begin(), kept.end(), alive[l].begin() + place);
      }
    }
    auto const masked = dense::prefill(settings.text, tiny().weights.text, x, positions, alive);
    EXPECT_LE(furthest(dropped.logits, floats(masked.begin(), masked.end())), 1e-4);  // float against double: sums of ≤ 611 terms
  }
}

TEST(LlavaRun, ABudgetIsMetForEveryPictureInEveryReading) {
  for (auto const reading : {llava::token_reading::ran_on, llava::token_reading::papers, llava::token_reading::end}) {
    for (int const tokens : {320, 192, 128, 64}) {
      for (auto const& stages : {std::vector<int>{}, {0}, {0, 1, 2, 3}}) {
        auto request = a_question(llava::method::mustdrop, tokens);
        request.images.push_back(goldens + "/images/easy_0.png");
        request.max_new_tokens = 1;
        request.reduce.reading = reading, request.reduce.prune_after = stages;
        auto const r = llava::run(tiny(), request);
        ASSERT_EQ(r.per_image.size(), 2u);
        for (auto const& image : r.per_image) {
          double const mean = std::accumulate(image.per_layer.begin(), image.per_layer.end(), 0.0) / 6;
          EXPECT_DOUBLE_EQ(image.average, mean);
          double const met = reading == llava::token_reading::ran_on   ? image.average
                             : reading == llava::token_reading::papers ? image.average_papers
                                                                       : image.final;
          EXPECT_LE(met, tokens);
          EXPECT_TRUE(std::is_sorted(image.per_layer.rbegin(), image.per_layer.rend()));
        }
      }
    }
  }
}

TEST(LlavaRun, EveryMethodKeepsToItsBudget) {
  for (auto const method : {llava::method::random, llava::method::pooling, llava::method::before}) {
    for (int const tokens : {1, 64, 100, 128, 192, 400, 576, 1000}) {
      if (method == llava::method::pooling && tokens == 1) { continue; }  // the next test
      auto request = a_question(method, tokens);
      request.max_new_tokens = 1;
      auto const r = llava::run(tiny(), request);
      EXPECT_LE(r.image_tokens.average, tokens);
      if (method != llava::method::pooling) { EXPECT_EQ(r.image_tokens.final, std::min(tokens, 576)); }
      if (method == llava::method::pooling) { EXPECT_GE(r.image_tokens.final, std::min(tokens, 576) * 9 / 10); }
      EXPECT_EQ(r.image_tokens.final, static_cast<int>(r.image_tokens.average));
    }
  }
}

TEST(LlavaRun, PanelsHaveEveryPatchOnce) {
  for (auto const method :
       {llava::method::none, llava::method::mustdrop, llava::method::random, llava::method::pooling, llava::method::before}) {
    auto request = a_question(method, 64);
    request.max_new_tokens = 1;
    auto const r = llava::run(tiny(), request);
    ASSERT_FALSE(r.panels.empty());
    for (auto const& panel : r.panels) {
      std::vector<int> all = panel.kept, shown;
      all.insert(all.end(), panel.merged.begin(), panel.merged.end());
      shown = all;
      all.insert(all.end(), panel.dropped.begin(), panel.dropped.end());
      std::sort(all.begin(), all.end()), std::sort(shown.begin(), shown.end());
      std::vector<int> each(576);
      std::iota(each.begin(), each.end(), 0);
      EXPECT_EQ(all, each) << r.method << " " << panel.stage;
      EXPECT_TRUE(std::includes(shown.begin(), shown.end(), panel.key.begin(), panel.key.end()));
    }
    int const shown = static_cast<int>(r.panels.back().kept.size() + r.panels.back().merged.size());
    EXPECT_GE(shown, r.image_tokens.final);
  }
}

TEST(LlavaRun, TheCacheHoldsSurvivorsOnly) {
  constexpr long slot = 2 * 2 * 32 * 4;  // K and V, two heads of 32 floats
  auto request = a_question(llava::method::mustdrop, 64);
  auto const all_layers = llava::run(tiny(), request);
  EXPECT_EQ(all_layers.kv_bytes_before, 6 * (all_layers.text_tokens + 576) * slot);
  EXPECT_EQ(all_layers.kv_bytes_after, 6 * (all_layers.text_tokens + all_layers.image_tokens.final) * slot);
  request.reduce.kv_first_layer = 2;
  auto const released = llava::run(tiny(), request);
  auto const& ran = released.image_tokens.per_layer;
  EXPECT_EQ(released.kv_bytes_after, (6 * released.text_tokens + ran[0] + ran[1] + 4 * released.image_tokens.final) * slot);
  EXPECT_TRUE(same_bits(released.logits, all_layers.logits));
  request.reduce.kv_policy = md::evict_policy::key_set_only;
  request.reduce.kv_first_layer = 0;
  auto const keys = llava::run(tiny(), request);
  EXPECT_EQ(keys.kv_bytes_after, 6 * (keys.text_tokens + static_cast<long>((ran[0] * 8 + 99) / 100)) * slot);
}

TEST(LlavaRun, DecodeStaysWithinItsBudgetAndWithEnoughRoomChangesNothing) {
  auto request = a_question(llava::method::mustdrop, 128);
  request.prompt = "describe the image.";
  auto const plain = llava::run(tiny(), request);
  request.reduce.kv_policy = md::evict_policy::output_aware;
  request.reduce.kv_budget = 10000;
  EXPECT_EQ(llava::run(tiny(), request).answer_ids, plain.answer_ids);
  request.reduce.kv_budget = plain.text_tokens + 40;
  auto const evicted = llava::run(tiny(), request);
  EXPECT_FALSE(evicted.answer_ids.empty());
}

TEST(LlavaRun, ASavedPlanGivesTheSameBitsAgain) {
  for (auto const place : {llava::merge_place::layer0, llava::merge_place::features}) {
    auto request = a_question(llava::method::mustdrop, 64);
    request.reduce.merge_at = place, request.reduce.prune_after = {0, 2};
    request.save_plan = temporary("saved.json");
    auto const first = llava::run(tiny(), request);
    auto again = a_question(llava::method::mustdrop, 0);
    again.reduce.plan = request.save_plan;
    auto const second = llava::run(tiny(), again);
    EXPECT_TRUE(same_bits(first.logits, second.logits));
    EXPECT_EQ(first.image_tokens.per_layer, second.image_tokens.per_layer);
  }
}

TEST(LlavaRun, ResultsDoNotDependOnThreads) {
  auto request = a_question(llava::method::mustdrop, 128);
  auto const one = llava::run(tiny(), request);
  for (int const threads : {2, 3, 7}) {
    request.threads = threads;
    auto const more = llava::run(tiny(), request);
    EXPECT_TRUE(same_bits(one.logits, more.logits)) << threads;
    EXPECT_EQ(one.answer_ids, more.answer_ids);
  }
}

class CheckpointRun : public llava_test::folder_test {};

TEST_F(CheckpointRun, EveryLayoutAndTypeOfTheRealModelGivesTheSameBits) {
  floats first;
  for (std::string const kind :
       {"old --type f16 --shards 3", "new --type bf16 --shards 3", "v5 --type f16 --shards 3", "v5 --type f32 --shards 1"}) {
    SCOPED_TRACE(kind);
    std::string const to = path("model"), script = std::string(LLAVA_SCRIPTS) + "/make_checkpoint.py";
    std::filesystem::remove_all(to);
    ASSERT_EQ(std::system(("python3 '" + script + "' '" + to + "' --layout " + kind).c_str()), 0);
    llava::model const made(to);
    auto request = a_question(llava::method::mustdrop, 60);
    request.max_new_tokens = 2;
    auto const result = llava::run(made, request);
    EXPECT_LE(result.image_tokens.average, 60);
    if (first.empty()) { first = result.logits; }
    EXPECT_TRUE(same_bits(result.logits, first));
  }
}

TEST(LlavaRun, FlopsOfNoneAreThoseOfTheDenseModel) {
  auto const none = llava::run(tiny(), a_question(llava::method::none, 0));
  EXPECT_NEAR(none.flops_spent / none.flops_dense, 1, 1e-12);  // sums of whole numbers, in another order
  auto const dropped = llava::run(tiny(), a_question(llava::method::mustdrop, 64));
  EXPECT_EQ(dropped.flops_dense, none.flops_dense);
  EXPECT_LT(dropped.flops_spent, 0.5 * none.flops_spent);
}

TEST(LlavaRun, ConversationsGoOn) {
  auto const request = a_question(llava::method::mustdrop, 192);
  llava::conversation conversation(tiny(), request);
  std::string const first = conversation.result().answer;
  EXPECT_FALSE(first.empty());
  EXPECT_NO_THROW(conversation.ask("is there a pig?"));
  EXPECT_THROW(
      {
        for (int turn = 0; turn < 200; ++turn) { conversation.ask("is there a pig?"); }
      },
      llava::input_error);  // at the end of the model's positions
}

TEST(LlavaRun, AttentionKeepsNoMapOfTheSequence) {
  constexpr long length = 12288;  // a map of f32 would be 604 MB
  pid_t const child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    llava::matrix const x = llava::matrix::Constant(length, 8, 0.5f);
    llava::matrix out;
    llava::computer on(2);
    rusage before{}, after{};
    getrusage(RUSAGE_SELF, &before);
    llava::attend(on, {llava::by_head(x, 1), llava::by_head(x, 1), llava::by_head(x, 1), 1, true}, out);
    getrusage(RUSAGE_SELF, &after);
    bool const small = after.ru_maxrss - before.ru_maxrss < 100 * 1024;  // kilobytes
    _exit(small && std::fabs(out(length - 1, 0) - 0.5f) < 1e-5f ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

struct refusal {
  char const* what;
  std::function<void(llava::request&)> spoil;
};

TEST(LlavaRun, WrongRequestsAreRefusedInOneLine) {
  std::string const no_plan = temporary("no_plan.json");
  std::ofstream(no_plan) << R"({"images": [{"merge": [3, 3], "key_set": [], "stages": []}]})";
  std::string const outside = temporary("outside.json");
  std::ofstream(outside) << R"({"images": [{"merge": [], "key_set": [], "stages": [{"layer": 0, "keep": [576]}]}]})";
  refusal const refusals[] = {
      {"<image>", [](llava::request& r) { r.prompt = "USER: <image><image> what? ASSISTANT:"; }},
      {"there is none", [](llava::request& r) { r.prompt = "USER: what is this? <image>"; }},
      {"cannot be met", [](llava::request& r) { r.reduce.tokens = 3; }},
      {"--tokens", [](llava::request& r) { r.reduce.method = llava::method::random, r.reduce.tokens = 0; }},
      {"prune-after", [](llava::request& r) { r.reduce.prune_after = {6}; }},
      {"prune-after",
       [](llava::request& r) {
         r.reduce.prune_after = {2, 1};
       }},
      {"--plan", [&](llava::request& r) { r.reduce.method = llava::method::none, r.reduce.plan = no_plan; }},
      {"does not ascend", [&](llava::request& r) { r.reduce.plan = no_plan; }},
      {"576", [&](llava::request& r) { r.reduce.plan = outside; }},
      {"thresholds", [](llava::request& r) { r.reduce.global_threshold = 0; }},
      {"kv-first-layer", [](llava::request& r) { r.reduce.kv_first_layer = 7; }},
      {"kv-budget", [](llava::request& r) { r.reduce.kv_policy = md::evict_policy::output_aware; }},
      {"too long", [](llava::request& r) { r.max_new_tokens = 2000; }},
  };
  for (auto const& c : refusals) {
    auto request = a_question(llava::method::mustdrop, 64);
    c.spoil(request);
    try {
      llava::run(tiny(), request);
      ADD_FAILURE() << "not refused: " << c.what;
    } catch (llava::input_error const& error) {
      std::string const line = error.what();
      EXPECT_NE(line.find(c.what), std::string::npos) << line;
      EXPECT_EQ(line.find('\n'), std::string::npos);
    }
  }
}

}  // namespace
