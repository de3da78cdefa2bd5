// SPDX-License-Identifier: Apache-2.0
#pragma once

// mustdrop in llama.cpp, from outside: queries, keys and maps are read off a running graph, and what stays is said in llama.cpp's own calls.
//
//   observer.watch    in llama_context_params.cb_eval: where tokens are in the cache, and what chosen rows attend to at chosen layers
//   observer.keep     tokens that stay, as ranges of positions for llama_memory_seq_rm
//   observer.move     tokens get later positions, by llama_memory_seq_add
//   observer.compact  the survivors move to the front of the cache, so that attention runs over fewer cells
//
// For one sequence in a cache of its own (n_seq_max 1), of a model with causal attention over all of it: no sliding window, ALiBi or sinks.
// A token is a number: how many of those that are in the cache came before it. What changes the cache other than through llama_decode and these calls,
// and a llama_decode that fails, ask for llama_memory_clear and forget(). Whatever is not as expected is a status, never a guess, and stays until
// forget(); llama.cpp's own computation goes on. Only out of memory ends the program, as it does inside ggml.

#include <algorithm>
#include <functional>
#include <utility>
#include <vector>

#include <llama.h>

#include <mustdrop/attention_scores.hpp>
#include <mustdrop/plan.hpp>

#include "mustdrop_ggml.hpp"

namespace mustdrop_llama {

using position_range = std::pair<llama_pos, llama_pos>;  // [first, second), as llama_memory_seq_rm takes them

/// The positions of all tokens but those in `keep`, as few ranges. Tokens that share a position (M-RoPE's images) cannot leave one by one.
inline md::status ranges_to_remove(md::tensor_view<std::int32_t const, 1> keep, std::vector<llama_pos> const& positions,
                                   std::vector<position_range>& ranges) {
  if (md::status const s = md::check(keep, static_cast<index_t>(positions.size())); s != md::status::ok) { return s; }
  if (std::adjacent_find(positions.begin(), positions.end(), std::greater_equal<>()) != positions.end()) { return md::status::unsupported; }
  ranges.clear();
  auto const drop = [&](index_t begin, index_t end) {
    if (begin < end) { ranges.emplace_back(positions[static_cast<std::size_t>(begin)], positions[static_cast<std::size_t>(end - 1)] + 1); }
  };
  index_t next = 0;
  for (index_t i = 0; i < keep.size(0); ++i) { drop(next, keep(i)), next = index_t{keep(i)} + 1; }
  drop(next, static_cast<index_t>(positions.size()));
  return md::status::ok;
}

struct layer_scores {
  int layer = 0;
  std::vector<float> sum, max;  // of what chosen rows attend to, a number a token
};

template <class Backend>
class observer {
 public:
  /// Scores of these layers; scores() has them in ascending order.
  observer(Backend const& on, std::vector<int> layers) : on_(on) {
    std::sort(layers.begin(), layers.end());
    layers.erase(std::unique(layers.begin(), layers.end()), layers.end());
    for (int const layer : layers) { scores_.push_back({layer, {}, {}}); }
  }
  observer& operator=(observer&&) = delete;  // llama.cpp holds its address

  /// Before the context is made; the observer must outlive it.
  void attach(llama_context_params& params) { params.cb_eval = &observer::on_node, params.cb_eval_user_data = this; }

  /// From now on rows of tokens from `first` on count, and add up in new scores. Until rest() graphs are cut at the chosen layers.
  void watch(index_t first) {
    first_ = first;
    for (auto& s : scores_) { s.sum.clear(), s.max.clear(); }
  }
  void rest() { first_ = -1; }
  void forget() { rest(), cells_.clear(), positions_.clear(), turning_ = false, status_ = md::status::ok; }  // after llama_memory_clear

  std::vector<layer_scores> const& scores() const { return scores_; }
  std::vector<llama_pos> const& positions() const { return positions_; }  // of each token in the cache
  std::vector<std::int32_t> const& cells() const { return cells_; }
  index_t cells_attended() const { return n_kv_; }  // by the last graph: all up to the last used one, padded
  md::status status() const { return status_; }     // the first that was not ok

  /// Tokens not in `keep` leave the cache. Their cells are free; those before the last used one still cost time until compact().
  md::status keep(llama_context* context, md::tensor_view<std::int32_t const, 1> keep) {
    if (md::status const s = ready(context); s != md::status::ok) { return s; }
    // [docs/llama_cpp.md 5]
    std::vector<position_range> ranges;
    if (md::status const s = ranges_to_remove(keep, positions_, ranges); s != md::status::ok) { return s; }
    for (auto const& [begin, end] : ranges) {
      if (!llama_memory_seq_rm(llama_get_memory(context), 0, begin, end)) { return note(md::status::unsupported), status_; }
    }
    // [end]
    auto const shrink = [keep](auto& values) {
      for (index_t i = 0; i < keep.size(0); ++i) { values[static_cast<std::size_t>(i)] = values[static_cast<std::size_t>(keep(i))]; }
      values.resize(static_cast<std::size_t>(keep.size(0)));
    };
    for (auto& s : scores_) {
      if (!s.sum.empty()) { s.sum.resize(cells_.size()), s.max.resize(cells_.size()), shrink(s.sum), shrink(s.max); }
    }
    if (first_ > 0) {
      auto const gone = static_cast<index_t>(cells_.size()) - keep.size(0), tokens = static_cast<index_t>(cells_.size());
      first_ = first_ >= tokens ? first_ - gone : std::lower_bound(keep.data, keep.data + keep.size(0), first_) - keep.data;
    }
    shrink(cells_), shrink(positions_);
    return md::status::ok;
  }

  /// The last to.size() tokens to later positions, ascending: the next llama_decode rotates their keys. For 1-D RoPE, and keys not quantised.
  md::status move(llama_context* context, std::vector<llama_pos> const& to) {
    if (md::status const s = ready(context); s != md::status::ok) { return s; }
    if (quantised_ || !llama_memory_can_shift(llama_get_memory(context))) { return md::status::unsupported; }  // its #25636: a null pointer
    if (to.size() > positions_.size()) { return md::status::bad_shape; }
    std::size_t const first = positions_.size() - to.size();
    for (std::size_t i = 0; i < to.size(); ++i) {
      if (to[i] < positions_[first + i] || to[i] > 1 << 30 || (i > 0 && to[i] <= to[i - 1])) { return md::status::bad_argument; }
    }
    for (std::size_t i = to.size(); i-- > 0;) {  // the last one first: nobody is where it goes
      llama_pos& at = positions_[first + i];
      llama_memory_seq_add(llama_get_memory(context), 0, at, at + 1, to[i] - at), turning_ |= to[i] != at, at = to[i];
    }
    return md::status::ok;
  }

  /// Through the host: llama.cpp writes a sequence without the holes that keep() left, and reads it into the first cells; if it does not read it, the
  /// cache is empty and the observer knows. unsupported between move() and the next llama_decode: keys would be written that are not rotated yet.
  md::status compact(llama_context* context) {
    if (md::status const s = ready(context); s != md::status::ok) { return s; }
    std::vector<std::int32_t> order = cells_;
    std::sort(order.begin(), order.end());
    if (order.empty() || static_cast<std::size_t>(order.back()) + 1 == order.size()) { return md::status::ok; }  // no holes
    if (turning_ || std::adjacent_find(order.begin(), order.end()) != order.end()) { return md::status::unsupported; }
    std::vector<std::uint8_t> state(llama_state_seq_get_size(context, 0));
    std::size_t const bytes = llama_state_seq_get_data(context, state.data(), state.size(), 0);
    if (bytes == 0) { return md::status::unsupported; }
    llama_memory_clear(llama_get_memory(context), false);
    if (llama_state_seq_set_data(context, state.data(), bytes, 0) == 0) {
      return llama_memory_clear(llama_get_memory(context), false), forget(), md::status::unsupported;
    }
    for (auto& cell : cells_) { cell = static_cast<std::int32_t>(std::lower_bound(order.begin(), order.end(), cell) - order.begin()); }
    return md::status::ok;
  }

 private:
  static bool on_node(ggml_tensor* node, bool ask, void* self) noexcept {
    auto& o = *static_cast<observer*>(self);
    if (ask) { return o.wants(node); }
    return o.note(o.read(node)), true;
  }

  void note(md::status s) { status_ = status_ == md::status::ok ? s : status_; }

  /// Nothing went wrong so far, and ours is the context's only sequence, which ends where it did.
  md::status ready(llama_context const* context) {
    if (status_ != md::status::ok) { return status_; }
    if (llama_n_seq_max(context) != 1) { return md::status::unsupported; }
    llama_pos const last = positions_.empty() ? -1 : positions_.back();
    if (llama_memory_seq_pos_max(llama_get_memory(context), 0) != last) { note(md::status::bad_argument); }
    return status_;
  }

  layer_scores* of_layer(int layer) {
    auto const found = std::find_if(scores_.begin(), scores_.end(), [layer](auto const& s) { return s.layer == layer; });
    return found == scores_.end() || layer < 0 ? nullptr : &*found;
  }

  layer_scores* attention_of(ggml_tensor const* node) {
    if (node->op == GGML_OP_SOFT_MAX) { return of_layer(number_in_name(node, "kq_soft_max-%d")); }
    if (node->op != GGML_OP_FLASH_ATTN_EXT) { return nullptr; }
    ggml_tensor const* const k = node->src[1]->op == GGML_OP_CPY ? node->src[1]->src[0] : node->src[1];  // an f32 cache is narrowed first
    return of_layer(number_in_name(k->view_src, "cache_k_l%d"));
  }

  /// Which cells and positions new tokens get is input of a graph: it can be read when llama.cpp asks, and no graph is cut for it.
  bool wants(ggml_tensor const* node) {
    if (node->op == GGML_OP_ROPE) { rope_positions_ = node->src[1]; }
    int const written = node->op == GGML_OP_SET_ROWS ? number_in_name(node->view_src, "cache_k_l%d") : -1;
    if (written >= 0 && (first_layer_ < 0 || written == first_layer_)) {
      first_layer_ = written;
      note(admit(node->src[1], rope_positions_)), quantised_ = ggml_is_quantized(node->type);
    }
    layer_scores const* const layer = attention_of(node);
    if (layer != nullptr) { n_kv_ = node->op == GGML_OP_SOFT_MAX ? node->ne[0] : node->src[1]->ne[1]; }
    return layer != nullptr && first_ >= 0 && first_ < static_cast<index_t>(cells_.size()) && status_ == md::status::ok;
  }

  md::status admit(ggml_tensor const* cells, ggml_tensor const* positions) {
    if (cells->type != GGML_TYPE_I64 || positions == nullptr || positions->type != GGML_TYPE_I32) { return md::status::unsupported; }
    if (positions->ne[0] < cells->ne[0] || cells->data == nullptr || positions->data == nullptr) { return md::status::bad_shape; }
    added_ = cells->ne[0], turning_ = false;
    auto const* const at = reinterpret_cast<std::int64_t const*>(on_host(cells, memory_[0]));
    auto const* const where = reinterpret_cast<std::int32_t const*>(on_host(positions, memory_[1]));
    for (index_t i = 0; i < added_; ++i) { cells_.push_back(static_cast<std::int32_t>(at[i])), positions_.push_back(where[i]); }
    return md::status::ok;
  }

  md::status read(ggml_tensor const* node) {
    bool const flash = node->op == GGML_OP_FLASH_ATTN_EXT;
    ggml_tensor const* const rows = flash ? node->src[0] : node;  // of ne[1] rows; map or queries
    if (rows->ne[3] != 1 || rows->type != GGML_TYPE_F32 || parameter(node, 1) != 0 || node->src[flash ? 4 : 2] != nullptr) {
      return md::status::unsupported;
    }
    auto const tokens = static_cast<index_t>(cells_.size());
    index_t const skipped = std::max(index_t{0}, first_ - (tokens - added_));
    ggml_tensor const* const mask = node->src[flash ? 3 : 1];  // tells whether attention is causal, and whether the cache is as we think
    if (rows->ne[1] != added_ || rows->data == nullptr || mask == nullptr ||
        !is_causal(mask, on_host(mask, memory_[0]), cells_, added_, skipped)) {
      return md::status::bad_argument;
    }
    auto const view = view_of<float>(rows, on_host(rows, memory_[0])).narrow(1, skipped, added_ - skipped);
    layer_scores& into = *attention_of(node);
    into.sum.resize(cells_.size()), into.max.resize(cells_.size());
    if (!flash) { return from_map(view, into); }
    // [docs/llama_cpp.md 3]
    md::attention_options options;
    options.scale = parameter(node, 0), options.softcap = parameter(node, 2);
    limits_.clear();
    for (index_t t = tokens - added_ + skipped; t < tokens; ++t) { limits_.push_back(static_cast<std::int32_t>(t + 1)); }
    ggml_tensor const* const k = node->src[1];
    return with_keys(k, on_host(k, memory_[1]), cells_, key_rows_, [&](auto keys) {
      md::attention_shape const shape{view.size(0), view.size(1), tokens, keys.size(0), keys.size(2)};
      return md::attention_scores(on_, options, view, keys, {}, {}, md::view(std::as_const(limits_).data(), limits_.size()), {}, {},
                                  md::view(into.sum.data(), tokens), md::view(into.max.data(), tokens), {},
                                  workspace_in(scratch_, md::attention_scores_workspace_size(on_, shape, {}, {})));
    });
    // [end]
  }

  /// A map's columns are cells: sums go there and back, so that they add up in the same order as from queries and keys.
  md::status from_map(md::tensor_view<float const, 3> map, layer_scores& into) {
    index_t const columns = map.size(2);
    std::vector<float> sum(static_cast<std::size_t>(columns)), max(sum.size());
    for (std::size_t t = 0; t < cells_.size(); ++t) { sum.data()[cells_[t]] = into.sum[t], max.data()[cells_[t]] = into.max[t]; }
    md::attention_shape const shape{map.size(0), map.size(1), columns, 0, 0};
    md::status const s = md::attention_scores(on_, {}, map, {}, {}, {}, {}, md::view(sum.data(), columns), md::view(max.data(), columns),
                                              {}, workspace_in(scratch_, md::attention_scores_workspace_size(on_, shape, {}, {})));
    for (std::size_t t = 0; t < cells_.size(); ++t) { into.sum[t] = sum.data()[cells_[t]], into.max[t] = max.data()[cells_[t]]; }
    return s;
  }

  Backend on_;
  std::vector<layer_scores> scores_;
  std::vector<std::int32_t> cells_, limits_;  // of each token; of each row
  std::vector<llama_pos> positions_;
  ggml_tensor const* rope_positions_ = nullptr;
  int first_layer_ = -1;  // that has a cache: there all layers' tokens are seen
  index_t first_ = -1, added_ = 0, n_kv_ = 0;
  bool turning_ = false, quantised_ = false;  // keys: wait for the next llama_decode to rotate them; are of such a type
  md::status status_ = md::status::ok;
  std::vector<char> memory_[2], scratch_;
  std::vector<float> key_rows_;
};

}  // namespace mustdrop_llama
