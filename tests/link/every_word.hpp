// SPDX-License-Identifier: Apache-2.0
#pragma once

// Every word called at least once, on a backend whose headers somebody else includes and in memory that somebody else brings. The symbols
// test looks at what an object file made of this asks the linker for; same_bits hashes what each call writes.

#include <cstddef>
#include <cstdint>
#include <initializer_list>

#include <mustdrop/budget.hpp>
#include <mustdrop/method/mustdrop.hpp>
#include <mustdrop/method/pooling.hpp>
#include <mustdrop/method/random.hpp>
#include <mustdrop/plan.hpp>

namespace md = mustdrop;

namespace words {

/// Two images on one token axis: a prefix token and 4 × 5 patches, a prefix token and 3 × 3 patches. Windows of 2 × 2 leave a ragged edge.
constexpr md::index_t tokens = 31, images = 2, windows = 4, longest = 21, query_rows = 6, heads = 4, kv_heads = 2, list_length = 40;
constexpr md::token_grid image_grids[images] = {{4, 5}, {3, 3}};
constexpr md::window_shape window{2, 2};
constexpr std::int32_t image_offsets[images + 1] = {0, 21, 31}, row_offsets[images + 1] = {0, 4, 6};
constexpr md::index_t most_dims = 70, workspace_bytes = 1 << 15;

/// Where the calls read and write. Outputs are made of the same types as the inputs, so that both widen and narrow.
template <class Real, class Out, class Index>
struct word_memory {
  md::index_t dim;             // at most most_dims, even where keys are rotated
  Real const* features;        // [tokens, dim]
  Real const* query;           // [heads, query_rows, dim]
  Real* keys;                  // [kv_heads, tokens, dim]: written by rerotate and compact
  Real const* map;             // [heads, query_rows, longest]
  float const* lse;            // [heads, query_rows]
  float const* weights;        // [tokens], not negative
  float const* inv_freq;       // [dim / 2]
  std::int32_t const* limits;  // [query_rows]
  std::int32_t const* wanted;  // [images]
  Index const* old_positions;  // [3, tokens]
  md::slot_kind const* kinds;  // [tokens]

  float* similarity;                                // [images, windows]
  float* sizes;                                     // [tokens]
  float *sum, *max;                                 // [tokens], in and out
  float* head_sum;                                  // [query_rows, longest]
  Out* rows;                                        // [tokens, dim]
  Index* source;                                    // [tokens]
  Index* kept;                                      // [images, list_length]
  Index* key_set;                                   // [images, list_length]
  std::int32_t *kept_counts, *key_counts, *packed;  // [images], [images], [images + 1]
  Index *new_positions, *delta;                     // [3, tokens], [images]
  md::workspace scratch;                            // workspace_bytes
};

/// Calls every word in turn. `wrote(name, pointer, n)` is told of each array that a word has written, and of each status.
template <class Backend, class Real, class Out, class Index, class Wrote>
class every_word {
 public:
  every_word(word_memory<Real, Out, Index> const& memory, Wrote const& wrote) noexcept : at_(memory), wrote_(wrote) {}

  void score() const noexcept {
    took("window_similarity", md::window_similarity(on, window, features(), cut, grids(), similarity(), at_.scratch));
    wrote_("window_similarity", at_.similarity, images * windows);

    md::attention_options options{0.125f, 0, md::log_base::two, 0, 0.5f};
    attend("attention_scores", options, {});
    options.softcap = 30;
    attend("attention_scores with softcap", options, {});
    options.softcap = 0;
    attend("attention_scores with lse", options, md::view(at_.lse, heads, query_rows));
    md::key_span const spans[images] = {{1, 20}, {0, 7}};
    took("attention_scores of a map", md::attention_scores(on, options, md::view(at_.map, heads, query_rows, longest), row_cut, cut,
                                                           limits(), md::view(spans, images), sum(), max(), head_sum(), at_.scratch));
    wrote_attention("attention_scores of a map");
  }

  void select() const noexcept {
    for (md::index_t const count : {-1, 2}) {
      md::merge_options const options{0.1f, count, count < 0 ? md::output_order::position : md::output_order::score};
      took("window_merge", md::window_merge(on, options, window, features(), cut, grids(), similarity(), {}, rows(), sizes(), source(),
                                            keep(), at_.scratch));
      wrote_merge("window_merge");
    }
    took("top_k", md::top_k(on, {md::output_order::score}, sum(), cut, wanted(), keep(), at_.scratch));
    wrote_keep("top_k");
    auto const attention = md::view(at_.map, heads * query_rows, longest);  // the first image's
    md::segments const first_image{1, nullptr, nullptr, 0};
    took("cls_topk", md::cls_topk(on, {20, 1, 0}, attention, first_image, {}, first(key_set()), at_.scratch));
    took("cls_topk of the other", md::cls_topk(on, {}, attention, first_image, wanted().narrow(0, 1, 1), first(keep()), at_.scratch));
    md::keep_lists<Index const> const protected_tokens = key_set();
    wrote_("cls_topk", at_.key_set, at_.key_counts[0]);
    at_.key_counts[1] = 0;
    took("dual_mask", md::dual_mask(on, {0.03f, 0.02f, -1}, sum(), max(), cut, protected_tokens, {}, keep(), at_.scratch));
    wrote_keep("dual_mask");
    took("dual_mask of n", md::dual_mask(on, {0.03f, 0.02f, -1}, sum(), max(), cut, protected_tokens, wanted(), keep(), at_.scratch));
    wrote_keep("dual_mask of n");
    for (auto const policy : {md::evict_policy::survivors, md::evict_policy::key_set_only, md::evict_policy::output_aware}) {
      for (md::index_t const block : {1, 3}) {
        took("kv_evict", md::kv_evict(on, {policy, 9, 1, 2, block}, sum(), md::view(at_.kinds, tokens), cut, {}, keep(), at_.scratch));
        wrote_keep("kv_evict");
      }
    }
  }

  void apply() const noexcept {
    md::segments const kept_cut{images, image_offsets, at_.kept_counts, longest};
    took("pack", md::pack(md::view(static_cast<std::int32_t const*>(at_.kept_counts), images), md::view(at_.packed, images + 1)));
    auto const packed = md::view(static_cast<std::int32_t const*>(at_.packed), images + 1);
    took("gather", md::gather(on, sizes(), cut, keep(), max(), packed));
    wrote_("gather", at_.max, at_.packed[images]);
    md::rms_norm<Real> const norm{md::view(at_.features, at_.dim), 1e-5f};
    took("gather with rms_norm", md::gather(on, norm, features(), cut, keep(), rows(), {}));
    wrote_rows("gather with rms_norm");
    took("merge_rows", md::merge_rows(on, features(), md::view(at_.weights, tokens), source(), cut, rows(), sizes(), {}));
    wrote_rows("merge_rows");
    wrote_("merge_rows", at_.sizes, tokens);
    took("spread_rows", md::spread_rows(on, features(), source(), cut, {}, md::view(at_.keys, tokens, at_.dim)));
    wrote_("spread_rows", at_.keys, tokens * at_.dim);

    for (auto const policy : {md::position_policy::kept, md::position_policy::renumbered, md::position_policy::closed}) {
      auto const out = md::view(at_.new_positions, 3, tokens);
      took("positions",
           md::positions(on, policy, md::view(at_.old_positions, 3, tokens), cut, keep(), out, md::view(at_.delta, images), {}));
      wrote_("positions", at_.delta, images);
      wrote_("positions", at_.new_positions, 3 * tokens);
    }
    std::int32_t const axes[most_dims / 2] = {0, 1, 2, 2, 1, 0, 0, 1};
    for (auto const pairs : {md::rope_pairs::half_split, md::rope_pairs::interleaved}) {
      took("rerotate",
           md::rerotate(on, pairs, md::view(at_.keys, kv_heads, tokens, at_.dim), kept_cut, md::view(at_.old_positions, 3, tokens),
                        md::view(static_cast<Index const*>(at_.new_positions), 3, tokens), md::view(at_.inv_freq, at_.dim / 2),
                        md::view(static_cast<std::int32_t const*>(axes), at_.dim / 2)));
      wrote_("rerotate", at_.keys, kv_heads * tokens * at_.dim);
    }
    compact();
  }

  void methods() const noexcept {
    took("random", md::method::random(on, {7}, cut, wanted(), sum(), keep(), at_.scratch));
    wrote_("random", at_.sum, tokens);
    took("pooling", md::method::pooling(on, window, features(), cut, grids(), {}, rows(), sizes(), source(), keep(), at_.scratch));
    wrote_merge("pooling");
    took("merge_similar", md::method::merge_similar(on, {0.2f}, window, features(), cut, grids(), {}, similarity(), rows(), sizes(),
                                                    source(), keep(), at_.scratch));
    wrote_merge("merge_similar");
    took("mask_by_text", md::method::mask_by_text(on, {0.25f}, {0.05f, 0.03f}, query(), keys(), row_cut, cut, limits(), {}, cut,
                                                  md::keep_lists<Index const>{}, {}, sum(), max(), keep(), at_.scratch));
    wrote_keep("mask_by_text");
  }

  void plans() const noexcept {
    std::uint8_t mask[longest] = {};
    md::run runs[list_length] = {};
    md::move moves[list_length] = {};
    md::index_t count = 0;
    auto const kept = md::list(keep(), 0);
    auto const out = md::view(at_.key_set, list_length);
    took("check", md::check(keep(), cut, tokens));
    took("check", md::check(grids(), window, cut, tokens, windows));
    took("to_mask", md::to_mask(kept, md::view(mask, longest)));
    took("from_mask", md::from_mask(md::view(static_cast<std::uint8_t const*>(mask), longest), out, count));
    took("to_runs", md::to_runs(kept, md::view(runs, list_length), count));
    took("from_runs", md::from_runs(md::view(static_cast<md::run const*>(runs), count), out, count));
    took("to_moves", md::to_moves(kept, md::view(moves, list_length), count));
    took("from_moves", md::from_moves(md::view(static_cast<md::move const*>(moves), count), out, count));
    wrote_("from_moves", at_.key_set, count);
    took("unite", md::unite(kept, md::list(keep(), 1), out, count));
    wrote_("unite", at_.key_set, count);
    took("rebase", md::rebase(md::list(keep(), 1), kept, out, count));
    wrote_("rebase", at_.key_set, count);
    Index const first_token = 0;
    took("compose", md::compose(kept, md::view(&first_token, kept.size(0) > 0 ? 1 : 0), out, count));
    wrote_("compose", at_.key_set, count);
    took("in_sequence", md::in_sequence(kept, {2, longest}, longest + 4, out, count));
    wrote_("in_sequence", at_.key_set, count);
    std::int32_t offsets[longest + 1] = {};
    took("invert", md::invert(md::view(static_cast<Index const*>(at_.source), longest), md::view(offsets, longest + 1), out));
    wrote_("invert", at_.key_set, longest);
  }

  void budgets() const noexcept {
    constexpr std::int32_t prune_after[] = {2, 6, 15};
    std::int32_t counts[3] = {}, trace[32] = {};
    auto const stages = md::view(prune_after, 3);
    auto const counted = md::view(static_cast<std::int32_t const*>(counts), 3);
    for (auto const reading : {md::budget_reading::ran_on, md::budget_reading::after_pruning, md::budget_reading::at_end}) {
      for (md::index_t target = 1; target < 576; target += 7) {
        md::budget_options options;
        options.tokens = 576, options.layers = 32, options.target = target, options.reading = reading;
        took("stage_counts", md::stage_counts(options, stages, md::view(counts, 3)));
        wrote_("stage_counts", counts, 3);
      }
    }
    took("layer_trace", md::layer_trace(576, 32, stages, counted, md::budget_reading::ran_on, md::view(trace, 32)));
    float const mean = static_cast<float>(md::average(md::view(static_cast<std::int32_t const*>(trace), 32)));
    wrote_("layer_trace", &mean, 1);
  }

 private:
  static constexpr Backend on{};
  static constexpr md::segments cut{images, image_offsets, nullptr, longest}, row_cut{images, row_offsets, nullptr, 4};

  auto features() const noexcept { return md::view(at_.features, tokens, at_.dim); }
  auto query() const noexcept { return md::view(at_.query, heads, query_rows, at_.dim); }
  auto keys() const noexcept { return md::view(at_.keys, kv_heads, tokens, at_.dim); }
  auto limits() const noexcept { return md::view(at_.limits, query_rows); }
  auto wanted() const noexcept { return md::view(at_.wanted, images); }
  auto similarity() const noexcept { return md::view(at_.similarity, images, windows); }
  auto sizes() const noexcept { return md::view(at_.sizes, tokens); }
  auto sum() const noexcept { return md::view(at_.sum, tokens); }
  auto max() const noexcept { return md::view(at_.max, tokens); }
  auto head_sum() const noexcept { return md::view(at_.head_sum, query_rows, longest); }
  auto rows() const noexcept { return md::view(at_.rows, tokens, at_.dim); }
  auto source() const noexcept { return md::view(at_.source, tokens); }
  md::keep_lists<Index> keep() const noexcept { return {md::view(at_.kept, images, list_length), md::view(at_.kept_counts, images)}; }
  md::keep_lists<Index> key_set() const noexcept { return {md::view(at_.key_set, images, list_length), md::view(at_.key_counts, images)}; }
  static md::tensor_view<md::token_grid const, 1> grids() noexcept { return md::view(image_grids, images); }
  static md::keep_lists<Index> first(md::keep_lists<Index> lists) noexcept {
    return {lists.indices.narrow(0, 0, 1), lists.counts.narrow(0, 0, 1)};
  }

  void attend(char const* name, md::attention_options const& options, md::tensor_view<float const, 2> lse) const noexcept {
    took(name, md::attention_scores(on, options, query(), keys(), row_cut, cut, limits(), lse, {}, sum(), max(), head_sum(), at_.scratch));
    wrote_attention(name);
  }

  /// Both heads of one request follow the first list; then the same slots in pages of four.
  void compact() const noexcept {
    auto const bytes = static_cast<md::index_t>(sizeof(Real)) * at_.dim;
    std::int32_t const table[] = {3, 1, 0, 2, 5, 4};
    md::kv_cache layer;
    layer.data = at_.keys, layer.heads = kv_heads, layer.head_stride = tokens * bytes, layer.slot_stride = bytes, layer.slot_bytes = bytes;
    md::kv_cache paged = layer;
    paged.pages.pages32 = table, paged.pages.page_slots = 4, paged.pages.page_stride = 4 * bytes;
    took("compact", md::check(paged.pages, 1, longest, tokens / 4));
    for (md::kv_cache const& cache : {layer, paged}) {  // two calls: both are the same memory
      took("compact", md::compact(on, md::view(&cache, 1), {1, nullptr, nullptr, 0}, first(keep())));
      wrote_("compact", at_.keys, kv_heads * tokens * at_.dim);
    }
  }

  void took(char const* name, md::status s) const noexcept { wrote_(name, &s, 1); }
  void wrote_keep(char const* name) const noexcept {
    wrote_(name, at_.kept_counts, images);
    for (md::index_t s = 0; s < images; ++s) { wrote_(name, &keep().indices(s, 0), at_.kept_counts[s]); }
  }
  void wrote_rows(char const* name) const noexcept { wrote_(name, at_.rows, tokens * at_.dim); }
  void wrote_merge(char const* name) const noexcept {
    wrote_keep(name);
    wrote_rows(name);
    wrote_(name, at_.source, tokens);
    wrote_(name, at_.sizes, tokens);
  }
  void wrote_attention(char const* name) const noexcept {
    wrote_(name, at_.sum, tokens);
    wrote_(name, at_.max, tokens);
    wrote_(name, at_.head_sum, query_rows * longest);
  }

  word_memory<Real, Out, Index> const& at_;
  Wrote const& wrote_;
};

/// All of them, in an order in which each reads what an earlier one wrote.
template <class Backend, class Real, class Out, class Index, class Wrote>
void call_every_word(word_memory<Real, Out, Index> const& memory, Wrote const& wrote) noexcept {
  every_word<Backend, Real, Out, Index, Wrote> const words(memory, wrote);
  words.score();
  words.select();
  words.apply();
  words.methods();
  words.plans();
  words.budgets();
}

}  // namespace words
