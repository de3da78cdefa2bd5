// SPDX-License-Identifier: Apache-2.0
// The tiny model in llama.cpp, whole: against llama.cpp without us, and against examples/llava.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include <mustdrop/cpu/attention_scores.hpp>

#include "error.hpp"
#include "eval.hpp"
#include "run.hpp"
#include "session.hpp"

namespace {

namespace md = mustdrop;
using namespace mustdrop_llama;
using floats = std::vector<float>;
using indices = std::vector<std::int32_t>;

std::string const checkpoint = LLAVA_TINY "/model", pictures = LLAVA_TINY "/questions/images/";
constexpr int text_tokens = 11;  // of "what is at the right?" in the template

/// architecture: "llama", or "sections" for M-RoPE.
llama_model* tiny(std::string const& architecture) {
  static std::map<std::string, model_pointer> loaded;
  auto& m = loaded[architecture];
  if (!m) { m = load_model(LLAMA_MODELS "/tiny_" + architecture + ".gguf"); }
  return m.get();
}

front& words() {
  static auto const all = checkpoint_front(checkpoint, 1);
  return *all;
}

llava::model const& hugging_face() {
  static llava::model const model(checkpoint);
  return model;
}

prompt question(int tokens, char const* picture = "scene_000.png", char const* text = "what is at the right?") {
  return words().ask(pictures + picture, text, tokens);
}

dropping after(int left, bool compact = true) {
  dropping how;
  how.after_prefill = left, how.compact = compact;
  return how;
}

bool same_bits(floats const& a, floats const& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

float furthest(floats const& a, floats const& b) {
  float most = a.size() == b.size() ? 0 : INFINITY;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) { most = std::max(most, std::fabs(a[i] - b[i])); }
  return most;
}

llava::run_result by_llava(llava::reduction const& reduce, char const* picture = "scene_000.png",
                           char const* text = "what is at the right?") {
  llava::request ask;
  ask.images = {pictures + picture}, ask.prompt = text, ask.reduce = reduce;
  return llava::run(hugging_face(), ask);
}

llava::reduction before(int tokens, llava::position_rule rule) {
  llava::reduction how;
  how.method = llava::method::before, how.tokens = tokens, how.positions = rule;
  return how;
}

// Against f32 throughout: keys and values are rounded to f16, to 2^-11; logits are up to 12. Measured 0.0022 with the map. Flash attention on the CPU adds
// the values up in f16 as well: measured 0.033.
constexpr float map_margin = 0.006f, flash_margin = 0.1f;

TEST(LlamaSession, NothingDroppedIsPlainLlamaCppBitForBit) {
  struct way {
    bool flash;
    ggml_type cache;
    int threads;
  };
  prompt const ask = question(0);
  for (auto const& w :
       {way{true, GGML_TYPE_F16, 1}, way{false, GGML_TYPE_F16, 1}, way{true, GGML_TYPE_F16, 2}, way{true, GGML_TYPE_Q8_0, 1},
        way{false, GGML_TYPE_F32, 1}, way{true, GGML_TYPE_F32, 1}, way{true, GGML_TYPE_BF16, 1}}) {
    SCOPED_TRACE(std::string(w.flash ? "flash " : "map ") + ggml_type_name(w.cache));
    setup how;
    how.flash_attention = w.flash, how.cache = w.cache, how.threads = w.threads;
    how.observe = false;
    answer const plain = session(tiny("llama"), how).run(ask, {}, &words(), 16);
    how.observe = true, how.prune_after = {0, 1, 2, 3, 4, 5};
    session on(tiny("llama"), how);
    answer const unobserved = on.run(ask, {}, &words(), 16), watched = on.run(ask, after(576), &words(), 16);
    EXPECT_EQ(watched.image.size(), 576U);
    EXPECT_EQ(on.watcher().scores().size(), 6U);
    for (auto const& layer : on.watcher().scores()) { EXPECT_EQ(layer.sum.size(), 576U + text_tokens) << layer.layer; }
    for (auto const* const a : {&unobserved, &watched}) {
      EXPECT_TRUE(same_bits(a->logits, plain.logits));
      EXPECT_TRUE(same_bits(a->last_logits, plain.last_logits));
      EXPECT_EQ(a->ids, plain.ids);
    }
  }
}

TEST(LlamaSession, AnswersAsExamplesLlavaDoes) {
  for (char const* const architecture : {"llama", "sections"}) {
    for (bool const flash : {true, false}) {
      setup how;
      how.flash_attention = flash;
      session on(tiny(architecture), how);
      for (char const* const picture : {"scene_000.png", "scene_002.png", "scene_005.png"}) {
        llava::run_result const expected = by_llava({}, picture);
        answer const got = on.run(question(0, picture), {}, &words(), 16);
        EXPECT_LE(furthest(got.logits, expected.logits), flash ? flash_margin : map_margin);
        EXPECT_EQ(words().text(got.ids), expected.answer);
      }
    }
  }
}

TEST(LlamaSession, BeforeTheBatchKeepsPositionsWhereRopeHasSectionsAndRenumbersWhereNot) {
  setup how;
  how.flash_attention = false;
  session plain(tiny("llama"), how), sections(tiny("sections"), how);
  EXPECT_FALSE(plain.keeps_positions());
  EXPECT_TRUE(sections.keeps_positions());
  for (int const tokens : {192, 128, 64}) {
    prompt const ask = question(tokens);
    ASSERT_EQ(ask.image.at.size(), static_cast<std::size_t>(tokens));
    llava::run_result const kept = by_llava(before(tokens, llava::position_rule::kept)),
                            renumbered = by_llava(before(tokens, llava::position_rule::renumber));
    ASSERT_GT(furthest(kept.logits, renumbered.logits), 10 * map_margin) << "these are two things";
    EXPECT_LE(furthest(sections.run(ask, {}, &words(), 16).logits, kept.logits), map_margin);
    dropping renumber;
    renumber.positions = position_rule::renumber;
    EXPECT_LE(furthest(plain.run(ask, renumber, &words(), 16).logits, renumbered.logits), map_margin);
    EXPECT_LE(furthest(sections.run(ask, renumber, &words(), 16).logits, renumbered.logits), map_margin);
  }
}

TEST(LlamaSession, MovedRowsHaveTheKeysOfTheirPlaces) {
  // Keys of the first layer depend on nothing but a row and its position: moved after the batch, they are what M-RoPE made them with gaps from the start,
  // but for a second rounding to f16 on the way: 2^-11 of a logit of up to 20. The picture's last row stays, so that the text stands alike.
  prompt ask = question(0);
  picture const all = ask.image;
  ask.image.at.clear(), ask.image.rows.clear(), ask.image.key_set.clear();
  for (std::int32_t r = 0; r < 576; r += r == 570 ? 5 : 3) {
    ask.image.at.push_back(r);
    ask.image.rows.insert(ask.image.rows.end(), all.rows.begin() + r * 128, all.rows.begin() + (r + 1) * 128);
  }
  ASSERT_EQ(ask.image.at.back(), 575);
  auto const rows = static_cast<int>(ask.image.at.size());
  for (bool const flash : {true, false}) {
    SCOPED_TRACE(flash ? "flash" : "map");
    setup how;
    how.flash_attention = flash;
    session moved(tiny("llama"), how), kept(tiny("sections"), how);
    moved.run(ask, after(rows), &words(), 1), kept.run(ask, after(rows), &words(), 1);
    EXPECT_EQ(moved.watcher().positions(), kept.watcher().positions());
    floats const a = moved.watcher().scores()[0].sum, b = kept.watcher().scores()[0].sum;
    ASSERT_EQ(a.size(), b.size());
    for (std::size_t t = 0; t < a.size(); ++t) { EXPECT_NEAR(a[t], b[t], 0.02f * b[t]) << t; }
    dropping renumber = after(rows);
    renumber.positions = position_rule::renumber;
    moved.run(ask, renumber, &words(), 1);
    EXPECT_GT(furthest(moved.watcher().scores()[0].sum, b), 10 * furthest(a, b)) << "and without moving they are not";
  }
  setup quantised;
  quantised.cache = GGML_TYPE_Q8_0;
  EXPECT_THROW(session(tiny("llama"), quantised).run(ask, {}, &words(), 1), llava::input_error) << "llama.cpp would stop at a null pointer";
}

TEST(LlamaSession, MovedRowsGiveTheAnswersOfKeptOnesWhereRenumberedRowsDoNot) {
  session plain(tiny("llama"), {}), sections(tiny("sections"), {});
  dropping renumber, move;
  renumber.positions = position_rule::renumber, move.positions = position_rule::moved;
  auto const questions = llava::first_of_each_kind(llava::read_questions(LLAVA_TINY "/questions/scenes.jsonl"), 8);
  int moved = 0, renumbered = 0;
  for (auto const& q : questions) {
    prompt const ask = words().ask(q.image, q.text, 128);
    auto const kept = sections.run(ask, {}, &words(), 8).ids;
    moved += plain.run(ask, {}, &words(), 8).ids == kept, renumbered += plain.run(ask, renumber, &words(), 8).ids == kept;
  }
  auto const all = static_cast<int>(questions.size());
  EXPECT_GE(moved, all * 8 / 10) << "of " << all << "; renumbered: " << renumbered;
  EXPECT_LT(renumbered, all * 8 / 10);
  EXPECT_THROW(sections.run(question(64), move, &words(), 1), llava::input_error) << "llama.cpp moves no keys of M-RoPE";
}

/// What llava decodes from caches in which, after the last layer, only `keep` is left of the picture.
llava::run_result dropped_at_the_end(indices const& keep) {
  std::string const path = (std::filesystem::path(testing::TempDir()) / ("plan_" + std::to_string(getpid()) + ".json")).string();
  nlohmann::json const plan = {
      {"images",
       {{{"merge", nlohmann::json::array()}, {"key_set", nlohmann::json::array()}, {"stages", {{{"layer", 5}, {"keep", keep}}}}}}},
      {"merge_at", "features"}};
  std::ofstream(path) << plan.dump();
  llava::reduction how;
  how.method = llava::method::mustdrop, how.plan = path;
  llava::run_result const out = by_llava(how, "scene_000.png", "describe the picture");
  std::filesystem::remove(path);
  return out;
}

TEST(LlamaSession, AfterThePrefillDecodeRunsOnTheSurvivorsAtTheirPositions) {
  prompt const ask = question(0, "scene_000.png", "describe the picture");
  for (char const* const architecture : {"llama", "sections"}) {
    session on(tiny(architecture), {});
    dropping how = after(64);
    how.kv_budget = 2000;  // never reached: but decode is observed, and each step compares the cells that attention sees with the survivors
    answer const got = on.run(ask, how, &words(), 24);
    ASSERT_EQ(got.image.size(), 64U);
    ASSERT_GT(got.ids.size(), 3U);
    llava::run_result const expected = dropped_at_the_end(got.image);
    EXPECT_EQ(words().text(got.ids), expected.answer);
    int const rest = static_cast<int>(ask.before.size() + ask.after.size());
    EXPECT_EQ(got.cells_before, 576 + rest);
    EXPECT_EQ(got.cells_after, 64 + rest + static_cast<int>(got.ids.size()) - 1);
    EXPECT_EQ(on.watcher().cells().size(), static_cast<std::size_t>(got.cells_after));
    EXPECT_EQ(on.watcher().status(), md::status::ok);
    for (std::size_t i = 0; i < got.image.size(); ++i) {
      EXPECT_EQ(on.watcher().positions()[ask.before.size() + i], static_cast<llama_pos>(ask.before.size()) + got.image[i]);
    }
  }
}

TEST(LlamaSession, HolesCostWhatUsedCellsDoUntilTheCacheIsCompacted) {
  prompt const ask = question(0);
  session on(tiny("llama"), {});
  answer const holes = on.run(ask, after(64, false), &words(), 16);
  std::size_t const bytes_of_holes = llama_state_seq_get_size(on.context(), 0);
  answer const compacted = on.run(ask, after(64, true), &words(), 16);
  std::size_t const bytes = llama_state_seq_get_size(on.context(), 0);
  answer const all = on.run(ask, after(576), &words(), 16);
  std::size_t const bytes_of_all = llama_state_seq_get_size(on.context(), 0);
  EXPECT_EQ(holes.attended_after, 768) << "up to the last used cell, padded to 256";
  EXPECT_EQ(compacted.attended_after, 256);
  EXPECT_EQ(holes.ids, compacted.ids);
  EXPECT_EQ(holes.image, compacted.image);
  EXPECT_LE(furthest(holes.last_logits, compacted.last_logits), 1e-3f) << "the same keys in another order of sums";
  EXPECT_EQ(bytes, bytes_of_holes) << "llama.cpp itself writes used cells only";
  EXPECT_NEAR(static_cast<double>(bytes) / static_cast<double>(bytes_of_all), (65.0 + text_tokens) / (577 + text_tokens), 0.01)
      << "with a token of the answer";
  EXPECT_EQ(all.attended_after, 768);
}

TEST(LlamaSession, ABudgetHoldsInDecode) {
  prompt const ask = question(0, "scene_000.png", "describe the picture");
  for (bool const flash : {true, false}) {
    setup how;
    how.flash_attention = flash;
    session on(tiny("llama"), how);
    dropping drop = after(128);
    drop.kv_budget = 80;
    answer const got = on.run(ask, drop, &words(), 24);
    EXPECT_GT(got.ids.size(), 5U);
    EXPECT_EQ(got.cells_after, 80);
    EXPECT_EQ(on.watcher().cells().size(), 80U);
    EXPECT_EQ(on.watcher().status(), md::status::ok);
    auto const& positions = on.watcher().positions();
    EXPECT_EQ(std::adjacent_find(positions.begin(), positions.end(), std::greater_equal<>()), positions.end());
    EXPECT_EQ(got.attended_after, 256);
  }
}

/// A context of the tiny model with an observer, and text in it.
struct observed_text {
  observer<session::backend> watcher;
  std::unique_ptr<llama_context, deleter<llama_context, llama_free>> context;

  explicit observed_text(unsigned sequences = 1, std::vector<int> const& layers = {0}) : watcher(session::backend{}, layers) {
    llama_context_params params = llama_context_default_params();
    params.n_ctx = params.n_batch = 512, params.n_seq_max = sequences, params.kv_unified = true;
    params.n_threads = params.n_threads_batch = 1;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    watcher.attach(params);
    context.reset(llama_init_from_model(tiny("llama"), params));
    std::vector<llama_token> ids(300);
    for (std::size_t i = 0; i < ids.size(); ++i) { ids[i] = static_cast<llama_token>(5 + i % 40); }
    EXPECT_EQ(llama_decode(context.get(), llama_batch_get_one(ids.data(), 300)), 0);
    if (sequences > 1) { return; }
    indices few;
    for (std::int32_t i = 0; i < 300; i += i == 100 ? 190 : 1) { few.push_back(i); }
    EXPECT_EQ(watcher.keep(context.get(), md::view(few.data(), few.size())), md::status::ok);
  }
  floats next(llama_token id) {
    EXPECT_EQ(llama_decode(context.get(), llama_batch_get_one(&id, 1)), 0);
    float const* const logits = llama_get_logits_ith(context.get(), -1);
    return {logits, logits + llama_vocab_n_tokens(llama_model_get_vocab(tiny("llama")))};
  }
};

TEST(LlamaObserver, CompactsOnlyWhenMovedKeysAreRotated) {
  std::vector<llama_pos> const to{400, 401, 410};
  observed_text holes, moved;
  for (auto* const o : {&holes, &moved}) { ASSERT_EQ(o->watcher.move(o->context.get(), to), md::status::ok); }
  indices const cells = moved.watcher.cells();
  ASSERT_EQ(cells.back(), 299);
  EXPECT_EQ(moved.watcher.compact(moved.context.get()), md::status::unsupported) << "the state would hold new positions and old keys";
  EXPECT_EQ(moved.watcher.cells(), cells);
  EXPECT_EQ(moved.watcher.status(), md::status::ok);
  holes.next(7), moved.next(7);
  EXPECT_EQ(moved.watcher.compact(moved.context.get()), md::status::ok);
  EXPECT_EQ(moved.watcher.positions(), holes.watcher.positions());
  moved.watcher.watch(0), holes.watcher.watch(0);
  EXPECT_LE(furthest(moved.next(9), holes.next(9)), 1e-3f) << "the same keys in another order of sums";
  EXPECT_EQ(moved.watcher.status(), md::status::ok) << "the mask shows attention on the cells that we think";
  EXPECT_LT(*std::max_element(moved.watcher.cells().begin(), moved.watcher.cells().end()), 120);
}

TEST(LlamaObserver, ChangesNoCacheOfSeveralSequences) {
  observed_text two(2);
  indices const first{0}, cells = two.watcher.cells();
  EXPECT_EQ(two.watcher.keep(two.context.get(), md::view(first.data(), 1)), md::status::unsupported);
  EXPECT_EQ(two.watcher.move(two.context.get(), {400}), md::status::unsupported);
  EXPECT_EQ(two.watcher.compact(two.context.get()), md::status::unsupported);
  EXPECT_EQ(two.watcher.cells(), cells);
  EXPECT_EQ(llama_memory_seq_pos_max(llama_get_memory(two.context.get()), 0), 299);
}

TEST(LlamaObserver, RowsThatCountStayTheSameTokensWhenOthersLeave) {
  observed_text o;  // 111 tokens are left
  o.watcher.watch(100);
  indices keep{0, 1};
  for (std::int32_t i = 95; i < 110; ++i) { keep.push_back(i); }
  ASSERT_EQ(o.watcher.keep(o.context.get(), md::view(keep.data(), keep.size())), md::status::ok);
  o.next(7);
  ASSERT_EQ(o.watcher.scores()[0].sum.size(), 18U) << "the new token is one that counts";
  auto const rows_that_counted = [&] {
    float total = 0;
    for (float const x : o.watcher.scores()[0].sum) { total += x; }
    return total;
  };
  EXPECT_NEAR(rows_that_counted(), 1, 1e-5f);
  o.watcher.watch(20);  // of 18: the second next, after six have left the third next but none before it
  keep.clear();
  for (std::int32_t i = 6; i < 18; ++i) { keep.push_back(i); }
  ASSERT_EQ(o.watcher.keep(o.context.get(), md::view(keep.data(), keep.size())), md::status::ok);
  o.next(7), o.next(7);
  EXPECT_TRUE(o.watcher.scores()[0].sum.empty());
  o.next(7);
  EXPECT_NEAR(rows_that_counted(), 1, 1e-5f);
}

TEST(LlamaObserver, SeesTokensWhateverLayersItScores) {
  for (std::vector<int> const& layers : {std::vector<int>{}, {99}, {5}, {-1, 3}}) {
    observed_text o(1, layers);
    EXPECT_EQ(o.watcher.cells().size(), 111U);
    o.watcher.watch(0);
    o.next(7);
    for (auto const& scores : o.watcher.scores()) {
      EXPECT_EQ(scores.sum.size(), scores.layer == 3 || scores.layer == 5 ? 112U : 0U) << scores.layer;
    }
  }
}

TEST(LlamaObserver, FindsOutThatTheCacheWasChanged) {
  indices const first{0};
  auto const keep = [&](observed_text& o) { return o.watcher.keep(o.context.get(), md::view(first.data(), 1)); };
  observed_text cleared, cut;
  llama_memory_clear(llama_get_memory(cleared.context.get()), false);
  EXPECT_EQ(keep(cleared), md::status::bad_argument);
  EXPECT_EQ(cleared.watcher.compact(cleared.context.get()), md::status::bad_argument);
  cleared.watcher.forget();
  EXPECT_EQ(cleared.watcher.compact(cleared.context.get()), md::status::ok);
  llama_memory_seq_rm(llama_get_memory(cut.context.get()), 0, 298, -1);
  EXPECT_EQ(cut.watcher.move(cut.context.get(), {400}), md::status::bad_argument);
  EXPECT_EQ(cut.watcher.status(), md::status::bad_argument);
}

TEST(LlamaObserver, MovesNowhereThatPositionsEnd) {
  observed_text o;
  EXPECT_EQ(o.watcher.move(o.context.get(), {std::numeric_limits<llama_pos>::max()}), md::status::bad_argument);
  EXPECT_EQ(o.watcher.move(o.context.get(), {298}), md::status::bad_argument) << "not back";
  EXPECT_EQ(o.watcher.positions().back(), 299);
  EXPECT_EQ(o.watcher.move(o.context.get(), {299}), md::status::ok);
  EXPECT_EQ(o.watcher.compact(o.context.get()), md::status::ok) << "where it was: no key waits";
}

TEST(LlamaSession, RefusesAttentionThatIsNotCausal) {
  for (bool const flash : {true, false}) {
    setup how;
    how.flash_attention = flash;
    session on(tiny("llama"), how);
    llama_set_causal_attn(on.context(), false);
    EXPECT_THROW(on.run(question(0), after(64), &words(), 4), llava::input_error);
    EXPECT_EQ(on.watcher().status(), md::status::bad_argument);
    llama_set_causal_attn(on.context(), true);
    EXPECT_EQ(on.run(question(0), after(64), &words(), 4).image.size(), 64U);
  }
}

TEST(LlamaSession, FlashAttentionAndTheMapDropTheSameButForScoresAtTheThreshold) {
  // llama.cpp rounds queries to f16 before it multiplies; the map has that, our own scores of f32 queries have not: 2^-11 of a logit of up to 20.
  constexpr float share = 0.01f;
  setup how;
  session flash(tiny("llama"), how);
  how.flash_attention = false;
  session map(tiny("llama"), how);
  for (char const* const picture : {"scene_000.png", "scene_002.png", "scene_005.png", "scene_010.png"}) {
    prompt const ask = question(0, picture);
    flash.run(ask, after(576), &words(), 1), map.run(ask, after(576), &words(), 1);
    layer_scores const a = flash.watcher().scores()[0], b = map.watcher().scores()[0];
    ASSERT_EQ(a.sum.size(), b.sum.size());
    for (std::size_t t = 0; t < a.sum.size(); ++t) {
      EXPECT_NEAR(a.sum[t], b.sum[t], share * b.sum[t]) << t;
      EXPECT_NEAR(a.max[t], b.max[t], share * b.max[t]) << t;
    }
    indices const by_flash = flash.run(ask, after(64), &words(), 1).image, by_map = map.run(ask, after(64), &words(), 1).image;
    indices differ;
    std::set_symmetric_difference(by_flash.begin(), by_flash.end(), by_map.begin(), by_map.end(), std::back_inserter(differ));
    // The rank of dual_mask, over the picture's tokens; the threshold is the rank of the last one that stayed without being protected.
    std::size_t const first = ask.before.size();
    float total = 0;
    for (std::size_t t = 0; t < 576; ++t) { total += b.sum[first + t]; }
    auto const rank = [&](std::int32_t t) {
      std::size_t const i = first + static_cast<std::size_t>(t);
      return std::max(b.sum[i] / (0.001f * total), b.max[i] / 0.001f);
    };
    float threshold = INFINITY;
    for (auto const t : by_map) {
      if (!std::binary_search(ask.image.key_set.begin(), ask.image.key_set.end(), t)) { threshold = std::min(threshold, rank(t)); }
    }
    for (auto const t : differ) { EXPECT_NEAR(rank(t), threshold, 2 * share * threshold) << t; }
  }
}

TEST(LlamaSession, RefusesWhatDoesNotFit) {
  std::string const path = (std::filesystem::path(testing::TempDir()) / ("no_model_" + std::to_string(getpid()) + ".gguf")).string();
  std::ofstream(path) << "GGUF and then nothing that is one";
  EXPECT_THROW(load_model(path), llava::input_error);
  std::filesystem::remove(path);
  EXPECT_THROW(load_model(path), llava::input_error);
  setup how;
  how.context = 512;
  session small(tiny("llama"), how);
  prompt ask = question(0);
  EXPECT_THROW(small.run(ask, {}, &words(), 16), llava::input_error) << "588 tokens in 512 cells";
  ask = question(64);
  ask.image.rows.pop_back();
  EXPECT_THROW(small.run(ask, {}, &words(), 16), llava::input_error) << "rows of another width";
  ask = question(64);
  ask.after.back() = 99;
  EXPECT_THROW(small.run(ask, {}, &words(), 16), llava::input_error) << "an id that the model does not have";
  for (indices const& wrong : {indices{0, 64}, indices{-1}, indices{3, 3}}) {
    ask = question(64), ask.image.key_set = wrong;
    EXPECT_THROW(small.run(ask, after(8), &words(), 16), llava::input_error) << "a key set of other rows";
  }
  ask = question(64), ask.image.at.back() = 576;
  EXPECT_THROW(small.run(ask, after(8), &words(), 16), llava::input_error) << "a row behind the last place";
  ask = question(64);
  EXPECT_THROW(small.run(ask, after(3), &words(), 16), llava::input_error) << "fewer than the key set";
  EXPECT_EQ(small.run(ask, after(8), &words(), 16).image.size(), 8U) << "and a session goes on after an error";
  how.observe = false;
  session blind(tiny("llama"), how);
  EXPECT_THROW(blind.run(ask, {}, &words(), 16), llava::input_error) << "who does not observe cannot move";
  dropping renumber;
  renumber.positions = position_rule::renumber;
  EXPECT_EQ(blind.run(ask, renumber, &words(), 16).positions, position_rule::renumber);
  how.context = 16;
  EXPECT_EQ(session(tiny("llama"), how).run(ask, renumber, &words(), 16).image.size(), 64U) << "llama.cpp rounds up to 256 cells";
  how.observe = true, how.prune_after = {6};
  EXPECT_THROW(session(tiny("llama"), how), llava::input_error) << "six layers, from 0";
}

}  // namespace
