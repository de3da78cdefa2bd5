// SPDX-License-Identifier: Apache-2.0

// What an engine does with the library: select, merge, mask, and compact a cache.

#include <cstdint>
#include <cstring>

#include <mustdrop/plan.hpp>
#include <mustdrop/reference/compact.hpp>
#include <mustdrop/reference/dual_mask.hpp>
#include <mustdrop/reference/top_k.hpp>
#include <mustdrop/reference/window_merge.hpp>
#include <mustdrop/reference/window_similarity.hpp>

namespace md = mustdrop;

namespace {

constexpr md::reference::backend on{};
alignas(64) unsigned char scratch_bytes[256];
constexpr md::workspace scratch{scratch_bytes, sizeof scratch_bytes};

struct kept_tokens {
  std::int32_t indices[8] = {}, count = 0;

  md::keep_lists<std::int32_t> lists() { return {md::view(indices, 1, 8), md::view(&count, 1)}; }
};

bool selects() {
  float const scores[] = {0.5f, 0.25f, 0.75f, 0.5f};
  std::int32_t const wanted[] = {2};
  kept_tokens best;
  md::status const s = md::top_k(on, {}, md::view(scores, 4), {}, md::view(wanted, 1), best.lists(), scratch);
  return s == md::status::ok && best.count == 2 && best.indices[0] == 0 && best.indices[1] == 2;
}

bool merges() {
  md::token_grid const grid{2, 2, 1, 0, 0};
  float const features[] = {1, 2, 1, 2, 1, 2, 1, 2};
  float similarity[1], rows[8], sizes[4];
  std::int32_t source[4];
  kept_tokens anchors;
  md::status s = md::window_similarity(on, {2, 2}, md::view(features, 4, 2), {}, md::view(&grid, 1), md::view(similarity, 1, 1), scratch);
  if (s != md::status::ok) { return false; }
  s = md::window_merge(on, {}, {2, 2}, md::view(features, 4, 2), {}, md::view(&grid, 1), md::view(similarity, 1, 1), {},
                       md::view(rows, 4, 2), md::view(sizes, 4), md::view(source, 4), anchors.lists(), scratch);
  return s == md::status::ok && anchors.count == 1 && sizes[0] == 4 && rows[0] == 1 && rows[1] == 2;
}

bool masks_and_compacts() {
  float const sum[] = {4, 0, 0, 4}, max[] = {1, 0, 0, 1};
  kept_tokens seen;
  md::keep_lists<std::int32_t const> const nothing_protected{};
  md::status s = md::dual_mask(on, {}, md::view(sum, 4), md::view(max, 4), {}, nothing_protected, {}, seen.lists(), scratch);
  if (s != md::status::ok || seen.count != 2) { return false; }

  char slots[] = "abcd";
  md::kv_cache keys;
  keys.data = slots, keys.slot_stride = 1, keys.slot_bytes = 1;
  s = md::compact(on, md::view(static_cast<md::kv_cache const*>(&keys), 1), {}, seen.lists());
  return s == md::status::ok && std::memcmp(slots, "ad", 2) == 0;
}

}  // namespace

int main() { return selects() && merges() && masks_and_compacts() ? 0 : 1; }
