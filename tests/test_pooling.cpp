// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include <mustdrop/method/pooling.hpp>

#include "backends.hpp"
#include "memory.hpp"
#include "refused_workspaces.hpp"

namespace {

using floats = std::vector<float>;
using ints = std::vector<std::int32_t>;
using md::status;

struct pooling_case {
  md::window_shape window;
  md::index_t dim = 1;
  floats features;  // [tokens, dim]
  std::vector<md::token_grid> grids;
  ints requested{};  // {}: all windows
};

/// What is left of each segment.
struct pooled_segment {
  std::vector<floats> rows;
  floats sizes;
  ints keep, source;

  friend bool operator==(pooled_segment const& a, pooled_segment const& b) {
    bool equal = a.rows.size() == b.rows.size() && a.sizes == b.sizes && a.keep == b.keep && a.source == b.source;
    for (std::size_t r = 0; equal && r < a.rows.size(); ++r) {
      equal = a.rows[r].size() == b.rows[r].size();
      for (std::size_t d = 0; equal && d < a.rows[r].size(); ++d) { equal = same(a.rows[r][d], b.rows[r][d]); }
    }
    return equal;
  }
  friend std::ostream& operator<<(std::ostream& out, pooled_segment const& s) {
    return out << "rows " << testing::PrintToString(s.rows) << ", sizes " << testing::PrintToString(s.sizes) << ", keep "
               << testing::PrintToString(s.keep) << ", source " << testing::PrintToString(s.source);
  }
};

ints offsets_of(pooling_case const& c) {
  ints offsets{0};
  for (auto const& grid : c.grids) { offsets.push_back(offsets.back() + static_cast<std::int32_t>(grid.tokens())); }
  return offsets;
}

/// Runs the method on padded rows that begin at odd addresses.
template <class Backend>
std::vector<pooled_segment> pool(pooling_case const& c) {
  Backend const backend{};
  auto const offsets = offsets_of(c);
  auto const count = static_cast<md::index_t>(c.grids.size()), tokens = static_cast<md::index_t>(offsets.back());
  md::segments const segments{count, offsets.data(), nullptr, 0};
  padded_tensor<float, 2> features(quiet_nan, 1, 3, tokens, c.dim), rows(-7.0f, 3, 1, tokens, c.dim);
  for (md::index_t t = 0; t < tokens; ++t) {
    for (md::index_t d = 0; d < c.dim; ++d) { features.view()(t, d) = md::view(c.features.data(), tokens, c.dim)(t, d); }
  }
  floats sizes(static_cast<std::size_t>(tokens), -7);
  ints source(static_cast<std::size_t>(tokens), -7), counts(c.grids.size(), -7);
  padded_tensor<std::int32_t, 2> indices(-7, 1, 2, count, tokens);
  md::tensor_view<std::int32_t const, 1> requested;
  if (!c.requested.empty()) { requested = md::view(c.requested.data(), c.requested.size()); }
  aligned_memory scratch(md::window_merge_workspace_size(backend, c.window, tokens, c.dim, 0, segments));
  status const got = md::method::pooling(backend, c.window, features.view(), segments, md::view(c.grids.data(), count), requested,
                                         rows.view(), md::view(sizes.data(), tokens), md::view(source.data(), tokens),
                                         md::keep_lists<std::int32_t>{indices.view(), md::view(counts.data(), count)}, scratch.lend());
  EXPECT_EQ(got, status::ok) << message(got);

  std::vector<pooled_segment> out(c.grids.size());
  for (std::size_t s = 0; s < out.size(); ++s) {
    md::index_t const begin = offsets[s];
    for (md::index_t r = 0; r < counts[s]; ++r) {
      out[s].rows.emplace_back();
      for (md::index_t d = 0; d < c.dim; ++d) { out[s].rows.back().push_back(rows.view()(begin + r, d)); }
      out[s].sizes.push_back(md::view(sizes.data(), tokens)(begin + r)), out[s].keep.push_back(indices.view()(s, r));
    }
    out[s].source.assign(source.begin() + offsets[s], source.begin() + offsets[s + 1]);
  }
  return out;
}

template <class Backend>
struct Pooling : testing::Test {};
TYPED_TEST_SUITE(Pooling, Backends);

TYPED_TEST(Pooling, EveryWindowBecomesItsMean) {
  pooling_case const c{{2, 2}, 1, {1, 2, 3, 4, /**/ 5, 6, 7, 8}, {{2, 4, 1, 0, 0}}};
  EXPECT_EQ(pool<TypeParam>(c), (std::vector<pooled_segment>{{{{3.5f}, {5.5f}}, {4, 4}, {0, 2}, {0, 0, 1, 1, 0, 0, 1, 1}}}));
}

TYPED_TEST(Pooling, AMergedRowStandsAtTheMiddleOfItsWindow) {
  pooling_case c{{3, 3}, 1, floats(9, 2), {{3, 3, 1, 0, 0}}};
  c.features[4] = 11;
  EXPECT_EQ(pool<TypeParam>(c), (std::vector<pooled_segment>{{{{3}}, {9}, {4}, ints(9, 0)}}));
}

TYPED_TEST(Pooling, PrefixSuffixAndRaggedEdgesStayAlone) {
  // CLS, 3 × 3 patches by 2 × 2, one suffix token: one window, five patches at the edges.
  pooling_case const c{{2, 2}, 1, {100, 1, 2, 3, 4, 5, 6, 7, 8, 9, 200}, {{3, 3, 1, 1, 1}}};
  EXPECT_EQ(pool<TypeParam>(c), (std::vector<pooled_segment>{{{{100}, {3}, {3}, {6}, {7}, {8}, {9}, {200}},
                                                              {1, 4, 1, 1, 1, 1, 1, 1},
                                                              {0, 1, 3, 6, 7, 8, 9, 10},
                                                              {0, 1, 1, 2, 1, 1, 3, 4, 5, 6, 7}}}));
}

TYPED_TEST(Pooling, AGridSmallerThanTheWindowStaysAsItIs) {
  pooling_case const c{{3, 3}, 1, {1, 2, 3, 4}, {{2, 2, 1, 0, 0}}};
  EXPECT_EQ(pool<TypeParam>(c), (std::vector<pooled_segment>{{{{1}, {2}, {3}, {4}}, {1, 1, 1, 1}, {0, 1, 2, 3}, {0, 1, 2, 3}}}));
}

TYPED_TEST(Pooling, EmptyInputStaysEmpty) {
  EXPECT_EQ(pool<TypeParam>({{2, 2}, 3, {}, {{0, 0, 1, 0, 0}}}), (std::vector<pooled_segment>(1)));
  EXPECT_EQ(pool<TypeParam>({{2, 2}, 3, {}, {}}), (std::vector<pooled_segment>{}));
}

TYPED_TEST(Pooling, RequestedWindowsAreTheFirstOnes) {
  pooling_case c{{1, 2}, 1, {1, 3, 5, 7, /**/ 2, 4, 6, 8}, {{1, 4, 1, 0, 0}, {1, 4, 1, 0, 0}}, {1, 9}};
  pooled_segment const first{{{2}, {5}, {7}}, {2, 1, 1}, {0, 2, 3}, {0, 0, 1, 2}}, second{{{3}, {7}}, {2, 2}, {0, 2}, {0, 0, 1, 1}};
  EXPECT_EQ(pool<TypeParam>(c), (std::vector<pooled_segment>{first, second}));
  c.requested = {0, 0};
  EXPECT_EQ(pool<TypeParam>(c)[0], (pooled_segment{{{1}, {3}, {5}, {7}}, {1, 1, 1, 1}, {0, 1, 2, 3}, {0, 1, 2, 3}}));
}

TYPED_TEST(Pooling, FramesPoolTogetherInAVideo) {
  pooling_case const c{{1, 2, 2}, 1, {1, 3, 5, 7, 9, 11}, {{1, 2, 3, 0, 0}}};  // the third frame is left over
  EXPECT_EQ(pool<TypeParam>(c), (std::vector<pooled_segment>{{{{4}, {9}, {11}}, {4, 1, 1}, {0, 4, 5}, {0, 0, 0, 0, 1, 2}}}));
}

TYPED_TEST(Pooling, NanStaysInItsWindowAndFeature) {
  pooling_case const c{{1, 2}, 2, {1, quiet_nan, 3, 0, /**/ inf, 1, 1, 1, /**/ inf, 0, -inf, 2}, {{1, 6, 1, 0, 0}}};
  EXPECT_EQ(pool<TypeParam>(c),
            (std::vector<pooled_segment>{{{{2, quiet_nan}, {inf, 1}, {quiet_nan, 1}}, {2, 2, 2}, {0, 2, 4}, {0, 0, 1, 1, 2, 2}}}));
}

// 24 × 24 patches by 3 × 3 are 64 tokens: what the method is compared at.
TYPED_TEST(Pooling, AClipImageBecomes64Tokens) {
  pooling_case const c{{}, 1, floats(577, 1), {{24, 24}}};
  EXPECT_EQ(pool<TypeParam>(c)[0].rows.size(), 65u);  // and CLS
}

// Eighths below 2: sums of at most 9 of them are exact, so a mean in double, rounded once, is the mean in float, rounded once.
TYPED_TEST(Pooling, IsTheMeanOfEachWindowForAnyGridAndWidth) {
  std::mt19937 random = printed_random(61);
  for (md::index_t const dim : {1, 3, 17, 31, 32, 33, 64, 1024}) {
    auto const below = [&](std::uint32_t n) { return static_cast<md::index_t>(random() % n); };
    pooling_case c{{1 + below(3), 2 + below(2), 1}, dim, {}, {}};
    for (int s = 0; s < 3; ++s) { c.grids.push_back({below(8), below(8), 1, below(3), below(3)}); }
    auto const offsets = offsets_of(c);
    for (md::index_t i = 0; i < offsets.back() * dim; ++i) { c.features.push_back(static_cast<float>(below(32)) / 8 - 2); }
    auto const got = pool<TypeParam>(c);
    EXPECT_EQ(got, pool<md::reference::backend>(c)) << "dim " << dim;
    for (std::size_t s = 0; s < 3; ++s) {
      auto const& grid = c.grids[s];
      auto const patch = [&](md::index_t row, md::index_t col) { return grid.prefix + row * grid.cols + col; };
      auto const row_of = [&](md::index_t token) -> floats const& {
        return got[s].rows[static_cast<std::size_t>(got[s].source[static_cast<std::size_t>(token)])];
      };
      for (md::index_t top = 0; top + c.window.rows <= grid.rows; top += c.window.rows) {
        for (md::index_t left = 0; left + c.window.cols <= grid.cols; left += c.window.cols) {
          floats mean;
          for (md::index_t d = 0; d < dim; ++d) {
            double sum = 0;
            for (md::index_t row = top; row < top + c.window.rows; ++row) {
              for (md::index_t col = left; col < left + c.window.cols; ++col) {
                sum += static_cast<double>(c.features[static_cast<std::size_t>((offsets[s] + patch(row, col)) * dim + d)]);
              }
            }
            mean.push_back(static_cast<float>(sum / static_cast<double>(c.window.tokens())));
          }
          EXPECT_EQ(row_of(patch(top, left)), mean) << "dim " << dim;
          EXPECT_EQ(row_of(patch(top + c.window.rows - 1, left + c.window.cols - 1)), mean) << "dim " << dim;
        }
      }
      md::merge_options all;
      all.count = md::most_tokens;
      EXPECT_EQ(static_cast<md::index_t>(got[s].rows.size()), retained_count(all, c.window, grid));
    }
  }
}

TYPED_TEST(Pooling, ASegmentDoesNotDependOnItsNeighbours) {
  pooling_case const c{{2, 2}, 1, {1, 2, 3, 4, /**/ quiet_nan, quiet_nan, quiet_nan, quiet_nan}, {{2, 2, 1, 0, 0}, {2, 2, 1, 0, 0}}};
  pooling_case const alone{{2, 2}, 1, {1, 2, 3, 4}, {{2, 2, 1, 0, 0}}};
  EXPECT_EQ(pool<TypeParam>(c)[0], pool<TypeParam>(alone)[0]);
}

/// A call that is right, with a member for each thing that can be wrong.
template <class Backend>
struct pooling_call {
  floats feature_memory = floats(32, 1), row_memory = floats(32, -7), size_memory = floats(16, -7);
  std::vector<md::token_grid> grid_memory = std::vector<md::token_grid>(4, {2, 2, 1, 0, 0});
  ints offsets{0, 4, 8}, requested_memory = ints(4, 1), source_memory = ints(16, -7), indices = ints(32, -7), counts = ints(4, -7);
  aligned_memory memory{16 * 64};

  md::window_shape window{2, 2, 1};
  md::tensor_view<float, 2> features = md::view(feature_memory.data(), 8, 2), rows = md::view(row_memory.data(), 8, 2);
  md::segments segments{2, offsets.data(), nullptr, 4};
  md::tensor_view<md::token_grid const, 1> grids = md::view(grid_memory.data(), 2);
  md::tensor_view<std::int32_t const, 1> requested = md::view(requested_memory.data(), 2);
  md::tensor_view<float, 1> sizes = md::view(size_memory.data(), 8);
  md::tensor_view<std::int32_t, 1> source = md::view(source_memory.data(), 8);
  md::keep_lists<std::int32_t> keep{md::view(indices.data(), 2, 4), md::view(counts.data(), 2)};
  md::workspace scratch = memory.lend();

  status run() { return md::method::pooling(Backend{}, window, features, segments, grids, requested, rows, sizes, source, keep, scratch); }
};

/// What a right call answers after one change; unless it is ok, nothing may have been written.
template <class Backend, class Change>
status after(Change const& change) {
  pooling_call<Backend> call;
  change(call);
  status const got = call.run();
  if (got != status::ok) {
    EXPECT_EQ(call.row_memory, floats(32, -7));
    EXPECT_EQ(call.size_memory, floats(16, -7));
    EXPECT_EQ(call.source_memory, ints(16, -7));
    EXPECT_EQ(call.indices, ints(32, -7));
    EXPECT_EQ(call.counts, ints(4, -7));
  }
  return got;
}

TYPED_TEST(Pooling, WrongShapesAreRefused) {
  EXPECT_EQ(after<TypeParam>([](auto&) {}), status::ok);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.requested = {}; }), status::ok);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.features.sizes[0] = 7; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.features.data = nullptr; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.rows.sizes[1] = 1; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.grids.sizes[0] = 1; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.requested.sizes[0] = 1; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.sizes.sizes[0] = 7; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.source.sizes[0] = 7; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.keep.indices.sizes[1] = 3; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.segments.offsets = nullptr; }), status::bad_shape);
}

TYPED_TEST(Pooling, StridesOtherThanOneAreRefused) {
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.features.strides[1] = 2; }), status::bad_stride);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.rows.strides[1] = 2; }), status::bad_stride);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.grids.strides[0] = 2; }), status::bad_stride);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.requested.strides[0] = 2; }), status::bad_stride);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.sizes.strides[0] = 2; }), status::bad_stride);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.source.strides[0] = 2; }), status::bad_stride);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.keep.indices.strides[1] = 2; }), status::bad_stride);
}

TYPED_TEST(Pooling, AWindowOfOneTokenIsRefused) {
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.window = {1, 1, 1}; }), status::bad_argument);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.window = {0, 2, 1}; }), status::bad_argument);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.window = {2, 2, -1}; }), status::bad_argument);
}

TYPED_TEST(Pooling, TooLittleOrMisalignedWorkspaceIsRefused) {
  std::size_t const needed = md::window_merge_workspace_size(TypeParam{}, {2, 2, 1}, 8, 2, 0, pooling_call<TypeParam>{}.segments);
  expect_wrong_workspaces_refused(needed, [](md::workspace scratch) { return after<TypeParam>([&](auto& c) { c.scratch = scratch; }); });
}

}  // namespace
