// SPDX-License-Identifier: Apache-2.0
// MustDrop's three stages on synthetic tensors of LLaVA-1.5's shape: 24 × 24 patches and a CLS token, 32 layers, a question of 12 tokens.
// Nothing here is a model: features, queries and keys are made up so that a picture has two objects on a plain ground and the question asks
// for one of them. Every buffer is the program's own, as in an engine; the library allocates nothing.
//
//   c++ -std=c++17 -O2 -I include examples/quickstart.cpp -o quickstart && ./quickstart

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include <mustdrop/budget.hpp>
#include <mustdrop/method/mustdrop.hpp>
#include <mustdrop/method/random.hpp>
#include <mustdrop/plan.hpp>
#include <mustdrop/reference/attention_scores.hpp>
#include <mustdrop/reference/cls_topk.hpp>
#include <mustdrop/reference/compact.hpp>
#include <mustdrop/reference/dual_mask.hpp>
#include <mustdrop/reference/gather.hpp>
#include <mustdrop/reference/kv_evict.hpp>
#include <mustdrop/reference/positions.hpp>
#include <mustdrop/reference/window_merge.hpp>
#include <mustdrop/reference/window_similarity.hpp>

namespace md = mustdrop;
using md::index_t;

namespace {

constexpr md::reference::backend on{};
constexpr int side = 24, patches = side * side, tokens = patches + 1, dim = 64, layers = 32, heads = 4, head_dim = 16, text = 12;

void check(md::status s, char const* what) {
  if (s == md::status::ok) { return; }
  std::fprintf(stderr, "%s: %s\n", what, md::message(s));
  std::exit(1);
}

/// One workspace for all calls, as large as the hungriest of them; aligned to 64 bytes.
md::workspace scratch() {
  struct alignas(64) line {
    char bytes[64];
  };
  static std::vector<line> lines(4096);
  return {lines.data(), lines.size() * sizeof(line)};
}

/// One keep list and the memory it lives in.
struct kept_tokens {
  std::vector<std::int32_t> indices;
  std::int32_t count = 0;

  explicit kept_tokens(std::size_t capacity) : indices(capacity) {}
  md::keep_lists<std::int32_t> lists() { return {md::view(indices.data(), 1, indices.size()), md::view(&count, 1)}; }
  md::tensor_view<std::int32_t, 1> list() { return md::view(indices.data(), count); }
};

/// A repeatable number in [-1, 1).
float noise(int a, int b) { return 2 * md::method::random_score(static_cast<std::uint64_t>(a), b) - 1; }

/// 0: ground, 1: the object that the question is about, 2: another one.
int thing_at(int row, int col) {
  return row >= 4 && row < 10 && col >= 13 && col < 21 ? 1 : row >= 15 && row < 21 && col >= 3 && col < 8 ? 2 : 0;
}
int thing_at(int patch) { return thing_at(patch / side, patch % side); }

/// Patches of the ground look alike; those of an object do not.
std::vector<float> make_features() {
  std::vector<float> features(static_cast<std::size_t>(tokens * dim));
  for (int t = 0; t < tokens; ++t) {
    int const thing = t == 0 ? 0 : thing_at(t - 1);
    for (int d = 0; d < dim; ++d) {
      features[static_cast<std::size_t>(t * dim + d)] = noise(thing, d) + (thing == 0 ? 0.3f : 1.5f) * noise(1000 + t, d);
    }
  }
  return features;
}

/// '#' key set, 'o' survivor, '*' merged survivor, '-' merged and dropped, '.' dropped.
void draw(std::vector<std::int32_t> const& source, std::vector<float> const& sizes, kept_tokens& key_set, kept_tokens& survivors) {
  std::vector<char> mark(sizes.size(), '.');
  for (std::size_t row = 1; row < sizes.size(); ++row) { mark[row] = sizes[row] > 1 ? '-' : '.'; }
  for (index_t i = 0; i < survivors.count; ++i) {
    char& c = mark[static_cast<std::size_t>(survivors.list()(i)) + 1];
    c = c == '-' ? '*' : 'o';
  }
  for (index_t i = 0; i < key_set.count; ++i) { mark[static_cast<std::size_t>(key_set.list()(i)) + 1] = '#'; }
  for (int patch = 0; patch < patches; ++patch) {
    std::printf(patch % side == 0 ? "\n  %c" : " %c", mark[static_cast<std::size_t>(source[static_cast<std::size_t>(patch) + 1])]);
  }
  std::printf("\n\n  # key set   o survivor   * merged survivor   - merged, dropped   . dropped\n\n");
}

}  // namespace

int main() {
  // Stage 1, vision encoder: similar windows merge after layer 0; the key set is what CLS looks at in the last layer.
  std::vector<float> const features = make_features();
  md::token_grid const grid{side, side};
  md::window_shape const window;
  std::vector<float> similarity(64), rows(features.size()), sizes(tokens);
  std::vector<std::int32_t> source(tokens);
  kept_tokens anchors(tokens);
  check(md::method::merge_similar(on, {}, window, md::view(features.data(), tokens, dim), {}, md::view(&grid, 1), {},
                                  md::view(similarity.data(), 1, 64), md::view(rows.data(), tokens, dim), md::view(sizes.data(), tokens),
                                  md::view(source.data(), tokens), anchors.lists(), scratch()),
        "window merge");
  int const image = anchors.count - 1;  // CLS does not go to the language model
  std::printf("vision     %d patches, %d after merging %d windows\n", patches, image, (patches - image) / 8);

  std::vector<float> cls_attention(static_cast<std::size_t>(heads * (image + 1)));
  for (int h = 0; h < heads; ++h) {
    for (int t = 0; t <= image; ++t) {
      int const thing = t == 0 ? 0 : thing_at(anchors.indices[static_cast<std::size_t>(t)] - 1);
      cls_attention[static_cast<std::size_t>(h * (image + 1) + t)] = (thing == 0 ? 0.1f : 1.0f) + 0.05f * noise(h, t);
    }
  }
  kept_tokens key_set(static_cast<std::size_t>(md::key_set_size(image)));
  check(md::cls_topk(on, {}, md::view(cls_attention.data(), heads, image + 1), {}, {}, key_set.lists(), scratch()), "key set");
  std::printf("key set    %d\n", key_set.count);

  // Stage 2, prefill: 64 image tokens a layer on average, dropped after layers 2, 6, 10 and 14.
  md::budget_options budget;
  budget.tokens = image, budget.layers = layers, budget.target = 64, budget.at_least = key_set.count;
  std::int32_t counts[4], trace[layers];
  auto const after = md::view(md::method::mustdrop_prune_after, 4);
  check(md::stage_counts(budget, after, md::view(counts, 4)), "budget");
  check(md::layer_trace(image, layers, after, md::view(counts, 4), md::budget_reading::ran_on, md::view(trace, layers)), "trace");

  kept_tokens survivors(static_cast<std::size_t>(image)), protected_now = key_set;  // survivors in the image's coordinates after the merge
  for (int i = 0; i < image; ++i) { survivors.indices[static_cast<std::size_t>(survivors.count++)] = i; }
  for (int stage = 0; stage < 4; ++stage) {
    int const now = survivors.count;
    // The layer's own tensors: the question's query rows and the keys of the image tokens that are left. The question asks for object 1.
    std::vector<float> query(static_cast<std::size_t>(heads * text * head_dim)), keys(static_cast<std::size_t>(heads * now * head_dim));
    for (int h = 0; h < heads; ++h) {
      for (int d = 0; d < head_dim; ++d) {
        float const asked = noise(500 + h, d);
        for (int t = 0; t < text; ++t) {
          query[static_cast<std::size_t>((h * text + t) * head_dim + d)] = asked + 0.5f * noise(600 + t, d);
        }
        for (int j = 0; j < now; ++j) {
          int const patch = anchors.indices[static_cast<std::size_t>(survivors.list()(j)) + 1] - 1;
          keys[static_cast<std::size_t>((h * now + j) * head_dim + d)] =
              (thing_at(patch) == 1 ? 1.2f * asked : 0.0f) + noise(700 + stage * 1000 + patch, d);
        }
      }
    }
    md::attention_options attention;
    attention.scale = 1 / std::sqrt(static_cast<float>(head_dim));
    md::dual_mask_options mask;
    mask.count = counts[stage];
    std::vector<float> sum(static_cast<std::size_t>(now)), max(static_cast<std::size_t>(now));
    kept_tokens kept(static_cast<std::size_t>(now)), next(static_cast<std::size_t>(now)), next_protected(static_cast<std::size_t>(now));
    check(md::method::mask_by_text(on, attention, mask, md::view(query.data(), heads, text, head_dim),
                                   md::view(keys.data(), heads, now, head_dim), {}, {}, {}, {}, {}, protected_now.lists(), {},
                                   md::view(sum.data(), now), md::view(max.data(), now), kept.lists(), scratch()),
          "dual mask");
    // hidden states and positions of the layer would be gathered by `kept` here; the plan itself stays in the image's coordinates.
    index_t n = 0;
    check(md::compose(survivors.list(), kept.list(), md::view(next.indices.data(), now), n), "compose");
    next.count = static_cast<std::int32_t>(n);
    check(md::rebase(protected_now.list(), kept.list(), md::view(next_protected.indices.data(), now), n), "rebase");
    next_protected.count = static_cast<std::int32_t>(n);
    survivors = next, protected_now = next_protected;
    std::printf("layer %2d   %d image tokens stay\n", after(stage), survivors.count);
  }
  std::printf("mean       %.1f image tokens a layer ran (of %d)\n", md::average(md::view(trace, layers)), patches);
  draw(source, sizes, key_set, survivors);

  // Stage 3, cache: every layer keeps the survivors. A shared plan for [layers] K and V of [heads, slots, head_dim], compacted in place.
  std::vector<float> cache(static_cast<std::size_t>(2 * layers * heads * image * head_dim), 1.0f);
  std::vector<md::kv_cache> caches(2 * layers);
  for (std::size_t c = 0; c < caches.size(); ++c) {
    caches[c].data = cache.data() + c * static_cast<std::size_t>(heads * image * head_dim);
    caches[c].heads = heads;
    caches[c].slot_bytes = caches[c].slot_stride = head_dim * static_cast<index_t>(sizeof(float));
    caches[c].head_stride = image * caches[c].slot_stride;
  }
  check(md::compact(on, md::view(caches.data(), caches.size()), {}, survivors.lists()), "compact");
  std::printf("KV cache   %d -> %d image slots in each of %d layers\n", image, survivors.count, layers);

  std::vector<md::run> runs(static_cast<std::size_t>(image));
  index_t n = 0;
  check(md::to_runs(survivors.list(), md::view(runs.data(), runs.size()), n), "runs");
  std::printf("as runs    %lld:", static_cast<long long>(n));
  for (index_t r = 0; r < n && r < 8; ++r) {
    std::printf(" %lld+%lld", static_cast<long long>(runs[static_cast<std::size_t>(r)].begin),
                static_cast<long long>(runs[static_cast<std::size_t>(r)].length));
  }
  std::printf("%s\n", n > 8 ? " …" : "");

  // Decode: the answer's attention re-scores what is left; a budget of 32 slots, of which the key set is safe.
  std::vector<md::slot_kind> kind(static_cast<std::size_t>(survivors.count), md::slot_kind::visual);
  std::vector<float> decode_scores(kind.size());
  for (index_t i = 0; i < protected_now.count; ++i) { kind[static_cast<std::size_t>(protected_now.list()(i))] = md::slot_kind::key_set; }
  for (std::size_t i = 0; i < kind.size(); ++i) { decode_scores[i] = noise(9, static_cast<int>(i)); }
  md::evict_options evict;
  evict.policy = md::evict_policy::output_aware, evict.budget = 32, evict.sinks = 0, evict.recent = 0;
  kept_tokens stay(kind.size());
  check(md::kv_evict(on, evict, md::view(decode_scores.data(), decode_scores.size()), md::view(kind.data(), kind.size()), {}, {},
                     stay.lists(), scratch()),
        "evict");
  std::printf("decode     %zu -> %d image slots\n", kind.size(), stay.count);
}
