// SPDX-License-Identifier: Apache-2.0
#pragma once

// What lies on the token axis, made by an input: segments with gaps between them, keep lists, packed offsets.

#include "fuzz_call.hpp"

namespace fuzz {

/// Segments of these sizes in this order, with tokens in front of, between and behind them that belong to none.
class cut : public argument {
 public:
  cut(call& of, input& in, std::vector<md::index_t> const& sizes) : segments_{static_cast<md::index_t>(sizes.size()), nullptr, nullptr, 0} {
    bool const gaps = in.one_in(2);
    auto const gap = [&] { return gaps ? static_cast<std::int32_t>(in.upto(5)) : 0; };
    offsets_.push_back(gap());
    for (md::index_t const size : sizes) {
      counts_.push_back(static_cast<std::int32_t>(size));
      longest_ = std::max(longest_, size);
      offsets_.push_back(offsets_.back() + counts_.back() + gap());
    }
    tokens_ = gaps ? offsets_.back() + gap() : offsets_.back();
    bool const plain = sizes.size() == 1 && offsets_[0] == 0 && !in.one_in(3);
    if (!plain) { segments_.offsets = offsets_.data(); }
    if (gaps || in.one_in(3)) { segments_.counts = counts_.data(); }
    if (in.one_in(2)) { segments_.longest = longest_ + in.upto(3); }
    of.add(*this);
  }

  md::segments const& of_tokens() const { return segments_; }
  md::index_t tokens() const { return tokens_; }
  md::index_t count() const { return static_cast<md::index_t>(counts_.size()); }
  md::index_t size(md::index_t s) const { return counts_[static_cast<std::size_t>(s)]; }
  md::index_t begin(md::index_t s) const { return offsets_[static_cast<std::size_t>(s)]; }
  md::index_t longest() const { return longest_; }
  md::index_t bound() const { return segments_.bound(tokens_); }
  /// Numbers no token by its place on the axis: for caches whose requests lie apart.
  void forget_offsets() { segments_.offsets = nullptr; }

  bool damage(std::uint64_t how) override {
    switch (how % 4) {
      case 0: return segments_.count = -1, false;
      case 1: return segments_.longest = -1, false;
      case 2: return segments_.offsets = nullptr, true;
      default: return segments_.count -= segments_.count > 0 ? 1 : 0, true;
    }
  }
  void begin() override {}
  bool untouched(side) const override { return true; }
  bool agree() const override { return true; }
  void print() const override {
    std::fprintf(stderr, "  segments: count %lld, longest %lld, %s, %s:", static_cast<long long>(segments_.count),
                 static_cast<long long>(segments_.longest), segments_.offsets ? "offsets" : "no offsets",
                 segments_.counts ? "counts" : "no counts");
    for (std::size_t s = 0; s < counts_.size(); ++s) { std::fprintf(stderr, " [%d, +%d)", offsets_[s], counts_[s]); }
    std::fprintf(stderr, "\n");
  }

 private:
  md::segments segments_;
  std::vector<std::int32_t> offsets_, counts_;
  md::index_t tokens_ = 0, longest_ = 0;
};

/// A batch of keep lists.
template <class Index>
class lists {
 public:
  lists(call& of, input& in, char const* name, role used_as, cut const& segments, md::index_t capacity)
      : indices_(of, in, name, used_as, last_axis::dense, segments.count(), capacity),
        counts_(of, in, "counts of these", used_as, last_axis::dense, segments.count()) {
    indices_.guard(), counts_.guard();
  }

  md::keep_lists<Index> view(side on = side::reference) { return {indices_.view(on), counts_.view(on)}; }

  /// Lists that a call is given.
  void set(md::index_t s, std::vector<md::index_t> const& kept) {
    for (std::size_t i = 0; i < kept.size(); ++i) { indices_(s, static_cast<md::index_t>(i)) = static_cast<Index>(kept[i]); }
    counts_(s) = static_cast<std::int32_t>(kept.size());
  }
  lists& fill(input& in, cut const& segments) {
    for (md::index_t s = 0; s < segments.count(); ++s) { set(s, any_subset(in, segments.size(s))); }
    return *this;
  }
  md::index_t count(md::index_t s) { return counts_(s); }
  void leave_out() { indices_.leave_out(), counts_.leave_out(); }

 private:
  tensor<Index, 2> indices_;
  tensor<std::int32_t, 1> counts_;
};

/// Numbers that a call may be given for each segment, or not.
inline void fill_requested(tensor<std::int32_t, 1>& requested, input& in, md::index_t most) {
  if (in.one_in(2)) {
    requested.fill([&] { return static_cast<std::int32_t>(in.upto(most)); });
  } else {
    requested.leave_out();
  }
}

/// Where packed output of `counts(s)` rows a segment begins, with some room between; returns where it ends.
template <class Counts>
md::index_t fill_offsets(tensor<std::int32_t, 1>& offsets, input& in, md::index_t segments, Counts const& counts) {
  md::index_t end = in.upto(3);
  for (md::index_t s = 0; s <= segments; ++s) {
    offsets(s) = static_cast<std::int32_t>(end);
    if (s < segments) { end += counts(s) + in.upto(4) / 3; }
  }
  return end;
}

/// The first that is not ok.
template <class... Status>
md::status first_error(Status... statuses) {
  md::status found = md::status::ok;
  ((found = found == md::status::ok ? statuses : found), ...);
  return found;
}

}  // namespace fuzz
