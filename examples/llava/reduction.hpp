// SPDX-License-Identifier: Apache-2.0
#pragma once

// Where the library's words are called: on pictures, between language layers, on the caches. Everything is the engine's own memory.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <mustdrop/kv_evict.hpp>

#include "config.hpp"
#include "language.hpp"
#include "plan_file.hpp"
#include "tensor.hpp"
#include "vision.hpp"

namespace llava {

enum class method { none, mustdrop, random, pooling, before };
/// "none", "mustdrop", …
char const* name_of(method method);

enum class token_reading { ran_on, papers, end };
enum class position_rule { kept, renumber };

/// How image tokens are reduced; defaults are the paper's.
struct reduction {
  llava::method method = llava::method::none;
  int tokens = 0;  // 0: no budget: thresholds decide
  token_reading reading = token_reading::ran_on;
  float merge_threshold = 0.8f;
  std::optional<merge_place> merge_at;  // empty: the features; for a plan that does not say: layer 0
  std::vector<int> prune_after;         // language layers; empty: default_prune_after
  float global_threshold = 0.001f, individual_threshold = 0.001f;
  position_rule positions = position_rule::kept;
  std::string plan;        // a plan file instead of scores
  unsigned long seed = 0;  // of random

  int kv_first_layer = 0;  // layers before it keep all the slots that they prefilled
  md::evict_policy kv_policy = md::evict_policy::survivors;
  int kv_budget = 0, kv_sinks = 4, kv_recent = 32;  // of output_aware
};

/// Throws input_error where options do not go together, whatever the model.
void check(reduction const& how);

/// The paper's {2, 6, 10, 14} of 32 layers, scaled; models of fewer than 16 layers prune after layer 0 only.
std::vector<int> default_prune_after(int layers);

/// Whether windows merge after vision layer 0, or on the features that go to the projector.
bool merges_early(reduction const& how);

/// A picture on its way into the language model.
struct image_rows {
  matrix rows;                        // [rows, text hidden]
  std::vector<std::int32_t> anchor;   // the patch whose position each row has, ascending
  std::vector<std::int32_t> source;   // the row of each patch
  std::vector<std::int32_t> now;      // which rows are left, ascending
  std::vector<std::int32_t> key_now;  // the key set, as indices into `now`
  std::vector<float> cls_attention;   // of each row, mean over heads and merged patches; empty where the method does not ask CLS
  std::vector<std::int32_t> counts;   // how many each stage between layers shall leave; empty: thresholds decide
  image_plan plan;                    // what has been decided so far
};

/// The tower, stage 1 (merge, key set, or whatever the method does in front of the language model) and the projector. `given` is this picture's
/// part of a plan file. Times of the parts are added to vision_ms and projector_ms.
image_rows prepare_picture(computer& on, config const& settings, checkpoint const& weights, std::vector<float> const& pixels,
                           reduction const& how, int number, image_plan const* given, double& vision_ms, double& projector_ms);

/// The sequence in the language model: which token each row is, and where it stands.
struct sequence {
  matrix hidden;
  std::vector<std::int32_t> positions;
  std::vector<std::int32_t> ids;  // index of each row's token in the whole prompt, before any stage in the language model
};

/// Where a picture's rows are in the prompt.
struct image_span {
  std::int32_t begin = 0, rows = 0;  // ids
};

/// Stage 2: what the layer that just ran says about the image tokens. Rows leave `sequence` and each picture's `now`.
void drop_after_layer(computer& on, text_config const& t, reduction const& how, int layer, bool given, layer_queries const& queries,
                      layer_cache const& cache, std::vector<image_span> const& spans, std::vector<image_rows>& images, sequence& s);

/// Stage 3: the caches of layers from how.kv_first_layer on keep what is left. ids[l] are the tokens in the cache of layer l, before and after.
/// Returns for each layer what its slots hold.
std::vector<std::vector<md::slot_kind>> evict_after_prefill(computer& on, reduction const& how, std::vector<image_span> const& spans,
                                                            std::vector<image_rows> const& images, std::vector<layer_cache>& caches,
                                                            std::vector<std::vector<std::int32_t>>& ids);

/// output_aware in decode: attention of the newest token accumulates in scores; slots beyond the budget go.
void evict_in_decode(computer& on, text_config const& t, reduction const& how, layer_queries const& queries, layer_cache& cache,
                     std::vector<md::slot_kind>& kinds, std::vector<float>& scores);

}  // namespace llava
