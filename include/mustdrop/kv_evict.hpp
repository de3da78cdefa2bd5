// SPDX-License-Identifier: Apache-2.0
#pragma once

// kv_evict: which slots of a KV cache stay.
//
//   survivors      every slot but the dropped ones (the released code: what the last prefill stage left)
//   key_set_only   text and key set (the paper's text)
//   output_aware   text, key set, the first `sinks` and the last `recent` slots of the segment; then visual slots by score until
//                  `budget` slots stay. Protected slots stay even above the budget; dropped slots are never protected and never stay.
//
// Shapes      scores        [slots] or {}          float: accumulated decode attention (attention_scores); {}: all 0
//             kind          [slots]                what each slot holds
//             requested     [segments] or {}       the budget of each segment; {}: options.budget
//             keep.indices  [segments, capacity]   int32 or int64, increasing; capacity ≥ segments.bound(slots)
//             keep.counts   [segments]             slots that stay
//             One segment per keep set: a request (layers share it), a layer, or a KV head. That is how granularity is said.
// Blocks      block > 1: slots stay or go in runs of `block`, counted from the segment's begin (paged caches cannot free less). A block stays
//             whole, dropped slots included, if any of its slots must; its score is the best of its visual slots; a partial block
//             counts as a block; budget / block blocks stay, rounded down.
// Ties, NaN   the smaller index wins a tie; a NaN score ranks below every number.
// Known names streaming = output_aware, no scores, budget sinks + recent · h2o: sinks 0 · tova: sinks 0, recent 0.
// Errors      bad_shape            sizes disagree or are negative; keep.capacity() < segments.bound(slots)
//             bad_stride           a view is not dense along its last axis
//             bad_argument         sinks or recent negative, block < 1, budget < -1; output_aware with neither budget nor requested
//             workspace_too_small  fewer than kv_evict_workspace_size(...) bytes, or not aligned to 64
// Precondition  check(segments, slots) is ok; requested is not negative; kinds are of the enumeration; outputs overlap no input.
// Cost        reads scores and kinds once or twice; O(slots). Moves nothing: compact does.
// Source      MustDrop §3.3; StreamingLLM, H2O and TOVA as special cases.
// See         docs/kv_evict.md; reference/kv_evict.hpp is the definition as plain loops.

#include <mustdrop/backend.hpp>
#include <mustdrop/status.hpp>
#include <mustdrop/view.hpp>

MUSTDROP_NAMESPACE_BEGIN

enum class evict_policy { survivors, key_set_only, output_aware };

enum class slot_kind : std::uint8_t {
  text,     ///< system, question or generated token
  key_set,  ///< image token that the vision encoder's CLS points at
  visual,   ///< any other image token that is a prefill survivor
  dropped,  ///< not a prefill survivor, still in the cache
};

struct evict_options {
  evict_policy policy = evict_policy::survivors;
  index_t budget = -1;  // slots that stay, of all kinds; only output_aware reads it, and sinks and recent
  index_t sinks = 4, recent = 32;
  index_t block = 1;
};

/// How many of `slots` slots stay at the most, if `shielded` of them are text, key set, sinks or recent. Exact for output_aware with
/// block 1 where nothing is dropped. Needs no data.
MUSTDROP_HD constexpr index_t retained_count(evict_options options, index_t slots, index_t shielded) noexcept {
  if (options.policy != evict_policy::output_aware || options.budget < 0 || options.block < 1) { return slots; }
  index_t const budget = options.budget / options.block * options.block, most = shielded * options.block;  // each in a block of its own
  index_t const kept = budget > most ? budget : most;
  return kept < slots ? kept : slots;
}

template <class Backend, require_backend<Backend> = 0>
constexpr std::size_t kv_evict_workspace_size(Backend const& backend, index_t slots, segments const& segments) noexcept {
  return kv_evict_workspace_size_impl(backend, slots, segments);
}

template <class Backend, class Index, require_backend<Backend> = 0>
status kv_evict(Backend const& backend, evict_options const& options, tensor_view<float const, 1> scores,
                tensor_view<slot_kind const, 1> kind, segments const& segments, tensor_view<std::int32_t const, 1> requested,
                keep_lists<Index> keep, workspace scratch) noexcept {
  static_assert(is_index_v<Index>, "keep lists hold int32 or int64");
  index_t const slots = kind.size(0);
  if (status const s = keep.shape(segments); s != status::ok) { return s; }
  if (!well_formed(scores) || !well_formed(kind) || !well_formed(requested)) { return status::bad_shape; }
  if (!scores.absent() && scores.size(0) != slots) { return status::bad_shape; }
  if (!requested.absent() && requested.size(0) != segments.count) { return status::bad_shape; }
  if (keep.capacity() < segments.bound(slots)) { return status::bad_shape; }
  if (!unit_stride(scores) || !unit_stride(kind) || !unit_stride(requested)) { return status::bad_stride; }
  if (options.budget < -1 || options.sinks < 0 || options.recent < 0 || options.block < 1) { return status::bad_argument; }
  if (options.policy == evict_policy::output_aware && options.budget < 0 && requested.absent()) { return status::bad_argument; }
  if (!scratch.holds(kv_evict_workspace_size(backend, slots, segments))) { return status::workspace_too_small; }
  return kv_evict_impl(backend, options, scores, kind, segments, requested, keep, scratch);
}

MUSTDROP_NAMESPACE_END
