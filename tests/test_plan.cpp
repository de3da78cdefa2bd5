// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <iterator>
#include <limits>
#include <numeric>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

#include <mustdrop/plan.hpp>

#include "memory.hpp"

namespace {

using md::index_t, md::move, md::run, md::status;
using ints = std::vector<index_t>;
using bytes = std::vector<std::uint8_t>;
using runs = std::vector<std::pair<index_t, index_t>>;             // begin, length
using moves = std::vector<std::tuple<index_t, index_t, index_t>>;  // source, destination, length
using one_run = runs::value_type;
using one_move = moves::value_type;

constexpr index_t most = md::most_tokens;
constexpr index_t index_min = std::numeric_limits<index_t>::min(), index_max = std::numeric_limits<index_t>::max();

// Entries as something that can be compared.
index_t plain(std::int32_t x) { return x; }
index_t plain(std::int64_t x) { return x; }
one_run plain(run const& r) { return {r.begin, r.length}; }
one_move plain(move const& m) { return {m.source, m.destination, m.length}; }

template <class T>
T guard() {
  if constexpr (std::is_same_v<T, run>) {
    return {-7, -7};
  } else if constexpr (std::is_same_v<T, move>) {
    return {-7, -7, -7};
  } else {
    return T{-7};
  }
}

template <class T>
using plain_vector = std::vector<decltype(plain(T{}))>;

/// What a call answers and writes into room for `capacity` entries. Past its count, and everywhere on an error, nothing may be touched.
template <class T, class Call>
std::pair<status, plain_vector<T>> receive(index_t capacity, Call const& call) {
  padded_tensor<T, 1> out(guard<T>(), 3, 2, capacity);
  index_t count = -7;
  status const answer = call(out.view(), count);
  plain_vector<T> written;
  if (answer == status::ok) {
    EXPECT_TRUE(count >= 0 && count <= capacity) << count;
    for (index_t i = 0; i < count && i < capacity; ++i) { written.push_back(plain(out.view()(i))); }
  } else {
    EXPECT_EQ(count, -7) << message(answer);
  }
  for (std::size_t i = 0; i < out.memory().size(); ++i) {
    if (i < 3 || i >= 3 + written.size()) { EXPECT_EQ(plain(out.memory()[i]), plain(guard<T>())) << "element " << i; }
  }
  return {answer, written};
}

/// The same with room for exactly what is expected, for more, and for one entry too few.
template <class T, class Call>
void expect_written(plain_vector<T> const& expected, Call const& call) {
  auto const size = static_cast<index_t>(expected.size());
  EXPECT_EQ(receive<T>(size, call), std::pair(status::ok, expected));
  EXPECT_EQ(receive<T>(size + 5, call), std::pair(status::ok, expected));
  if (size > 0) { EXPECT_EQ(receive<T>(size - 1, call).first, status::bad_shape); }
}

template <class T>
md::tensor_view<T const, 1> seen(std::vector<T> const& v) {
  return md::view(v.data(), v.size());
}

template <class Index>
std::vector<Index> as(ints const& list) {
  std::vector<Index> converted;
  for (index_t const i : list) { converted.push_back(static_cast<Index>(i)); }
  return converted;
}

std::vector<run> as_runs(runs const& from) {
  std::vector<run> to;
  for (auto const& [begin, length] : from) { to.push_back({begin, length}); }
  return to;
}
std::vector<move> as_moves(moves const& from) {
  std::vector<move> to;
  for (auto const& [source, destination, length] : from) { to.push_back({source, destination, length}); }
  return to;
}

ints subset(unsigned members) {
  ints list;
  for (index_t i = 0; i < 32; ++i) {
    if (members >> i & 1u) { list.push_back(i); }
  }
  return list;
}

ints random_list(std::mt19937& random, index_t tokens) {
  auto const likely = 1 + random() % 7;  // of eight
  ints list;
  for (index_t t = 0; t < tokens; ++t) {
    if (random() % 8 < likely) { list.push_back(t); }
  }
  return list;
}

/// Kept elements of anything: what every form of a plan has to bring about.
template <class T>
std::vector<T> gathered(std::vector<T> const& from, ints const& keep) {
  std::vector<T> to;
  for (index_t const i : keep) { to.push_back(from[static_cast<std::size_t>(i)]); }
  return to;
}

/// The pair of index types that a function is given and writes.
template <class In, class Out>
struct from_to {
  using in = In;
  using out = Out;
};
using index_pairs = testing::Types<from_to<std::int32_t, std::int32_t>, from_to<std::int64_t, std::int64_t>,
                                   from_to<std::int32_t, std::int64_t>, from_to<std::int64_t, std::int32_t>>;

// Each function on plain vectors, with room enough.
template <class Types>
struct Plan : testing::Test {
  using given = typename Types::in;
  using written = typename Types::out;

  static ints good(std::pair<status, ints> const& got) {
    EXPECT_EQ(got.first, status::ok) << message(got.first);
    return got.second;
  }
  static bytes mask(ints const& keep, std::size_t tokens) {
    auto const list = as<given>(keep);
    bytes mask(tokens, 77);
    EXPECT_EQ(md::to_mask(seen(list), md::view(mask.data(), tokens)), status::ok);
    return mask;
  }
  static ints compose(ints const& first, ints const& second) {
    auto const a = as<given>(first);
    auto const b = as<written>(second);  // the types mix
    return good(
        receive<written>(static_cast<index_t>(second.size()), [&](auto to, auto& n) { return md::compose(seen(a), seen(b), to, n); }));
  }
  static ints unite(ints const& left, ints const& right) {
    auto const a = as<given>(left);
    auto const b = as<written>(right);
    auto const room = static_cast<index_t>(left.size() + right.size());
    return good(receive<written>(room, [&](auto to, auto& n) { return md::unite(seen(a), seen(b), to, n); }));
  }
  static ints rebase(ints const& set, ints const& keep) {
    auto const a = as<given>(set);
    auto const b = as<written>(keep);
    return good(receive<written>(static_cast<index_t>(set.size()), [&](auto to, auto& n) { return md::rebase(seen(a), seen(b), to, n); }));
  }
  static ints in_sequence(ints const& keep, run span, index_t sequence) {
    auto const a = as<given>(keep);
    return good(receive<written>(sequence, [&](auto to, auto& n) { return md::in_sequence(seen(a), span, sequence, to, n); }));
  }
};
TYPED_TEST_SUITE(Plan, index_pairs);

// --- lists of a batch, and whether a list ascends ---

TYPED_TEST(Plan, ListIsOneRowOfABatch) {
  using in = typename TestFixture::given;
  std::vector<in> indices{0, 2, 5, -7, /**/ 1, -7, -7, -7, /**/ -7, -7, -7, -7};
  std::vector<std::int32_t> counts{3, 1, 0};
  md::keep_lists<in> const keep{{indices.data(), {3, 3}, {4, 1}}, md::view(counts.data(), 3)};
  auto const first = list(keep, 0), second = list(keep, 1), third = list(keep, 2);
  EXPECT_TRUE((std::is_same_v<decltype(first), md::tensor_view<in const, 1> const>));
  EXPECT_EQ(first.size(0), 3);
  EXPECT_EQ(first(2), 5);
  EXPECT_EQ(second.size(0), 1);
  EXPECT_EQ(second(0), 1);
  EXPECT_EQ(third.size(0), 0);
  EXPECT_EQ(check(first, 6), status::ok);
  EXPECT_EQ(list(md::keep_lists<in const>(keep), 1)(0), 1);
  md::keep_lists<in> const no_room{{nullptr, {3, 0}, {0, 1}}, md::view(counts.data() + 2, 1)};
  EXPECT_EQ(check(list(no_room, 0), 6), status::ok);
}

/// Asks a function, which gets one bad list after another, for its status.
template <class In, class Ask>
void expect_lists_refused(Ask const& ask, index_t tokens) {
  auto const answer = [&](ints const& list) {
    auto const converted = as<In>(list);
    return ask(seen(converted));
  };
  constexpr auto lowest = std::numeric_limits<In>::min(), highest = std::numeric_limits<In>::max();
  EXPECT_EQ(answer({0, 1}), status::ok);
  EXPECT_EQ(answer({}), status::ok);
  EXPECT_EQ(answer({1, 0}), status::bad_argument);
  EXPECT_EQ(answer({1, 1}), status::bad_argument);
  EXPECT_EQ(answer({-1, 1}), status::bad_argument);
  EXPECT_EQ(answer({lowest, 1}), status::bad_argument);
  EXPECT_EQ(answer({0, tokens}), status::bad_argument);
  EXPECT_EQ(answer({0, highest}), status::bad_argument);
  In const two[] = {0, 1};
  using view = md::tensor_view<In const, 1>;
  EXPECT_EQ(ask(view{two, {-1}, {1}}), status::bad_shape);
  EXPECT_EQ(ask(view{two, {index_min}, {1}}), status::bad_shape);
  EXPECT_EQ(ask(view{two, {most + 1}, {1}}), status::bad_shape);
  EXPECT_EQ(ask(view{two, {index_max}, {1}}), status::bad_shape);
  EXPECT_EQ(ask(view{nullptr, {2}, {1}}), status::bad_shape);
  EXPECT_EQ(ask(view{two, {2}, {2}}), status::bad_stride);
  EXPECT_EQ(ask(view{two, {2}, {0}}), status::bad_stride);
}

TYPED_TEST(Plan, CheckRefusesListsThatDoNotAscendWithinTheTokens) {
  using in = typename TestFixture::given;
  expect_lists_refused<in>([](auto list) { return check(list, 4); }, 4);
  in const two[] = {0, 1};
  EXPECT_EQ(check(md::view(two, 2), 2), status::ok);
  EXPECT_EQ(check(md::view(two, 2), 1), status::bad_argument);
  EXPECT_EQ(check(md::view(two, 0), 0), status::ok);
  EXPECT_EQ(check(md::view(two, 2), -1), status::bad_shape);
  EXPECT_EQ(check(md::view(two, 0), index_min), status::bad_shape);
}

// --- masks ---

TYPED_TEST(Plan, MasksAreOneByteAToken) {
  using out = typename TestFixture::written;
  EXPECT_EQ(this->mask({1, 2, 5}, 6), (bytes{0, 1, 1, 0, 0, 1}));
  EXPECT_EQ(this->mask({}, 3), (bytes{0, 0, 0}));
  EXPECT_EQ(this->mask({0, 1, 2}, 3), (bytes{1, 1, 1}));
  EXPECT_EQ(this->mask({}, 0), bytes{});
  bytes const mask{0, 1, 255, 0, 0, 128};  // any byte but 0 stays
  expect_written<out>({1, 2, 5}, [&](auto keep, auto& n) { return md::from_mask(seen(mask), keep, n); });
  expect_written<out>({}, [&](auto keep, auto& n) { return md::from_mask(md::view(mask.data(), 1), keep, n); });
  expect_written<out>({}, [&](auto keep, auto& n) { return md::from_mask({}, keep, n); });
}

TYPED_TEST(Plan, ToMaskRefusesWhatIsWrongAndTouchesNothing) {
  using in = typename TestFixture::given;
  std::vector<in> const keep{0, 2};
  auto const answer = [](md::tensor_view<in const, 1> list, index_t size, index_t stride) {
    bytes mask(12, 77);
    status const got = md::to_mask(list, md::tensor_view<std::uint8_t, 1>{mask.data(), {size}, {stride}});
    if (got != status::ok) { EXPECT_EQ(mask, bytes(12, 77)); }
    return got;
  };
  EXPECT_EQ(answer(seen(keep), 3, 1), status::ok);
  EXPECT_EQ(answer(seen(keep), 2, 1), status::bad_argument) << "the mask has no byte for token 2";
  EXPECT_EQ(answer(seen(keep), -3, 1), status::bad_shape);
  EXPECT_EQ(answer(seen(keep), index_min, 1), status::bad_shape);
  EXPECT_EQ(answer(seen(keep), most + 1, 1), status::bad_shape);
  EXPECT_EQ(answer(seen(keep), 3, 2), status::bad_stride);
  EXPECT_EQ(md::to_mask(seen(keep), md::tensor_view<std::uint8_t, 1>{nullptr, {3}, {1}}), status::bad_shape);
  expect_lists_refused<in>([&](auto list) { return answer(list, 4, 1); }, 4);
}

/// Views that cannot be written to, for the last two arguments of a function that would write three entries.
template <class T, class Call>
void expect_outputs_refused(Call const& call) {
  std::vector<T> memory(16, guard<T>());
  index_t count = -7;
  using view = md::tensor_view<T, 1>;
  EXPECT_EQ(call(view{memory.data(), {2}, {1}}, count), status::bad_shape);
  EXPECT_EQ(call(view{}, count), status::bad_shape);
  EXPECT_EQ(call(view{nullptr, {3}, {1}}, count), status::bad_shape);
  EXPECT_EQ(call(view{memory.data(), {-3}, {1}}, count), status::bad_shape);
  EXPECT_EQ(call(view{memory.data(), {index_min}, {1}}, count), status::bad_shape);
  EXPECT_EQ(call(view{memory.data(), {most + 1}, {1}}, count), status::bad_shape);
  EXPECT_EQ(call(view{memory.data(), {3}, {2}}, count), status::bad_stride);
  EXPECT_EQ(call(view{memory.data(), {3}, {-1}}, count), status::bad_stride);
  EXPECT_EQ(count, -7);
  for (T const& entry : memory) { EXPECT_EQ(plain(entry), plain(guard<T>())); }
  EXPECT_EQ(call(view{memory.data(), {3}, {1}}, count), status::ok);
  EXPECT_EQ(count, 3);
}

TYPED_TEST(Plan, FromMaskRefusesWhatIsWrong) {
  using out = typename TestFixture::written;
  bytes const mask{1, 0, 1, 1};
  expect_outputs_refused<out>([&](auto keep, auto& n) { return md::from_mask(seen(mask), keep, n); });
  auto const answer = [&](md::tensor_view<std::uint8_t const, 1> from) {
    return receive<out>(4, [&](auto keep, auto& n) { return md::from_mask(from, keep, n); }).first;
  };
  EXPECT_EQ(answer({mask.data(), {4}, {1}}), status::ok);
  EXPECT_EQ(answer({mask.data(), {-1}, {1}}), status::bad_shape);
  EXPECT_EQ(answer({mask.data(), {most + 1}, {1}}), status::bad_shape);
  EXPECT_EQ(answer({nullptr, {4}, {1}}), status::bad_shape);
  EXPECT_EQ(answer({mask.data(), {2}, {2}}), status::bad_stride);
}

// --- runs and moves ---

TYPED_TEST(Plan, RunsAreTheFewest) {
  using in = typename TestFixture::given;
  auto const expect = [](ints const& keep, runs const& expected) {
    auto const list = as<in>(keep);
    expect_written<run>(expected, [&](auto out, auto& n) { return md::to_runs(seen(list), out, n); });
  };
  expect({1, 2, 5}, {{1, 2}, {5, 1}});
  expect({}, {});
  expect({7}, {{7, 1}});
  expect({0, 1, 2, 3}, {{0, 4}});
  expect({0, 2, 4}, {{0, 1}, {2, 1}, {4, 1}});
  expect({most - 2, most - 1}, {{most - 2, 2}});  // the last tokens that there can be
}

TYPED_TEST(Plan, MovesPackTheRunsAtTheFront) {
  using in = typename TestFixture::given;
  auto const expect = [](ints const& keep, moves const& expected) {
    auto const list = as<in>(keep);
    expect_written<move>(expected, [&](auto out, auto& n) { return md::to_moves(seen(list), out, n); });
  };
  expect({1, 2, 5}, {{1, 0, 2}, {5, 2, 1}});
  expect({}, {});
  expect({0, 1, 4}, {{0, 0, 2}, {4, 2, 1}});  // the first stays in place
  expect({most - 1}, {{most - 1, 0, 1}});
}

TYPED_TEST(Plan, ToRunsAndToMovesRefuseWhatIsWrong) {
  using in = typename TestFixture::given;
  std::vector<in> const keep{0, 2, 4};
  expect_outputs_refused<run>([&](auto out, auto& n) { return md::to_runs(seen(keep), out, n); });
  expect_outputs_refused<move>([&](auto out, auto& n) { return md::to_moves(seen(keep), out, n); });
  expect_lists_refused<in>([](auto list) { return receive<run>(4, [&](auto out, auto& n) { return md::to_runs(list, out, n); }).first; },
                           most);
  expect_lists_refused<in>([](auto list) { return receive<move>(4, [&](auto out, auto& n) { return md::to_moves(list, out, n); }).first; },
                           most);
}

template <class Out>
auto read_runs(runs const& from, index_t capacity = 8) {
  auto const parts = as_runs(from);
  return receive<Out>(capacity, [&](auto keep, auto& n) { return md::from_runs(seen(parts), keep, n); });
}
template <class Out>
auto read_moves(moves const& from, index_t capacity = 8) {
  auto const parts = as_moves(from);
  return receive<Out>(capacity, [&](auto keep, auto& n) { return md::from_moves(seen(parts), keep, n); });
}

TYPED_TEST(Plan, ListsAreReadFromRuns) {
  using out = typename TestFixture::written;
  auto const good = [](ints const& list) { return std::pair(status::ok, list); };
  EXPECT_EQ(read_runs<out>({{1, 2}, {5, 1}}), good({1, 2, 5}));
  EXPECT_EQ(read_runs<out>({}), good({}));
  EXPECT_EQ(read_runs<out>({{1, 2}, {3, 1}}), good({1, 2, 3})) << "runs may touch";
  EXPECT_EQ(read_runs<out>({{1, 0}, {1, 2}, {9, 0}}), good({1, 2})) << "and be empty";
  EXPECT_EQ(read_runs<out>({{most - 1, 1}}), good({most - 1}));
  EXPECT_EQ(read_runs<out>({{0, 8}}), good({0, 1, 2, 3, 4, 5, 6, 7}));
  EXPECT_EQ(read_runs<out>({{0, 9}}).first, status::bad_shape);
}

TYPED_TEST(Plan, RunsThatDoNotAscendOrLieOutsideAreRefused) {
  using out = typename TestFixture::written;
  for (runs const& wrong : {runs{{-1, 1}}, runs{{0, -1}}, runs{{2, 2}, {3, 1}}, runs{{5, 1}, {1, 2}}, runs{{most, 1}}, runs{{most + 1, 0}},
                            runs{{index_max, 1}}, runs{{1, index_max}}, runs{{index_min, 1}}, runs{{0, index_min}}, runs{{0, most + 1}},
                            runs{{index_max, index_max}}, runs{{0, 1}, {1, most}}}) {
    EXPECT_EQ(read_runs<out>(wrong).first, status::bad_argument) << testing::PrintToString(wrong);
  }
}

TYPED_TEST(Plan, ListsAreReadFromMoves) {
  using out = typename TestFixture::written;
  auto const good = [](ints const& list) { return std::pair(status::ok, list); };
  EXPECT_EQ(read_moves<out>({{1, 0, 2}, {5, 2, 1}}), good({1, 2, 5}));
  EXPECT_EQ(read_moves<out>({}), good({}));
  EXPECT_EQ(read_moves<out>({{0, 0, 1}, {1, 1, 1}, {2, 2, 0}}), good({0, 1}));
  EXPECT_EQ(read_moves<out>({{0, 0, 9}}).first, status::bad_shape);
}

TYPED_TEST(Plan, MovesThatLeaveAGapOrOverwriteOrLieOutsideAreRefused) {
  using out = typename TestFixture::written;
  for (moves const& wrong :
       {moves{{1, 1, 2}}, moves{{1, 0, 2}, {5, 3, 1}}, moves{{1, 0, 2}, {5, 1, 1}}, moves{{1, 0, 2}, {2, 2, 1}}, moves{{-1, 0, 1}},
        moves{{0, 0, -1}}, moves{{4, 0, 2}, {1, 2, 1}}, moves{{1, -1, 1}}, moves{{index_min, 0, 1}}, moves{{index_max, 0, 1}},
        moves{{0, index_max, 1}}, moves{{0, index_min, 1}}, moves{{0, 0, index_max}}, moves{{0, 0, index_min}}, moves{{most, 0, 1}},
        moves{{0, 0, most + 1}}, moves{{0, 0, most}, {0, most, most}}, moves{{0, 0, 1}, {1, 1, most}}}) {
    EXPECT_EQ(read_moves<out>(wrong).first, status::bad_argument) << testing::PrintToString(wrong);
  }
}

TYPED_TEST(Plan, FromRunsAndFromMovesRefuseWrongViews) {
  using out = typename TestFixture::written;
  auto const some_runs = as_runs({{0, 1}, {4, 2}});
  auto const some_moves = as_moves({{0, 0, 1}, {4, 1, 2}});
  expect_outputs_refused<out>([&](auto keep, auto& n) { return md::from_runs(seen(some_runs), keep, n); });
  expect_outputs_refused<out>([&](auto keep, auto& n) { return md::from_moves(seen(some_moves), keep, n); });
  auto const runs_answer = [&](index_t size, index_t stride) {
    md::tensor_view<run const, 1> const from{some_runs.data(), {size}, {stride}};
    return receive<out>(8, [&](auto keep, auto& n) { return md::from_runs(from, keep, n); }).first;
  };
  auto const moves_answer = [&](index_t size, index_t stride) {
    md::tensor_view<move const, 1> const from{some_moves.data(), {size}, {stride}};
    return receive<out>(8, [&](auto keep, auto& n) { return md::from_moves(from, keep, n); }).first;
  };
  EXPECT_EQ(runs_answer(2, 1), status::ok);
  EXPECT_EQ(moves_answer(2, 1), status::ok);
  EXPECT_EQ(runs_answer(-1, 1), status::bad_shape);
  EXPECT_EQ(moves_answer(-1, 1), status::bad_shape);
  EXPECT_EQ(runs_answer(most + 1, 1), status::bad_shape);
  EXPECT_EQ(moves_answer(most + 1, 1), status::bad_shape);
  EXPECT_EQ(runs_answer(2, 2), status::bad_stride);
  EXPECT_EQ(moves_answer(2, 2), status::bad_stride);
}

// --- every form says the same ---

/// All forms of one list, there and back.
template <class Fixture>
void expect_forms_agree(ints const& keep, index_t tokens) {
  using in = typename Fixture::given;
  using out = typename Fixture::written;
  auto const list = as<in>(keep);
  auto const room = static_cast<index_t>(keep.size());

  bytes const mask = Fixture::mask(keep, static_cast<std::size_t>(tokens));
  for (index_t t = 0; t < tokens; ++t) { ASSERT_EQ(mask[static_cast<std::size_t>(t)], std::binary_search(keep.begin(), keep.end(), t)); }
  expect_written<out>(keep, [&](auto back, auto& n) { return md::from_mask(seen(mask), back, n); });

  auto const [runs_ok, some_runs] = receive<run>(room, [&](auto to, auto& n) { return md::to_runs(seen(list), to, n); });
  ASSERT_EQ(runs_ok, status::ok) << "keep.size(0) runs are always room enough";
  for (std::size_t r = 0; r < some_runs.size(); ++r) {
    ASSERT_GT(some_runs[r].second, 0);
    if (r > 0) { ASSERT_GT(some_runs[r].first, some_runs[r - 1].first + some_runs[r - 1].second) << "two runs could be one"; }
  }
  auto const parts = as_runs(some_runs);
  expect_written<out>(keep, [&](auto back, auto& n) { return md::from_runs(seen(parts), back, n); });

  auto const [moves_ok, some_moves] = receive<move>(room, [&](auto to, auto& n) { return md::to_moves(seen(list), to, n); });
  ASSERT_EQ(moves_ok, status::ok);
  ASSERT_EQ(some_moves.size(), some_runs.size());
  auto const steps = as_moves(some_moves);
  expect_written<out>(keep, [&](auto back, auto& n) { return md::from_moves(seen(steps), back, n); });

  // Done in place and in order, moves gather: no slot is overwritten before it is read, not even within one move.
  std::vector<index_t> slots(static_cast<std::size_t>(tokens));
  std::iota(slots.begin(), slots.end(), 1000);
  auto const expected = gathered(slots, keep);
  index_t filled = 0;
  for (auto const& [source, destination, length] : some_moves) {
    ASSERT_LE(destination, source);
    ASSERT_EQ(destination, filled);
    std::copy_n(slots.begin() + source, length, slots.begin() + destination);
    filled += length;
  }
  slots.resize(keep.size());
  EXPECT_EQ(slots, expected);
}

TYPED_TEST(Plan, AllFormsOfEverySubsetOfEightTokensAgree) {
  for (unsigned members = 0; members < 256; ++members) { expect_forms_agree<TestFixture>(subset(members), 8); }
}

TYPED_TEST(Plan, AllFormsOfRandomListsAgree) {
  std::mt19937 random = printed_random(41);
  for (index_t tokens : {1, 2, 31, 32, 33, 64, 577, 2880}) {
    for (int round = 0; round < 10; ++round) { expect_forms_agree<TestFixture>(random_list(random, tokens), tokens); }
  }
}

// --- algebra ---

TYPED_TEST(Plan, ComposeSpeaksTheCoordinatesOfTheFirstStage) {
  EXPECT_EQ(this->compose({0, 2, 3, 5}, {1, 3}), (ints{2, 5}));
  EXPECT_EQ(this->compose({0, 2, 3, 5}, {}), ints{});
  EXPECT_EQ(this->compose({}, {}), ints{});
  EXPECT_EQ(this->compose({0, 2, 3, 5}, {0, 1, 2, 3}), (ints{0, 2, 3, 5}));
}

TYPED_TEST(Plan, ComposeRefusesWhatIsWrong) {
  using in = typename TestFixture::given;
  using out = typename TestFixture::written;
  std::vector<in> const first{0, 2, 3, 5};
  std::vector<out> const second{0, 1, 3};
  expect_outputs_refused<out>([&](auto to, auto& n) { return md::compose(seen(first), seen(second), to, n); });
  expect_lists_refused<in>(
      [&](auto list) {
        std::vector<out> const none;
        return receive<out>(4, [&](auto to, auto& n) { return md::compose(list, seen(none), to, n); }).first;
      },
      most);
  expect_lists_refused<out>(  // the second list indexes the first
      [&](auto list) { return receive<out>(4, [&](auto to, auto& n) { return md::compose(seen(first), list, to, n); }).first; }, 4);
}

TYPED_TEST(Plan, UniteTakesWhatIsInEither) {
  EXPECT_EQ(this->unite({0, 2, 5}, {1, 2, 7}), (ints{0, 1, 2, 5, 7}));
  EXPECT_EQ(this->unite({}, {1}), (ints{1}));
  EXPECT_EQ(this->unite({1}, {}), (ints{1}));
  EXPECT_EQ(this->unite({}, {}), ints{});
  EXPECT_EQ(this->unite({most - 1}, {0}), (ints{0, most - 1}));
}

TYPED_TEST(Plan, UniteRefusesWhatIsWrong) {
  using in = typename TestFixture::given;
  using out = typename TestFixture::written;
  std::vector<in> const a{0, 2};
  std::vector<out> const b{1, 2};
  expect_outputs_refused<out>([&](auto to, auto& n) { return md::unite(seen(a), seen(b), to, n); });
  expect_lists_refused<out>(
      [&](auto list) { return receive<out>(8, [&](auto to, auto& n) { return md::unite(seen(a), list, to, n); }).first; }, most);
  expect_lists_refused<in>(
      [&](auto list) { return receive<out>(8, [&](auto to, auto& n) { return md::unite(list, seen(b), to, n); }).first; }, most);
}

TYPED_TEST(Plan, RebaseTellsWhereMembersAreAfterAStage) {
  EXPECT_EQ(this->rebase({2, 4, 5}, {0, 2, 3, 5}), (ints{1, 3}));  // 4 was dropped
  EXPECT_EQ(this->rebase({}, {0, 2}), ints{});
  EXPECT_EQ(this->rebase({0, 2}, {}), ints{});
  EXPECT_EQ(this->rebase({1, 3}, {0, 2}), ints{});
}

TYPED_TEST(Plan, RebaseRefusesWhatIsWrong) {
  using in = typename TestFixture::given;
  using out = typename TestFixture::written;
  std::vector<in> const set{2, 4, 5, 7};
  std::vector<out> const keep{0, 2, 3, 5, 7};
  expect_outputs_refused<out>([&](auto to, auto& n) { return md::rebase(seen(set), seen(keep), to, n); });
  expect_lists_refused<out>(
      [&](auto list) { return receive<out>(8, [&](auto to, auto& n) { return md::rebase(seen(set), list, to, n); }).first; }, most);
  expect_lists_refused<in>(
      [&](auto list) { return receive<out>(8, [&](auto to, auto& n) { return md::rebase(list, seen(keep), to, n); }).first; }, most);
}

TYPED_TEST(Plan, OfAnImageWithinAPromptKeepsWhatIsAround) {
  EXPECT_EQ(this->in_sequence({1, 3}, {2, 4}, 8), (ints{0, 1, 3, 5, 6, 7}));
  EXPECT_EQ(this->in_sequence({}, {2, 4}, 8), (ints{0, 1, 6, 7}));
  EXPECT_EQ(this->in_sequence({0, 1, 2, 3}, {2, 4}, 8), (ints{0, 1, 2, 3, 4, 5, 6, 7}));
  EXPECT_EQ(this->in_sequence({2}, {0, 3}, 3), (ints{2})) << "the image is all";
  EXPECT_EQ(this->in_sequence({}, {3, 0}, 3), (ints{0, 1, 2})) << "no image, at the end";
  EXPECT_EQ(this->in_sequence({}, {0, 0}, 0), ints{});
}

TYPED_TEST(Plan, InSequenceRefusesWhatIsWrong) {
  using in = typename TestFixture::given;
  using out = typename TestFixture::written;
  std::vector<in> const keep{0, 2};
  auto const answer = [&](run span, index_t sequence) {
    return receive<out>(8, [&](auto to, auto& n) { return md::in_sequence(seen(keep), span, sequence, to, n); }).first;
  };
  EXPECT_EQ(answer({2, 3}, 8), status::ok);
  EXPECT_EQ(answer({2, 3}, 5), status::ok);
  EXPECT_EQ(answer({2, 3}, 4), status::bad_shape);
  EXPECT_EQ(answer({2, 3}, -1), status::bad_shape);
  EXPECT_EQ(answer({2, 3}, most + 1), status::bad_shape);
  EXPECT_EQ(answer({2, 3}, index_min), status::bad_shape);
  EXPECT_EQ(answer({-1, 3}, 8), status::bad_shape);
  EXPECT_EQ(answer({2, -1}, 8), status::bad_shape);
  EXPECT_EQ(answer({index_max, 3}, 8), status::bad_shape);
  EXPECT_EQ(answer({2, index_max}, 8), status::bad_shape);
  EXPECT_EQ(answer({index_min, index_min}, 8), status::bad_shape);
  EXPECT_EQ(answer({2, 2}, 4), status::bad_argument) << "the list has a token that the span has not";
  expect_outputs_refused<out>([&](auto to, auto& n) { return md::in_sequence(seen(keep), {1, 3}, 4, to, n); });
  expect_lists_refused<in>(
      [](auto list) {
        return receive<out>(8, [&](auto to, auto& n) { return md::in_sequence(list, {1, 3}, 5, to, n); }).first;
      },
      3);
}

/// What the laws below need in the plainest way: positions of members, membership, sets.
ints with_sets_rebase(ints const& set, ints const& keep) {
  ints where;
  for (std::size_t i = 0; i < keep.size(); ++i) {
    if (std::count(set.begin(), set.end(), keep[i]) > 0) { where.push_back(static_cast<index_t>(i)); }
  }
  return where;
}
ints both(ints const& a, ints const& b) {
  ints common;
  std::set_intersection(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(common));
  return common;
}
ints either(ints const& a, ints const& b) {
  std::set<index_t> all(a.begin(), a.end());
  all.insert(b.begin(), b.end());
  return {all.begin(), all.end()};
}

TYPED_TEST(Plan, UniteAndRebaseAgreeWithSetsOnAllPairsOfSubsetsOfSixTokens) {
  for (unsigned a = 0; a < 64; ++a) {
    for (unsigned b = 0; b < 64; ++b) {
      ASSERT_EQ(this->unite(subset(a), subset(b)), either(subset(a), subset(b))) << a << ", " << b;
      ASSERT_EQ(this->rebase(subset(a), subset(b)), with_sets_rebase(subset(a), subset(b))) << a << ", " << b;
    }
  }
}

TYPED_TEST(Plan, TwoStagesGatherWhatTheirCompositionGathersForAllStagesOfSixTokens) {
  ints const tokens{10, 11, 12, 13, 14, 15};
  for (unsigned a = 0; a < 64; ++a) {
    auto const first = subset(a);
    for (unsigned b = 0; b < 1u << first.size(); ++b) {
      ASSERT_EQ(gathered(tokens, this->compose(first, subset(b))), gathered(gathered(tokens, first), subset(b))) << a << ", " << b;
    }
  }
}

TYPED_TEST(Plan, LawsOfCompositionHoldOnRandomStages) {
  std::mt19937 random = printed_random(42);
  for (int round = 0; round < 200; ++round) {
    auto const tokens = static_cast<index_t>(random() % 200);
    auto const size = [](ints const& list) { return static_cast<index_t>(list.size()); };
    ints const a = random_list(random, tokens), b = random_list(random, size(a)), c = random_list(random, size(b));
    ints const set = random_list(random, tokens), other = random_list(random, tokens);
    ints all(static_cast<std::size_t>(tokens)), all_of_a(a.size());
    std::iota(all.begin(), all.end(), 0), std::iota(all_of_a.begin(), all_of_a.end(), 0);

    // Stages associate; keeping everything changes nothing.
    ASSERT_EQ(this->compose(this->compose(a, b), c), this->compose(a, this->compose(b, c))) << "round " << round;
    ASSERT_EQ(this->compose(all, a), a);
    ASSERT_EQ(this->compose(a, all_of_a), a);

    // A set is re-based over two stages as over their composition, and what is left of it is where it says.
    ASSERT_EQ(this->rebase(set, this->compose(a, b)), this->rebase(this->rebase(set, a), b)) << "round " << round;
    ASSERT_EQ(this->compose(a, this->rebase(set, a)), both(set, a)) << "round " << round;
    ASSERT_EQ(this->rebase(this->compose(a, b), a), b) << "round " << round;  // what stage b kept, seen after stage a
    ASSERT_EQ(this->rebase(a, a), all_of_a);

    // A protected set that joins a plan is in it, and re-basing spreads over the union.
    ints const joined = this->unite(a, set);
    ASSERT_EQ(joined, either(a, set)) << "round " << round;
    ASSERT_EQ(joined, this->unite(set, a));
    ASSERT_EQ(this->unite(joined, set), joined);
    ASSERT_EQ(this->rebase(set, joined).size(), set.size()) << "no protected token was dropped";
    ASSERT_EQ(this->unite(this->unite(a, set), other), this->unite(a, this->unite(set, other)));
    ASSERT_EQ(this->rebase(this->unite(set, other), a), this->unite(this->rebase(set, a), this->rebase(other, a)));

    // Two stages on the image are two stages on the prompt.
    index_t const begin = static_cast<index_t>(random() % 5), behind = static_cast<index_t>(random() % 5),
                  sequence = begin + tokens + behind;
    ints const once = this->in_sequence(this->compose(a, b), {begin, tokens}, sequence);
    ints const first = this->in_sequence(a, {begin, tokens}, sequence);
    ASSERT_EQ(once, this->compose(first, this->in_sequence(b, {begin, size(a)}, size(first)))) << "round " << round;
  }
}

// --- packed segments ---

status packed(std::vector<std::int32_t> const& counts, std::vector<std::int32_t>& offsets) {
  auto const before = offsets;
  status const got = md::pack(seen(counts), md::view(offsets.data(), offsets.size()));
  if (got != status::ok) { EXPECT_EQ(offsets, before); }
  return got;
}

TEST(Pack, OffsetsAreSumsOfTheCountsBefore) {
  using offsets32 = std::vector<std::int32_t>;
  offsets32 offsets(4, -7), one(1, -7), two(2, -7);
  EXPECT_EQ(packed({3, 0, 5}, offsets), status::ok);
  EXPECT_EQ(offsets, (offsets32{0, 3, 3, 8}));
  EXPECT_EQ(check(md::segments{3, offsets.data(), nullptr, 5}, 8), status::ok) << "the next word takes them";
  EXPECT_EQ(packed({}, one), status::ok);
  EXPECT_EQ(one, (offsets32{0}));
  constexpr auto last = std::numeric_limits<std::int32_t>::max();
  EXPECT_EQ(packed({last}, two), status::ok);
  EXPECT_EQ(two, (offsets32{0, last}));
}

TEST(Pack, RefusesWhatIsWrong) {
  constexpr auto last = std::numeric_limits<std::int32_t>::max(), first = std::numeric_limits<std::int32_t>::min();
  std::vector<std::int32_t> offsets(3, -7);
  EXPECT_EQ(packed({1, -1}, offsets), status::bad_argument);
  EXPECT_EQ(packed({first, 1}, offsets), status::bad_argument);
  EXPECT_EQ(packed({last, 1}, offsets), status::bad_argument) << "more than an int32 can say";
  EXPECT_EQ(packed({last, last}, offsets), status::bad_argument);
  EXPECT_EQ(packed({1}, offsets), status::bad_shape);
  EXPECT_EQ(packed({1, 2, 3}, offsets), status::bad_shape);
  std::int32_t const counts[] = {1, 2, 3};
  auto const to = md::view(offsets.data(), 3);
  using in = md::tensor_view<std::int32_t const, 1>;
  using out = md::tensor_view<std::int32_t, 1>;
  EXPECT_EQ(md::pack(in{nullptr, {2}, {1}}, to), status::bad_shape);
  EXPECT_EQ(md::pack(in{counts, {-2}, {1}}, to), status::bad_shape);
  EXPECT_EQ(md::pack(in{counts, {index_max}, {1}}, to), status::bad_shape);
  EXPECT_EQ(md::pack(in{counts, {2}, {1}}, out{nullptr, {3}, {1}}), status::bad_shape);
  EXPECT_EQ(md::pack(in{counts, {-1}, {1}}, out{offsets.data(), {0}, {1}}), status::bad_shape);
  EXPECT_EQ(md::pack(in{counts, {2}, {2}}, to), status::bad_stride);
  EXPECT_EQ(md::pack(in{counts, {2}, {1}}, out{offsets.data(), {3}, {0}}), status::bad_stride);
  EXPECT_EQ(offsets, (std::vector<std::int32_t>{-7, -7, -7}));
}

// --- provenance ---

/// Members of each row, from a vector: one list a row.
template <class In, class Out>
std::pair<status, std::vector<ints>> inverted(ints const& source, index_t rows) {
  auto const from = as<In>(source);
  padded_tensor<std::int32_t, 1> offsets(-7, 1, 2, rows + 1);
  padded_tensor<Out, 1> members(-7, 1, 2, source.size() + 2);  // more room than needed
  status const got = md::invert(seen(from), offsets.view(), members.view());
  std::vector<ints> lists;
  if (got != status::ok) {
    for (std::int32_t const x : offsets.memory()) { EXPECT_EQ(x, -7); }
    for (Out const x : members.memory()) { EXPECT_EQ(x, -7); }
    return {got, lists};
  }
  EXPECT_EQ(offsets.view()(0), 0);
  EXPECT_EQ(offsets.view()(rows), static_cast<std::int32_t>(source.size()));
  for (std::size_t i = 0; i < 2; ++i) { EXPECT_EQ(members.view()(static_cast<index_t>(source.size() + i)), -7) << "past the members"; }
  for (index_t r = 0; r < rows; ++r) {
    lists.emplace_back();
    for (index_t i = offsets.view()(r); i < offsets.view()(r + 1); ++i) { lists.back().push_back(members.view()(i)); }
  }
  return {got, lists};
}

TYPED_TEST(Plan, InvertListsTheTokensOfEachRow) {
  using in = typename TestFixture::given;
  using out = typename TestFixture::written;
  auto const good = [](std::vector<ints> const& lists) { return std::pair(status::ok, lists); };
  EXPECT_EQ((inverted<in, out>({0, 2, 0, 1, 2}, 3)), good({{0, 2}, {3}, {1, 4}}));
  EXPECT_EQ((inverted<in, out>({2, 2}, 4)), good({{}, {}, {0, 1}, {}})) << "rows of nothing";
  EXPECT_EQ((inverted<in, out>({}, 2)), good({{}, {}}));
  EXPECT_EQ((inverted<in, out>({}, 0)), good({}));
}

TYPED_TEST(Plan, InvertIsTheInverseOfProvenance) {
  using in = typename TestFixture::given;
  using out = typename TestFixture::written;
  std::mt19937 random = printed_random(43);
  for (int round = 0; round < 200; ++round) {
    auto const rows = static_cast<index_t>(1 + random() % 60);
    ints source(random() % 150);
    for (index_t& row : source) { row = static_cast<index_t>(random()) % rows; }
    auto const [got, lists] = inverted<in, out>(source, rows);
    ASSERT_EQ(got, status::ok);
    ints back(source.size(), -1);
    for (std::size_t r = 0; r < lists.size(); ++r) {
      ASSERT_TRUE(std::is_sorted(lists[r].begin(), lists[r].end()));
      for (index_t const token : lists[r]) { back[static_cast<std::size_t>(token)] = static_cast<index_t>(r); }
    }
    ASSERT_EQ(back, source) << "round " << round;
  }
}

TYPED_TEST(Plan, InvertRefusesWhatIsWrong) {
  using in = typename TestFixture::given;
  using out = typename TestFixture::written;
  EXPECT_EQ((inverted<in, out>({0, 3}, 3).first), status::bad_argument);
  EXPECT_EQ((inverted<in, out>({0, -1}, 3).first), status::bad_argument);
  EXPECT_EQ((inverted<in, out>({0, std::numeric_limits<in>::max()}, 3).first), status::bad_argument);
  EXPECT_EQ((inverted<in, out>({0, std::numeric_limits<in>::min()}, 3).first), status::bad_argument);
  EXPECT_EQ((inverted<in, out>({0}, 0).first), status::bad_argument) << "no row to have come to";

  std::vector<in> const source{0, 1, 1};
  auto const answer = [&](md::tensor_view<in const, 1> from, index_t offsets_size, index_t offsets_stride, index_t members_size,
                          index_t members_stride) {
    std::vector<std::int32_t> offsets(8, -7);
    std::vector<out> members(8, -7);
    status const got = md::invert(from, md::tensor_view<std::int32_t, 1>{offsets.data(), {offsets_size}, {offsets_stride}},
                                  md::tensor_view<out, 1>{members.data(), {members_size}, {members_stride}});
    if (got != status::ok) {
      EXPECT_EQ(offsets, std::vector<std::int32_t>(8, -7));
      EXPECT_EQ(members, std::vector<out>(8, -7));
    }
    return got;
  };
  EXPECT_EQ(answer(seen(source), 3, 1, 3, 1), status::ok);
  EXPECT_EQ(answer(seen(source), 3, 1, 2, 1), status::bad_shape);
  EXPECT_EQ(answer(seen(source), 3, 1, -1, 1), status::bad_shape);
  EXPECT_EQ(answer(seen(source), 0, 1, 3, 1), status::bad_shape);
  EXPECT_EQ(answer(seen(source), -2, 1, 3, 1), status::bad_shape);
  EXPECT_EQ(answer(seen(source), index_min, 1, 3, 1), status::bad_shape);
  EXPECT_EQ(answer(seen(source), most + 1, 1, 3, 1), status::bad_shape);
  EXPECT_EQ(answer({nullptr, {3}, {1}}, 3, 1, 3, 1), status::bad_shape);
  EXPECT_EQ(answer({source.data(), {-1}, {1}}, 3, 1, 3, 1), status::bad_shape);
  EXPECT_EQ(answer({source.data(), {index_max}, {1}}, 3, 1, 3, 1), status::bad_shape);
  EXPECT_EQ(answer({source.data(), {2}, {2}}, 3, 1, 3, 1), status::bad_stride);
  EXPECT_EQ(answer(seen(source), 3, 2, 3, 1), status::bad_stride);
  EXPECT_EQ(answer(seen(source), 3, 1, 3, 2), status::bad_stride);
  EXPECT_EQ(md::invert(seen(source), md::tensor_view<std::int32_t, 1>{}, md::tensor_view<out, 1>{}), status::bad_shape);
}

// --- plans at compile time ---

constexpr std::array<std::int32_t, 2> composed() {
  std::array<std::int32_t, 4> const first{0, 2, 3, 5};
  std::array<std::int32_t, 2> const second{1, 3};
  std::array<std::int32_t, 2> both_stages{};
  index_t count = 0;
  status const done =
      md::compose(md::tensor_view<std::int32_t const, 1>{&first[0], {4}, {1}}, md::tensor_view<std::int32_t const, 1>{&second[0], {2}, {1}},
                  md::tensor_view<std::int32_t, 1>{&both_stages[0], {2}, {1}}, count);
  return done == status::ok && count == 2 ? both_stages : std::array<std::int32_t, 2>{};
}

TEST(PlanAtCompileTime, Composes) {
  constexpr auto both_stages = composed();
  EXPECT_EQ(both_stages, (std::array<std::int32_t, 2>{2, 5}));
}

}  // namespace
