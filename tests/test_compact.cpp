// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "backends.hpp"
#include "memory.hpp"
#include "ragged.hpp"

namespace {

using Bytes = std::vector<std::uint8_t>;

constexpr md::index_t huge = std::numeric_limits<md::index_t>::max();

template <class Backend, class Index = std::int32_t>
md::status compact(std::vector<md::kv_cache> const& caches, Lists const& keep, Offsets const& offsets = {}) {
  kept_tokens<Index> kept(keep);
  md::segments const segments{static_cast<md::index_t>(keep.size()), offsets.empty() ? nullptr : offsets.data(), nullptr, 0};
  return md::compact(Backend{}, md::view(caches.data(), caches.size()), segments, kept.lists());
}

/// A cache whose bytes are letters.
template <class Backend>
std::string compacted(std::string memory, md::kv_cache cache, Lists const& keep, Offsets const& offsets = {}) {
  cache.data = memory.data();
  std::vector<md::kv_cache> const caches(1, cache);
  EXPECT_EQ(compact<Backend>(caches, keep, offsets), md::status::ok);
  return memory;
}

/// One head of one request, a slot is a letter.
md::kv_cache letters() {
  md::kv_cache cache;
  cache.slot_stride = 1, cache.slot_bytes = 1;
  return cache;
}

/// Where byte b of slot i of head h of request q lies, and which list the head follows, as the test understands a layout.
struct layout {
  md::kv_cache cache;  // data is where byte 0 of the memory lies, moved by `origin`
  std::size_t origin = 0;
  std::function<std::size_t(std::size_t q, std::size_t h, std::size_t i, std::size_t b)> place;
  std::function<std::size_t(std::size_t q, std::size_t h)> list;
};

/// Compaction out of place, byte by byte, from the definition.
Bytes copied(Bytes const& memory, std::vector<layout> const& layouts, Lists const& keep, Offsets const& offsets) {
  Bytes out = memory;
  for (layout const& l : layouts) {
    for (std::size_t q = 0; q < static_cast<std::size_t>(l.cache.requests); ++q) {
      for (std::size_t h = 0; h < static_cast<std::size_t>(l.cache.heads); ++h) {
        auto const& list = keep[l.list(q, h)];
        auto const begin = offsets.empty() ? 0 : static_cast<std::size_t>(offsets[l.list(q, h)]);
        for (std::size_t i = 0; i < list.size(); ++i) {
          for (std::size_t b = 0; b < static_cast<std::size_t>(l.cache.slot_bytes); ++b) {
            out[l.place(q, h, begin + i, b)] = memory[l.place(q, h, begin + static_cast<std::size_t>(list[i]), b)];
          }
        }
      }
    }
  }
  return out;
}

template <class Backend, class Index>
Bytes in_place(Bytes memory, std::vector<layout> const& layouts, Lists const& keep, Offsets const& offsets) {
  std::vector<md::kv_cache> caches;
  for (layout const& l : layouts) {
    caches.push_back(l.cache);
    caches.back().data = memory.data() + l.origin;
  }
  EXPECT_EQ((compact<Backend, Index>(caches, keep, offsets)), md::status::ok);
  return memory;
}

/// All of the memory is compared: what moved, what stayed, and what lies between and around.
template <class Backend>
void expect_compacts(std::mt19937& random, std::size_t bytes, std::vector<layout> const& layouts, Lists const& keep,
                     Offsets const& offsets = {}) {
  Bytes memory(bytes);
  for (std::uint8_t& byte : memory) { byte = static_cast<std::uint8_t>(random()); }
  auto const want = copied(memory, layouts, keep, offsets);
  EXPECT_EQ((in_place<Backend, std::int32_t>(memory, layouts, keep, offsets)), want);
  EXPECT_EQ((in_place<Backend, std::int64_t>(memory, layouts, keep, offsets)), want);
  EXPECT_EQ((in_place<md::reference::backend, std::int32_t>(memory, layouts, keep, offsets)), want);
}

/// Each slot stays with a chance that differs from list to list, 0 and 1 included.
Lists random_lists(std::mt19937& random, std::size_t count, int slots) {
  Lists lists(count);
  for (auto& list : lists) {
    auto const chance = random() % 5;
    for (int i = 0; i < slots; ++i) {
      if (random() % 4 < chance) { list.push_back(i); }
    }
  }
  return lists;
}

template <class Backend>
struct Compact : testing::Test {};
TYPED_TEST_SUITE(Compact, Backends);

TYPED_TEST(Compact, KeptSlotsMoveToTheFrontAndTheRestKeepsItsBytes) {
  EXPECT_EQ(compacted<TypeParam>("abcdef", letters(), {{1, 2, 5}}), "bcfdef");
}

TYPED_TEST(Compact, KeepingAllOrNothingChangesNothing) {
  EXPECT_EQ(compacted<TypeParam>("abcd", letters(), {{0, 1, 2, 3}}), "abcd");
  EXPECT_EQ(compacted<TypeParam>("abcd", letters(), {{}}), "abcd");
  EXPECT_EQ(compacted<TypeParam>("abcd", letters(), {{0, 1}}), "abcd");
}

TYPED_TEST(Compact, OneSlotMovesAlone) {
  EXPECT_EQ(compacted<TypeParam>("a", letters(), {{0}}), "a");
  EXPECT_EQ(compacted<TypeParam>("abcd", letters(), {{3}}), "dbcd");
}

TYPED_TEST(Compact, NoCachesNoRequestsNoHeadsAndNoBytesAreFine) {
  EXPECT_EQ(compact<TypeParam>({}, {{1}}), md::status::ok);
  EXPECT_EQ(compact<TypeParam>({}, {}), md::status::ok);
  md::kv_cache no_requests = letters(), no_heads = letters(), no_bytes = letters();  // and no data
  no_requests.requests = 0, no_heads.heads = 0, no_bytes.slot_bytes = 0;
  EXPECT_EQ(compact<TypeParam>({no_requests, no_heads, no_bytes}, {{1}}), md::status::ok);
}

TYPED_TEST(Compact, TokenMajorCachesMoveAllHeadsOfASlot) {
  md::kv_cache cache = letters();  // [slot][head 2][dim 2]: llama.cpp, SGLang
  cache.heads = 2, cache.head_stride = 2, cache.slot_stride = 4, cache.slot_bytes = 2;
  EXPECT_EQ(compacted<TypeParam>("aAbBcCdDeEfF", cache, {{0, 2}}), "aAbBeEfFeEfF");
}

TYPED_TEST(Compact, HeadMajorCachesMoveWithinEachHead) {
  md::kv_cache cache = letters();  // [head 2][slot 4]
  cache.heads = 2, cache.head_stride = 4;
  EXPECT_EQ(compacted<TypeParam>("abcdABCD", cache, {{1, 3}}), "bdcdBDCD");
}

TYPED_TEST(Compact, BatchesWithMoreCapacityThanLengthLeaveTheRestAlone) {
  md::kv_cache cache = letters();  // [request 2][head 2][capacity 4][dim 1], lengths 3 and 2: LibTorch, ONNX Runtime
  cache.requests = 2, cache.heads = 2, cache.request_stride = 8, cache.head_stride = 4;
  EXPECT_EQ(compacted<TypeParam>("abc-ABC-de--DE--", cache, {{0, 2}, {1}}), "acc-ACC-ee--EE--");
}

TYPED_TEST(Compact, TransposedVIsMovedPieceByPiece) {
  md::kv_cache cache = letters();  // [head 2][dim 3][cell 4]: llama.cpp without flash attention
  cache.heads = 2, cache.head_stride = 12, cache.slot_bytes = 3, cache.pieces = 3, cache.piece_stride = 4;
  EXPECT_EQ(compacted<TypeParam>("abcdefghijklABCDEFGHIJKL", cache, {{1, 3}}), "bdcdfhghjlklBDCDFHGHJLKL");
}

TYPED_TEST(Compact, PagesAreFollowedThroughTheTable) {
  md::kv_cache cache = letters();
  std::int32_t const pages[] = {2, 0};  // slots: a b | c d
  cache.pages.pages32 = pages, cache.pages.page_slots = 2, cache.pages.page_stride = 2;
  EXPECT_EQ(compacted<TypeParam>("cd--ab", cache, {{1, 2, 3}}), "dd--bc");
}

TYPED_TEST(Compact, Int64PageTablesSayTheSame) {
  md::kv_cache cache = letters();
  std::int64_t const pages[] = {2, 0, -1, 1, 3, -1};  // two requests of two pages, a table row has three entries
  cache.requests = 2;
  cache.pages.pages64 = pages, cache.pages.page_slots = 2, cache.pages.page_stride = 2, cache.pages.request_stride = 3;
  EXPECT_EQ(compacted<TypeParam>("cdABabCD", cache, {{1, 2, 3}, {0, 3}}), "ddADbcCD");
}

TYPED_TEST(Compact, PackedRequestsBeginAtTheirOffsets) {
  md::kv_cache cache = letters();
  cache.requests = 4;
  EXPECT_EQ(compacted<TypeParam>("abcABC12", cache, {{1, 2}, {}, {0, 2}, {1}}, {0, 3, 3, 6, 8}), "bccACC22");
}

TYPED_TEST(Compact, OneListMayServeAllRequestsAndHeads) {
  md::kv_cache cache = letters();
  cache.requests = 2, cache.heads = 2, cache.request_stride = 6, cache.head_stride = 3, cache.list_per_request = 0;
  EXPECT_EQ(compacted<TypeParam>("abcABCdefDEF", cache, {{2}}), "cbcCBCfefFEF");
}

TYPED_TEST(Compact, EachHeadMayHaveItsOwnList) {
  md::kv_cache cache = letters();
  cache.requests = 2, cache.heads = 2, cache.request_stride = 6, cache.head_stride = 3, cache.list_per_request = 2, cache.list_per_head = 1;
  EXPECT_EQ(compacted<TypeParam>("abcABCdefDEF", cache, {{2}, {1, 2}, {0}, {}}), "cbcBCCdefDEF");
}

TYPED_TEST(Compact, EachLayerMayHaveItsOwnListsInOneCall) {
  std::string first = "abcABC", second = "defDEF";
  md::kv_cache keys = letters(), values = letters();
  keys.requests = values.requests = 2, keys.request_stride = values.request_stride = 3;
  keys.data = first.data(), values.data = second.data(), values.first_list = 2;
  ASSERT_EQ(compact<TypeParam>({keys, values}, {{1}, {2}, {0, 2}, {1, 2}}), md::status::ok);
  EXPECT_EQ(first, "bbcCBC");
  EXPECT_EQ(second, "dffEFF");
}

TYPED_TEST(Compact, LayersThatAreNotPassedStayFull) {
  std::string layers[] = {"abc", "def", "ghi"};
  md::kv_cache last = letters();
  last.data = layers[2].data();
  ASSERT_EQ(compact<TypeParam>({last}, {{2}}), md::status::ok);
  EXPECT_EQ(layers[0] + layers[1] + layers[2], "abcdefihi");
}

TYPED_TEST(Compact, StridesMayRunBackwards) {
  std::string memory = "dcba";
  md::kv_cache cache = letters();
  cache.data = memory.data() + 3, cache.slot_stride = -1;
  ASSERT_EQ(compact<TypeParam>({cache}, {{1, 3}}), md::status::ok);
  EXPECT_EQ(memory, "dcdb");
}

TYPED_TEST(Compact, NanAndSignedZerosKeepTheirBits) {
  std::array<std::uint32_t, 6> cache{0x3f800000u, 0x7fc12345u, 0x80000000u, 0x7f800001u, 0xff800000u, 0xffffffffu};
  md::kv_cache floats;
  floats.data = cache.data(), floats.slot_stride = 8, floats.slot_bytes = 8;
  ASSERT_EQ(compact<TypeParam>({floats}, {{1, 2}}), md::status::ok);
  EXPECT_EQ(cache, (std::array<std::uint32_t, 6>{0x80000000u, 0x7f800001u, 0xff800000u, 0xffffffffu, 0xff800000u, 0xffffffffu}));
}

/// ggml's q8_0: 32 values and their scale.
struct q8_block {
  md::half scale;
  std::int8_t values[32];
};
static_assert(sizeof(q8_block) == 34);

float value_of(q8_block const& block, std::size_t d) { return md::widen(block.scale) * static_cast<float>(block.values[d]); }

TYPED_TEST(Compact, Q8BlocksTravelWithTheirScales) {
  constexpr std::size_t slots = 7, heads = 2, blocks = 2;  // head dim 64, [slot][head][block]
  auto const at = [](std::size_t i, std::size_t h, std::size_t b) { return (i * heads + h) * blocks + b; };
  auto const number = [](std::size_t i, std::size_t h, std::size_t d) {  // exact in the block's format: every slot has its own scale
    return static_cast<float>(1 << i) * (static_cast<float>(d) + 64 * static_cast<float>(h) - 64);
  };
  std::vector<q8_block> keys(slots * heads * blocks);
  for (std::size_t i = 0; i < slots; ++i) {
    for (std::size_t h = 0; h < heads; ++h) {
      for (std::size_t d = 0; d < 64; ++d) {
        q8_block& block = keys[at(i, h, d / 32)];
        block.scale = md::narrow<md::half>(static_cast<float>(1 << i));
        block.values[d % 32] = static_cast<std::int8_t>(static_cast<int>(d + 64 * h) - 64);
      }
    }
  }
  md::kv_cache cache;
  cache.data = keys.data(), cache.heads = heads, cache.slot_bytes = blocks * sizeof(q8_block);
  cache.head_stride = cache.slot_bytes, cache.slot_stride = cache.slot_bytes * static_cast<md::index_t>(heads);
  std::vector<int> const keep{0, 2, 3, 6};
  ASSERT_EQ(compact<TypeParam>({cache}, {keep}), md::status::ok);
  for (std::size_t i = 0; i < keep.size(); ++i) {
    for (std::size_t h = 0; h < heads; ++h) {
      for (std::size_t d = 0; d < 64; ++d) {
        EXPECT_EQ(value_of(keys[at(i, h, d / 32)], d % 32), number(static_cast<std::size_t>(keep[i]), h, d)) << i << ' ' << h << ' ' << d;
      }
    }
  }
}

TYPED_TEST(Compact, ScalesInASideArrayMoveByAnEntryOfTheirOwn) {
  constexpr std::size_t slots = 5, heads = 2, dim = 32;
  std::vector<std::int8_t> values(slots * heads * dim);  // [head][slot][dim]
  std::vector<md::half> scales(slots * heads);           // [slot][head]: a layout of its own
  for (std::size_t i = 0; i < slots; ++i) {
    for (std::size_t h = 0; h < heads; ++h) {
      scales[i * heads + h] = md::narrow<md::half>(static_cast<float>(1 + i));
      for (std::size_t d = 0; d < dim; ++d) { values[(h * slots + i) * dim + d] = static_cast<std::int8_t>(d + 40 * h + i); }
    }
  }
  md::kv_cache data, side;
  data.data = values.data(), data.heads = side.heads = heads;
  data.head_stride = slots * dim, data.slot_stride = dim, data.slot_bytes = dim;
  side.data = scales.data(), side.head_stride = 2, side.slot_stride = 2 * heads, side.slot_bytes = 2;
  std::vector<std::size_t> const keep{1, 4};
  ASSERT_EQ(compact<TypeParam>({data, side}, {{1, 4}}), md::status::ok);
  for (std::size_t i = 0; i < keep.size(); ++i) {
    for (std::size_t h = 0; h < heads; ++h) {
      EXPECT_EQ(md::widen(scales[i * heads + h]), static_cast<float>(1 + keep[i]));
      for (std::size_t d = 0; d < dim; ++d) {
        EXPECT_EQ(values[(h * slots + i) * dim + d], static_cast<std::int8_t>(d + 40 * h + keep[i]));
      }
    }
  }
}

TYPED_TEST(Compact, SlotsOfAnySizeAtAnyAddressMove) {
  auto random = printed_random(71);
  for (std::size_t const size : {1u, 3u, 17u, 31u, 32u, 33u, 64u, 1024u}) {
    for (std::size_t const gap : {0u, 5u}) {
      for (std::size_t const origin : {64u, 65u}) {
        layout one;
        one.origin = origin;
        one.cache.slot_bytes = static_cast<md::index_t>(size), one.cache.slot_stride = static_cast<md::index_t>(size + gap);
        one.place = [=](std::size_t, std::size_t, std::size_t i, std::size_t b) { return origin + i * (size + gap) + b; };
        one.list = [](std::size_t, std::size_t) { return 0; };
        expect_compacts<TypeParam>(random, origin + 20 * (size + gap) + 64, {one}, random_lists(random, 1, 20));
      }
    }
  }
}

// Behind 16 MiB a backend may store past the caches, in whole lines where slots and their addresses are such.
TYPED_TEST(Compact, AsMuchAsFillsEveryCacheMovesLikeALittle) {
  auto random = printed_random(73);
  std::size_t const slots = 30000;
  for (auto const [size, gap, origin] :
       {std::array<std::size_t, 3>{2048, 0, 64}, {2048, 64, 0}, {2048, 0, 65}, {2048, 3, 64}, {2040, 8, 0}}) {
    std::vector<int> list;
    for (std::size_t i = 0; i < slots; ++i) {
      if (i % 100 < 20 || random() % 4 == 0) { list.push_back(static_cast<int>(i)); }  // long runs, short runs, slots alone
    }
    ASSERT_GT(list.size() * size, std::size_t{16} << 20);
    ASSERT_GE(static_cast<std::size_t>(list.back()), 2 * list.size());
    Bytes memory(origin + slots * (size + gap) + 64);
    for (auto& byte : memory) { byte = static_cast<std::uint8_t>(random()); }
    aligned_memory held(memory.size());
    auto* const bytes = static_cast<std::uint8_t*>(held.lend().data);
    std::memcpy(bytes, memory.data(), memory.size());
    md::kv_cache cache;
    cache.data = bytes + origin;
    cache.slot_bytes = static_cast<md::index_t>(size), cache.slot_stride = static_cast<md::index_t>(size + gap);
    ASSERT_EQ(compact<TypeParam>({cache}, {list}), md::status::ok);
    for (std::size_t i = 0; i < list.size(); ++i) {
      std::uint8_t const* const from = memory.data() + origin + static_cast<std::size_t>(list[i]) * (size + gap);
      std::memmove(memory.data() + origin + i * (size + gap), from, size);
    }
    EXPECT_EQ(std::memcmp(bytes, memory.data(), memory.size()), 0) << size << " bytes, " << gap << " between, at " << origin;
  }
}

/// Axes of a cache in some order in memory, each with a gap behind it: request or page, head, slot, piece; a piece is the innermost run.
struct axes {
  std::array<std::size_t, 4> sizes, strides;
  std::size_t bytes;

  axes(std::array<std::size_t, 4> const& of, std::array<std::size_t, 4> const& order, std::size_t piece_bytes, std::size_t gap)
      : sizes(of), strides{}, bytes(piece_bytes) {
    for (auto axis = order.rbegin(); axis != order.rend(); ++axis) { strides[*axis] = bytes, bytes = bytes * sizes[*axis] + gap; }
  }
  md::index_t stride(std::size_t axis) const { return static_cast<md::index_t>(strides[axis]); }
};

/// Ways to share keep lists: one for all, one a request, one a head, one for each head of each request.
struct sharing {
  std::size_t per_request, per_head;
};
std::array<sharing, 4> ways_to_share(std::size_t heads) { return {{{0, 0}, {1, 0}, {0, 1}, {heads, 1}}}; }

TYPED_TEST(Compact, AnyOrderOfAxesMovesAsAnOutOfPlaceCopySays) {
  auto random = printed_random(72);
  std::size_t const requests = 2, heads = 3, capacity = 9, pieces = 2, piece_bytes = 3;
  std::array<std::size_t, 4> order{0, 1, 2, 3};
  do {
    for (sharing const share : ways_to_share(heads)) {
      std::size_t const first = random() % 3, origin = 7, gap = random() % 2 * 4;
      axes const a({requests, heads, capacity, pieces}, order, piece_bytes, gap);
      layout l;
      l.origin = origin;
      l.cache.requests = 2, l.cache.heads = 3, l.cache.slot_bytes = 6, l.cache.pieces = 2;
      l.cache.request_stride = a.stride(0), l.cache.head_stride = a.stride(1), l.cache.slot_stride = a.stride(2);
      l.cache.piece_stride = a.stride(3);
      l.cache.first_list = static_cast<md::index_t>(first), l.cache.list_per_request = static_cast<md::index_t>(share.per_request);
      l.cache.list_per_head = static_cast<md::index_t>(share.per_head);
      l.place = [=](std::size_t q, std::size_t h, std::size_t i, std::size_t b) {
        return origin + q * a.strides[0] + h * a.strides[1] + i * a.strides[2] + b / piece_bytes * a.strides[3] + b % piece_bytes;
      };
      l.list = [=](std::size_t q, std::size_t h) { return first + q * share.per_request + h * share.per_head; };
      expect_compacts<TypeParam>(random, origin + a.bytes + 9, {l}, random_lists(random, 9, 8));  // slot 8 is capacity only
    }
  } while (std::next_permutation(order.begin(), order.end()));
}

/// A paged cache in a pool of shuffled pages, its axes in some order.
layout paged(axes const& pool, std::size_t origin, std::size_t page_slots, std::size_t piece_bytes, std::size_t row,
             std::vector<std::int64_t> const& table) {
  layout l;
  l.origin = origin;
  l.cache.slot_bytes = static_cast<md::index_t>(pool.sizes[3] * piece_bytes), l.cache.pieces = static_cast<md::index_t>(pool.sizes[3]);
  l.cache.heads = static_cast<md::index_t>(pool.sizes[1]), l.cache.head_stride = pool.stride(1);
  l.cache.slot_stride = pool.stride(2), l.cache.piece_stride = pool.stride(3);
  l.cache.request_stride = huge;  // not used
  l.cache.pages.request_stride = static_cast<md::index_t>(row), l.cache.pages.page_slots = static_cast<md::index_t>(page_slots);
  l.cache.pages.page_stride = pool.stride(0);
  l.place = [=](std::size_t q, std::size_t h, std::size_t i, std::size_t b) {
    auto const page = static_cast<std::size_t>(table[q * row + i / page_slots]);
    return origin + page * pool.strides[0] + h * pool.strides[1] + i % page_slots * pool.strides[2] + b / piece_bytes * pool.strides[3] +
           b % piece_bytes;
  };
  l.list = [](std::size_t q, std::size_t) { return q; };
  return l;
}

TYPED_TEST(Compact, ShuffledPagesOfAnySizeAndOrderMoveAsAnOutOfPlaceCopySays) {
  auto random = printed_random(73);
  for (std::size_t const page_slots : {1u, 3u, 16u}) {
    std::size_t const requests = 2, slots = 35, heads = 2, row = (slots + page_slots - 1) / page_slots, pool_pages = requests * row + 2;
    std::array<std::size_t, 4> order{0, 1, 2, 3};  // page, head, slot (HND); 0, 2, 1, 3 is NHD; the piece before the slot is transposed
    do {
      std::vector<std::int64_t> table(pool_pages);
      std::iota(table.begin(), table.end(), 0);
      std::shuffle(table.begin(), table.end(), random);
      std::vector<std::int32_t> const table32(table.begin(), table.end());
      axes const pool({pool_pages, heads, page_slots, 2}, order, 3, 1);
      layout l = paged(pool, 5, page_slots, 3, row, table);
      l.cache.requests = 2;
      auto const keep = random_lists(random, requests, static_cast<int>(slots));
      l.cache.pages.pages64 = table.data();
      EXPECT_EQ(md::check(l.cache.pages, 2, static_cast<md::index_t>(slots), static_cast<md::index_t>(pool_pages)), md::status::ok);
      expect_compacts<TypeParam>(random, 5 + pool.bytes + 9, {l}, keep);
      l.cache.pages.pages64 = nullptr, l.cache.pages.pages32 = table32.data();
      expect_compacts<TypeParam>(random, 5 + pool.bytes + 9, {l}, keep);
    } while (std::next_permutation(order.begin(), order.end()));
  }
}

TYPED_TEST(Compact, KAndVOfOnePoolHaveStridesOfTheirOwn) {
  // vLLM: (2, pages, slots, heads, d), (pages, 2, slots, heads, d) and packed (pages, heads, slots, 2·d); TensorRT-LLM: (pages, 2, heads, slots, d).
  auto random = printed_random(74);
  std::size_t const pages = 6, heads = 2, slots = 3, d = 5, all = 2 * pages * heads * slots * d;
  std::vector<std::int64_t> const table{4, 0, 5, 2};
  struct pool {
    std::size_t page, head, slot, value;  // strides, and from K to V
  };
  for (pool const p :
       {pool{slots * heads * d, d, heads * d, all / 2}, pool{2 * slots * heads * d, d, heads * d, slots * heads * d},
        pool{heads * slots * 2 * d, slots * 2 * d, 2 * d, d}, pool{2 * heads * slots * d, slots * d, d, heads * slots * d}}) {
    axes at({pages, heads, slots, 1}, {0, 1, 2, 3}, d, 0);
    at.strides = {p.page, p.head, p.slot, d};
    layout keys = paged(at, 0, slots, d, 4, table), values = paged(at, p.value, slots, d, 4, table);
    keys.cache.pages.pages64 = values.cache.pages.pages64 = table.data();
    expect_compacts<TypeParam>(random, all, {keys, values}, random_lists(random, 1, 11));
  }
}

TYPED_TEST(Compact, PackedRequestsMayBePagedAndShareTheirListsAmongLayers) {
  auto random = printed_random(75);
  Offsets const offsets{0, 4, 4, 13};
  std::vector<std::int64_t> const table{3, 1, 4, 0};  // four pages of four slots, all requests in one row of slots
  axes const token_major({1, 2, 16, 1}, {0, 2, 1, 3}, 4, 0), pool({5, 2, 4, 1}, {0, 1, 2, 3}, 4, 0);
  layout flat, in_pages = paged(pool, token_major.bytes, 4, 4, 0, table);
  flat.cache.requests = in_pages.cache.requests = 3, flat.cache.heads = 2;
  flat.cache.slot_bytes = 4, flat.cache.head_stride = token_major.stride(1), flat.cache.slot_stride = token_major.stride(2);
  flat.place = [=](std::size_t, std::size_t h, std::size_t i, std::size_t b) {
    return h * token_major.strides[1] + i * token_major.strides[2] + b;
  };
  flat.list = in_pages.list;
  in_pages.cache.pages.pages64 = table.data();
  for (int round = 0; round < 20; ++round) {
    Lists keep;
    for (int const size : {4, 0, 9}) { keep.push_back(random_lists(random, 1, size)[0]); }
    expect_compacts<TypeParam>(random, token_major.bytes + pool.bytes, {flat, in_pages}, keep, offsets);
  }
}

TYPED_TEST(Compact, DataAndParametersOfOneBlockMoveTogether) {
  // TurboMind: per head the data of K, then of V; behind the data of all heads their scales and zeros.
  auto random = printed_random(76);
  std::size_t const heads = 3, slots = 6, data = 8, parameters = 4, behind = heads * 2 * slots * data;
  std::vector<layout> entries;
  for (bool const is_parameter : {false, true}) {
    for (std::size_t const value : {0u, 1u}) {  // K, V
      std::size_t const size = is_parameter ? parameters : data, origin = (is_parameter ? behind : 0) + value * slots * size;
      layout l;
      l.origin = origin;
      l.cache.heads = 3, l.cache.slot_bytes = l.cache.slot_stride = static_cast<md::index_t>(size);
      l.cache.head_stride = static_cast<md::index_t>(2 * slots * size);
      l.place = [=](std::size_t, std::size_t h, std::size_t i, std::size_t b) { return origin + (2 * h * slots + i) * size + b; };
      l.list = [](std::size_t, std::size_t) { return 0; };
      entries.push_back(l);
    }
  }
  for (int round = 0; round < 10; ++round) {
    expect_compacts<TypeParam>(random, behind + heads * 2 * slots * parameters, entries, random_lists(random, 1, 6));
  }
}

TYPED_TEST(Compact, CompactingTwiceIsCompactingByTheComposedPlan) {
  EXPECT_EQ(compacted<TypeParam>(compacted<TypeParam>("abcdefgh", letters(), {{1, 3, 4, 7}}), letters(), {{0, 2, 3}}).substr(0, 3),
            compacted<TypeParam>("abcdefgh", letters(), {{1, 4, 7}}).substr(0, 3));
}

/// What a call answers when the second of two caches, or the lists, were changed; nothing may have moved unless it says ok.
template <class Backend, class Change>
md::status answer(Change const& change) {
  std::string memory[2] = {"abcdefgh", "ABCDEFGH"};
  std::int32_t indices[8] = {1, 2, 1, 2, 1, 2, 1, 2}, counts[8] = {1, 1, 1, 1, 1, 1, 1, 1};
  md::kv_cache caches[2] = {letters(), letters()};
  for (std::size_t c = 0; c < 2; ++c) { caches[c].data = memory[c].data(), caches[c].requests = 2, caches[c].request_stride = 4; }
  md::tensor_view<md::kv_cache, 1> view = md::view(caches, 2);
  md::segments segments{2, nullptr, nullptr, 0};
  md::keep_lists<std::int32_t> keep{md::view(indices, 2, 2), md::view(counts, 2)};
  change(caches[1], view, segments, keep);
  auto const got = md::compact(Backend{}, view, segments, keep);
  EXPECT_EQ(memory[0] == "abcdefgh" && memory[1] == "ABCDEFGH", got != md::status::ok);
  return got;
}

template <class Backend, class Change>
md::status answer_to_cache(Change const& change) {
  return answer<Backend>([&](md::kv_cache& cache, auto&, auto&, auto&) { change(cache); });
}

TYPED_TEST(Compact, BadShapesAreRefusedAndNothingMoved) {
  auto const bad = md::status::bad_shape;
  EXPECT_EQ(answer_to_cache<TypeParam>([](md::kv_cache&) {}), md::status::ok);
  EXPECT_EQ(answer_to_cache<TypeParam>([](md::kv_cache& c) { c.requests = -1; }), bad);
  EXPECT_EQ(answer_to_cache<TypeParam>([](md::kv_cache& c) { c.heads = -1; }), bad);
  EXPECT_EQ(answer_to_cache<TypeParam>([](md::kv_cache& c) { c.slot_bytes = -1; }), bad);
  EXPECT_EQ(answer_to_cache<TypeParam>([](md::kv_cache& c) { c.slot_bytes = 3, c.pieces = 2; }), bad);
  EXPECT_EQ(answer_to_cache<TypeParam>([](md::kv_cache& c) { c.pieces = 0; }), bad);
  EXPECT_EQ(answer_to_cache<TypeParam>([](md::kv_cache& c) { c.data = nullptr; }), bad);
  EXPECT_EQ(answer_to_cache<TypeParam>([](md::kv_cache& c) { c.first_list = 1; }), bad);
  EXPECT_EQ(answer_to_cache<TypeParam>([](md::kv_cache& c) { c.first_list = -1; }), bad);
  EXPECT_EQ(answer_to_cache<TypeParam>([](md::kv_cache& c) { c.list_per_request = 2; }), bad);
  EXPECT_EQ(answer_to_cache<TypeParam>([](md::kv_cache& c) { c.heads = 2, c.list_per_head = 1; }), bad);
  EXPECT_EQ(answer_to_cache<TypeParam>([](md::kv_cache& c) { c.list_per_head = -1; }), bad);

  using md::kv_cache;
  EXPECT_EQ(answer<TypeParam>([](kv_cache&, auto& view, auto&, auto&) { view.sizes[0] = -1; }), bad);
  EXPECT_EQ(answer<TypeParam>([](kv_cache&, auto& view, auto&, auto&) { view.data = nullptr; }), bad);
  EXPECT_EQ(answer<TypeParam>([](kv_cache&, auto&, auto& segments, auto&) { segments.count = -1; }), bad);
  EXPECT_EQ(answer<TypeParam>([](kv_cache&, auto&, auto& segments, auto&) { segments.count = 3; }), bad);
  EXPECT_EQ(answer<TypeParam>([](kv_cache&, auto&, auto&, auto& keep) { keep.counts.sizes[0] = 1; }), bad);
  EXPECT_EQ(answer<TypeParam>([](kv_cache&, auto&, auto&, auto& keep) { keep.indices.sizes[0] = 1; }), bad);
  EXPECT_EQ(answer<TypeParam>([](kv_cache&, auto&, auto&, auto& keep) { keep.indices.data = nullptr; }), bad);
}

TYPED_TEST(Compact, BadStridesAreRefusedAndNothingMoved) {
  using md::kv_cache;
  EXPECT_EQ(answer<TypeParam>([](kv_cache&, auto&, auto&, auto& keep) { keep.indices.strides[1] = 2; }), md::status::bad_stride);
  EXPECT_EQ(answer<TypeParam>([](kv_cache&, auto&, auto&, auto& keep) { keep.counts.strides[0] = 2; }), md::status::bad_stride);
}

TYPED_TEST(Compact, BadPageTablesAreRefusedAndNothingMoved) {
  std::int32_t const pages32[2] = {0, 1};
  std::int64_t const pages64[2] = {0, 1};
  auto const bad = md::status::bad_argument;
  EXPECT_EQ(answer_to_cache<TypeParam>([&](md::kv_cache& c) { c.pages = {pages32, pages64, 1, 4, 4}; }), bad);
  EXPECT_EQ(answer_to_cache<TypeParam>([&](md::kv_cache& c) { c.pages = {pages32, nullptr, 1, 0, 4}; }), bad);
  EXPECT_EQ(answer_to_cache<TypeParam>([&](md::kv_cache& c) { c.pages = {nullptr, pages64, 1, -4, 4}; }), bad);
  EXPECT_EQ(answer_to_cache<TypeParam>([&](md::kv_cache& c) { c.pages = {pages32, nullptr, 1, 4, 4}; }), md::status::ok);
}

TYPED_TEST(Compact, StridesThatWereNotSaidAreRefusedAndNothingMoved) {
  auto const bad = md::status::bad_argument;
  EXPECT_EQ(answer_to_cache<TypeParam>([](md::kv_cache& c) { c.slot_stride = 0; }), bad);
  EXPECT_EQ(answer_to_cache<TypeParam>([](md::kv_cache& c) { c.heads = 2, c.head_stride = 0; }), bad);
  EXPECT_EQ(answer_to_cache<TypeParam>([](md::kv_cache& c) { c.slot_bytes = c.pieces = 2, c.piece_stride = 0; }), bad);
}

TYPED_TEST(Compact, AbsurdCountsAreRefusedWithoutOverflow) {
  auto const bad = md::status::bad_shape;
  EXPECT_EQ(answer_to_cache<TypeParam>([](md::kv_cache& c) { c.requests = huge; }), bad);
  EXPECT_EQ(answer_to_cache<TypeParam>([](md::kv_cache& c) { c.heads = huge, c.list_per_head = huge; }), bad);
  EXPECT_EQ(answer_to_cache<TypeParam>([](md::kv_cache& c) { c.list_per_request = huge; }), bad);
  EXPECT_EQ(answer_to_cache<TypeParam>([](md::kv_cache& c) { c.first_list = huge; }), bad);
  EXPECT_EQ(answer_to_cache<TypeParam>([](md::kv_cache& c) { c.slot_bytes = huge, c.pieces = 2; }), bad);
  EXPECT_EQ(answer_to_cache<TypeParam>(
                [](md::kv_cache& c) { c.requests = c.heads = c.first_list = c.list_per_request = c.list_per_head = md::most_tokens; }),
            bad);
}

TEST(CheckKvCache, AsksForAsManyListsAsRequestsAndHeadsFollow) {
  char byte = 0;
  md::kv_cache cache = letters();
  cache.data = &byte, cache.requests = 3, cache.heads = 4, cache.head_stride = 1;
  EXPECT_EQ(md::check(cache, 3), md::status::ok);
  EXPECT_EQ(md::check(cache, 2), md::status::bad_shape);
  cache.list_per_request = 4, cache.list_per_head = 1;
  EXPECT_EQ(md::check(cache, 12), md::status::ok);
  EXPECT_EQ(md::check(cache, 11), md::status::bad_shape);
  cache.first_list = 5;
  EXPECT_EQ(md::check(cache, 17), md::status::ok);
  EXPECT_EQ(md::check(cache, 16), md::status::bad_shape);
  cache.first_list = cache.list_per_request = cache.list_per_head = 0;
  EXPECT_EQ(md::check(cache, 1), md::status::ok);
  EXPECT_EQ(md::check(cache, 0), md::status::bad_shape);
  cache.requests = huge;
  EXPECT_EQ(md::check(cache, 1), md::status::bad_shape);
  cache.requests = 1, cache.heads = huge;
  EXPECT_EQ(md::check(cache, 1), md::status::bad_shape);
}

TEST(CheckPageTable, LooksAtThePagesThatAreInUse) {
  std::int32_t const pages[] = {0, 4, -1, 2, 3, 99};  // two requests of three entries
  md::page_table table{pages, nullptr, 3, 2, 16};
  EXPECT_EQ(md::check(table, 2, 4, 5), md::status::ok);
  EXPECT_EQ(md::check(table, 2, 3, 5), md::status::ok);
  EXPECT_EQ(md::check(table, 2, 4, 4), md::status::bad_argument);  // page 4 of a pool of 4
  EXPECT_EQ(md::check(table, 1, 5, 5), md::status::bad_argument);  // page −1
  EXPECT_EQ(md::check(table, 1, 2, 1), md::status::ok);
  EXPECT_EQ(md::check(table, 2, 2, 1), md::status::bad_argument);  // page 2 of the second request
  EXPECT_EQ(md::check(table, 0, 4, 0), md::status::ok);
  EXPECT_EQ(md::check(table, 2, 0, 0), md::status::ok);
}

TEST(CheckPageTable, Int64NumbersAreNotCutShort) {
  std::int64_t const pages[] = {std::int64_t{1} << 32, (std::int64_t{1} << 32) + 1};
  EXPECT_EQ(md::check(md::page_table{nullptr, pages, 2, 1, 1}, 1, 2, 10), md::status::bad_argument);
  EXPECT_EQ(md::check(md::page_table{nullptr, pages, 2, 1, 1}, 1, 2, std::int64_t{1} << 33), md::status::ok);
}

TEST(CheckPageTable, RefusesWhatIsNoTable) {
  std::int32_t const pages32[] = {0};
  std::int64_t const pages64[] = {0};
  EXPECT_EQ(md::check(md::page_table{}, 1, 1, 1), md::status::bad_argument);
  EXPECT_EQ(md::check(md::page_table{pages32, pages64, 1, 1, 1}, 1, 1, 1), md::status::bad_argument);
  EXPECT_EQ(md::check(md::page_table{pages32, nullptr, 1, 0, 1}, 1, 1, 1), md::status::bad_argument);
  EXPECT_EQ(md::check(md::page_table{pages32, nullptr, 1, 1, 1}, -1, 1, 1), md::status::bad_shape);
  EXPECT_EQ(md::check(md::page_table{pages32, nullptr, 1, 1, 1}, 1, -1, 1), md::status::bad_shape);
  EXPECT_EQ(md::check(md::page_table{pages32, nullptr, 1, 1, 1}, 1, 1, -1), md::status::bad_shape);
}

TEST(CheckPageTable, AbsurdCountsAreRefusedWithoutOverflow) {
  std::int32_t const pages[] = {0, 0};
  EXPECT_EQ(md::check(md::page_table{pages, nullptr, 0, 1, 1}, huge, 0, 1), md::status::bad_shape);
  EXPECT_EQ(md::check(md::page_table{pages, nullptr, 0, huge - 1, 1}, 1, huge, 1), md::status::bad_shape);
  EXPECT_EQ(md::check(md::page_table{pages, nullptr, huge, huge, 1}, 1, md::most_tokens, 1), md::status::ok);
}

}  // namespace
