// SPDX-License-Identifier: Apache-2.0
#include <deque>
#include <numeric>

#include <mustdrop/reference/compact.hpp>
#include "fuzz_segments.hpp"

namespace {

/// One cache: its shape, its bytes on both sides (axes: request or page, slot, head, piece, byte), its table of pages.
class cache_argument {
 public:
  /// Every list has its slots in [0, slots).
  cache_argument(fuzz::call& of, fuzz::input& in, md::index_t lists, md::index_t slots) {
    shape_.requests = in.upto(3), shape_.heads = in.upto(3);
    shape_.pieces = in.pick<md::index_t>({1, 1, 2, 1 + in.upto(4)});
    shape_.slot_bytes = shape_.pieces * in.pick<md::index_t>({in.upto(20), in.length(130), 64, 32});
    choose_lists(in, lists);
    bool const paged = in.one_in(3);
    shape_.pages.page_slots = paged ? 1 + in.upto(20) : 0;
    md::index_t const pages = paged ? (slots + shape_.pages.page_slots - 1) / shape_.pages.page_slots : 0;
    md::index_t const outer = paged ? shape_.requests * pages + in.upto(2) : shape_.requests,
                      inner = paged ? shape_.pages.page_slots : slots;
    // Slots that overlap are nobody's cache: an axis of stride 0 is for inputs.
    bytes_.emplace_back(of, in, "cache", fuzz::role::out, fuzz::last_axis::dense, outer, inner, shape_.heads, shape_.pieces,
                        shape_.slot_bytes / shape_.pieces);
    std::uint32_t number = 0;
    bytes_[0].fill([&] { return static_cast<std::uint8_t>((number++ * 0x9e3779b9u) >> 24); });
    if (paged) { fill_pages(in, outer, pages); }
    if (in.one_in(32)) { shape_.slot_bytes = shape_.pieces > 1 && in.one_in(2) ? shape_.slot_bytes + 1 : -1; }
    if (in.one_in(32)) { shape_.pieces = in.upto(1) - 1; }
    if (in.one_in(32)) { shape_.first_list = in.pick<md::index_t>({-1, lists}); }
  }

  md::kv_cache on(fuzz::side on) {
    auto const bytes = bytes_[0].view(on);
    md::kv_cache cache = shape_;
    bool const paged = cache.pages.page_slots > 0;
    cache.data = bytes.data;
    cache.request_stride = paged ? 0 : bytes.strides[0], cache.slot_stride = bytes.strides[1];
    cache.head_stride = bytes.strides[2], cache.piece_stride = bytes.strides[3];
    cache.pages.page_stride = bytes.strides[0];
    cache.pages.pages32 = paged && !wide_ ? pages32_.data() : nullptr;
    cache.pages.pages64 = paged && wide_ ? pages64_.data() : nullptr;
    return cache;
  }

 private:
  void choose_lists(fuzz::input& in, md::index_t lists) {
    shape_.first_list = lists > 0 ? in.upto(lists - 1) : 0;
    shape_.list_per_request = in.upto(2), shape_.list_per_head = in.upto(2);
    auto const last = [&] {
      return shape_.first_list + std::max<md::index_t>(shape_.requests - 1, 0) * shape_.list_per_request +
             std::max<md::index_t>(shape_.heads - 1, 0) * shape_.list_per_head;
    };
    if (last() >= lists && !in.one_in(16)) { shape_.first_list = 0; }
    if (last() >= lists && !in.one_in(16)) { shape_.list_per_head = 0; }
    if (last() >= lists && !in.one_in(16)) { shape_.list_per_request = 0; }
  }

  /// Any pages of the pool, none twice.
  void fill_pages(fuzz::input& in, md::index_t pool, md::index_t pages) {
    std::vector<md::index_t> any(static_cast<std::size_t>(pool));
    std::iota(any.begin(), any.end(), 0);
    for (std::size_t i = any.size(); i > 1; --i) {
      std::swap(any[i - 1], any[static_cast<std::size_t>(in.upto(static_cast<md::index_t>(i) - 1))]);
    }
    shape_.pages.request_stride = pages, wide_ = in.one_in(2);
    any.push_back(0);  // so that there is an address
    for (md::index_t const page : any) { pages64_.push_back(page), pages32_.push_back(static_cast<std::int32_t>(page)); }
  }

  md::kv_cache shape_;
  bool wide_ = false;
  std::vector<std::int32_t> pages32_;
  std::vector<std::int64_t> pages64_;
  std::deque<fuzz::tensor<std::uint8_t, 5>> bytes_;  // one, once its sizes are known
};

template <class Index>
void fuzz_compact(fuzz::input& in) {
  fuzz::call call("compact", in);
  fuzz::cut segments(call, in, fuzz::any_sizes(in, 6, 70));
  if (in.one_in(2)) { segments.forget_offsets(); }
  fuzz::lists<Index> keep(call, in, "keep", fuzz::role::in, segments, segments.longest() + in.upto(2));
  keep.fill(in, segments);
  bool const packed = segments.of_tokens().offsets != nullptr;
  md::index_t const slots = (packed ? segments.tokens() : segments.longest()) + in.upto(4);
  std::deque<cache_argument> caches;
  md::index_t const layers = in.upto(3);
  for (md::index_t i = 0; i < layers; ++i) { caches.emplace_back(call, in, segments.count(), slots); }
  auto const contents = [&] {
    // The lists against the slots in use, wherever those begin.
    md::status status = keep.view().shape({keep.view().counts.size(0), nullptr, nullptr, 0});
    status = keep.view().counts.size(0) == 1 ? status : md::status::ok;
    for (md::index_t s = 0; s < segments.count() && !keep.view().absent() && keep.view().counts.size(0) == segments.count(); ++s) {
      if (keep.view().counts.size(0) > 0 && keep.count(s) > keep.view().capacity()) { status = md::status::bad_argument; }
    }
    return status;
  };
  call.run(contents, [&](auto const& backend, fuzz::side on) {
    std::vector<md::kv_cache> list;
    for (cache_argument& cache : caches) { list.push_back(cache.on(on)); }
    return md::compact(backend, md::tensor_view<md::kv_cache const, 1>{list.data(), {static_cast<md::index_t>(list.size())}, {1}},
                       segments.of_tokens(), keep.view());
  });
}

}  // namespace

void fuzz::run(input& in) { in.one_in(2) ? fuzz_compact<std::int64_t>(in) : fuzz_compact<std::int32_t>(in); }
