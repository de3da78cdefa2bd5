// SPDX-License-Identifier: Apache-2.0
#pragma once

// One call of a word on the reference and on the CPU backend, with arguments that an input makes: valid ones, and now and then one of them
// damaged in a way that reads and writes nothing outside its memory. Statuses and every byte that a call could write must agree.
//
// fuzz_<word>.cpp defines fuzz::run(input&); fuzz.cpp runs it, on what libFuzzer thinks of, on the kept files of corpus/<word>/, or on
// random bytes.

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#include <mustdrop/reference/backend.hpp>
#include "cpu_backends.hpp"
#include "fuzz_input.hpp"
#include "memory.hpp"

namespace fuzz {

/// Makes one call of the word from the input; aborts if the backends differ.
void run(input& in);

/// Runs steps forward or backward: no result may depend on it.
struct either_way {
  bool backward = false;
  md::index_t parts = 1;

  template <class F>
  void operator()(md::index_t n, F const& f) const noexcept {
    for (md::index_t i = 0; i < n; ++i) { f(backward ? n - 1 - i : i); }
  }
  md::index_t width() const noexcept { return parts; }
  md::index_t bytes_a_part() const noexcept { return parts == 1 ? 1 << 17 : 64; }
};
using fuzzed_backend = md::cpu::backend<xsimd::default_arch, either_way>;

enum class side : std::uint8_t { reference, cpu };
constexpr std::array<side, 2> both_sides{side::reference, side::cpu};

enum class role : std::uint8_t { values, in, out };  // values: an input of which a row may be there many times (stride 0)
enum class last_axis : std::uint8_t { dense, any };

/// What a call can damage, compare and print.
class argument {
 public:
  argument() = default;
  virtual ~argument() = default;
  argument(argument const&) = delete;
  argument& operator=(argument const&) = delete;
  virtual bool damage(std::uint64_t how) = 0;  // whether sizes may still fit each other, so that contents matter
  virtual void begin() = 0;                    // both sides' memory is as it was made
  virtual bool untouched(side on) const = 0;   // … and still is
  virtual bool agree() const = 0;              // says where it does not
  virtual void print() const = 0;
};

class call {
 public:
  call(char const* word, input& in) : word_(word), damaged_(in.one_in(8)), damage_(damaged_ ? in.bits(4) : 0) {
    on_cpu_.execute = {in.one_in(2), 1 + in.upto(3)};
  }
  void add(argument& one) { arguments_.push_back(&one); }

  /// `contents()` is what the host functions `check` say of the arrays; `needed(backend)` the workspace; `word(backend, side, workspace)`
  /// the call.
  template <class Contents, class Needed, class Word>
  void run(Contents const& contents, Needed const& needed, Word const& word) {
    for (argument* one : arguments_) { one->begin(); }
    md::reference::backend const on_reference;
    std::size_t bytes[] = {needed(on_reference), needed(on_cpu_)};
    if (!damaged_ && contents() != md::status::ok) { fail("these contents were to be valid"); }
    bool const spoil_scratch = damaged_ && damage_ % (arguments_.size() + 1) == arguments_.size();
    if (damaged_ && !spoil_scratch) {
      bool const may_fit = arguments_[damage_ % (arguments_.size() + 1)]->damage(damage_ / (arguments_.size() + 1));
      if (may_fit && contents() == md::status::bad_argument) { return; }  // sizes that fit each other, and contents that no longer fit them
      if (may_fit) { bytes[0] = needed(on_reference), bytes[1] = needed(on_cpu_); }
    }
    md::status got[2] = {};
    for (side const on : both_sides) {
      std::size_t const size = bytes[static_cast<int>(on)];
      if (spoil_scratch && size == 0) { return; }  // this backend needs none, so that nothing is wrong
      aligned_memory scratch(size);
      md::workspace lent = scratch.lend();
      if (spoil_scratch) { spoil(lent); }
      got[static_cast<int>(on)] = on == side::reference ? word(on_reference, on, lent) : word(on_cpu_, on, lent);
      if (spoil_scratch && got[static_cast<int>(on)] == md::status::ok) { fail("a workspace that is none was accepted"); }
    }
    compare(got[0], got[1]);
  }

  /// A word without workspace.
  template <class Contents, class Word>
  void run(Contents const& contents, Word const& word) {
    run(
        contents, [](auto const&) { return std::size_t{0}; },
        [&](auto const& backend, side on, md::workspace) { return word(backend, on); });
  }

 private:
  void spoil(md::workspace& lent) const {
    switch (damage_ >> 16 & 3u) {
      case 0: --lent.bytes; break;
      case 1: lent.data = nullptr; break;
      case 2: lent.data = static_cast<char*>(lent.data) + 8; break;
      default: lent.bytes = 0; break;
    }
  }

  void compare(md::status on_reference, md::status on_cpu) const {
    if (on_reference != on_cpu) {
      std::fprintf(stderr, "reference: %s; cpu: %s\n", message(on_reference), message(on_cpu));
      fail("the statuses differ");
    }
    for (argument const* one : arguments_) {
      if (!one->agree()) { fail("the outputs differ"); }
      for (side const on : both_sides) {
        if (on_reference != md::status::ok && !one->untouched(on)) { fail("refused, and yet something was written"); }
      }
    }
  }

  [[noreturn]] void fail(char const* why) const {
    std::fprintf(stderr, "%s: %s (cpu: %s, %s, %d parts)\n", word_, why, xsimd::default_arch::name(),
                 on_cpu_.execute.backward ? "backward" : "forward", static_cast<int>(on_cpu_.execute.parts));
    for (argument const* one : arguments_) { one->print(); }
    std::abort();
  }

  char const* word_;
  bool damaged_;
  std::uint64_t damage_;
  fuzzed_backend on_cpu_;
  std::vector<argument*> arguments_;
};

/// The same number, any NaN like any other; of what is no number, the same bytes.
template <class T>
bool equal(T const& a, T const& b) {
  if constexpr (md::is_real_v<T>) {
    return same(md::widen(a), md::widen(b));
  } else {
    return std::memcmp(&a, &b, sizeof a) == 0;
  }
}
template <class T>
void print_value(T const& value) {
  if constexpr (md::is_real_v<T>) { std::fprintf(stderr, "%a ", static_cast<double>(md::widen(value))); }
  unsigned char bytes[sizeof value];
  std::memcpy(bytes, &value, sizeof value);
  std::fprintf(stderr, "0x");
  for (std::size_t i = sizeof value; i-- > 0;) { std::fprintf(stderr, "%02x", bytes[i]); }
}

/// A tensor in memory of its own, whose last element is often the last of the memory, so that AddressSanitizer sees one too many. Its outer
/// axes lie in any order, with room between them or backward; an input may repeat a row (stride 0). An output has memory on each side.
template <class T, int Rank>
class tensor : public argument {
 public:
  template <class... Size>
  tensor(call& of, input& in, char const* name, role used_as, last_axis last, Size... size) : name_(name), role_(used_as), last_(last) {
    md::index_t const sizes[Rank] = {static_cast<md::index_t>(size)...};
    std::copy(sizes, sizes + Rank, view_.sizes);
    lay_out(in);
    of.add(*this);
  }

  /// Everything, what lies between the rows too.
  template <class Value>
  tensor& fill(Value const& value) {
    for (T& element : initial_) { element = value(); }
    return *this;
  }
  /// What an output holds before, in memory that nobody may touch: no NaN, so that a NaN written over it is seen.
  tensor& guard() {
    for (std::size_t i = 0; i < initial_.size(); ++i) { std::memset(&initial_[i], static_cast<int>(0x11 + i % 7), sizeof(T)); }
    return *this;
  }
  template <class... I>
  T& operator()(I... i) {
    return view(side::reference, initial_)(i...);
  }

  md::tensor_view<T, Rank> view(side on = side::reference) {
    return view(on, role_ != role::out ? initial_ : memory_[static_cast<int>(on)]);
  }
  md::index_t size(int axis) const { return view_.sizes[axis]; }

  /// `{}`: not given.
  tensor& leave_out() {
    view_ = {}, missing_ = true;
    return *this;
  }

  bool damage(std::uint64_t how) override {
    constexpr std::uint64_t ways = 5;
    auto const axis = static_cast<int>(how / ways % Rank);
    switch (how % ways) {
      case 0: return view_.sizes[axis] = -1, false;
      case 1: return view_.sizes[axis] = md::most_tokens + 1, false;
      case 2: return view_.sizes[axis] -= view_.sizes[axis] > 0 ? 1 : 0, true;
      case 3: return view_.strides[Rank - 1] = last_ == last_axis::dense && view_.sizes[Rank - 1] > 1 ? 2 : view_.strides[Rank - 1], false;
      default: return missing_ = true;
    }
  }
  void begin() override {
    if (role_ == role::out) { memory_[0] = memory_[1] = initial_; }
  }
  bool untouched(side on) const override {
    return role_ != role::out || initial_.empty() ||
           std::memcmp(memory_[static_cast<int>(on)].data(), initial_.data(), initial_.size() * sizeof(T)) == 0;
  }
  bool agree() const override {
    for (std::size_t i = 0; i < memory_[0].size(); ++i) {
      if (equal(memory_[0][i], memory_[1][i])) { continue; }
      std::fprintf(stderr, "%s", name_);
      print_place(static_cast<md::index_t>(i) - first_);
      std::fprintf(stderr, ": reference ");
      print_value(memory_[0][i]);
      std::fprintf(stderr, ", cpu ");
      print_value(memory_[1][i]);
      std::fprintf(stderr, ", before ");
      print_value(initial_[i]);
      std::fprintf(stderr, "\n");
      return false;
    }
    return true;
  }
  void print() const override {
    std::fprintf(stderr, "  %s%s: %zu-byte elements, sizes", name_, missing_ ? " (no address)" : "", sizeof(T));
    for (md::index_t const n : view_.sizes) { std::fprintf(stderr, " %lld", static_cast<long long>(n)); }
    std::fprintf(stderr, ", strides");
    for (md::index_t const n : view_.strides) { std::fprintf(stderr, " %lld", static_cast<long long>(n)); }
    std::fprintf(stderr, ", from element %lld of %zu\n", static_cast<long long>(first_), initial_.size());
  }

 private:
  void lay_out(input& in) {
    int order[Rank];
    for (int i = 0; i < Rank; ++i) { order[i] = Rank - 1 - i; }  // innermost first
    int const fixed = last_ == last_axis::dense ? 1 : 0;
    if (in.one_in(2) && Rank - fixed > 1) { std::swap(order[fixed + in.upto(Rank - fixed - 1)], order[fixed + in.upto(Rank - fixed - 1)]); }
    bool const plain = !in.one_in(2), empty = std::count(view_.sizes, view_.sizes + Rank, 0) > 0;
    md::index_t span = 1;  // elements from the first to the last
    for (int const axis : order) {
      md::index_t const n = view_.sizes[axis];
      md::index_t step = span + (plain || (axis == Rank - 1 && fixed == 1) ? 0 : in.upto(9));
      if (!plain && n <= 1) { step = in.upto(200) - 100; }  // says nothing
      if (!plain && axis != Rank - 1 && n > 1 && role_ == role::values && in.one_in(12)) { step = 0; }
      bool const backward = !plain && axis != Rank - 1 && n > 1 && in.one_in(8);
      view_.strides[axis] = backward ? -step : step;
      if (n <= 1) { continue; }
      span += (n - 1) * step, first_ += backward ? (n - 1) * step : 0;
    }
    md::index_t const before = plain ? 0 : in.upto(33), behind = plain || in.one_in(2) ? 0 : in.upto(40);
    first_ = empty ? 0 : first_ + before;
    initial_.resize(static_cast<std::size_t>(empty ? (plain ? 0 : 1) : before + span + behind));
  }

  md::tensor_view<T, Rank> view(side, std::vector<T>& memory) {
    md::tensor_view<T, Rank> v = view_;
    v.data = missing_ || memory.empty() ? nullptr : memory.data() + first_;
    return v;
  }

  void print_place(md::index_t offset) const {
    md::index_t at[Rank] = {};
    for (bool more = std::count(view_.sizes, view_.sizes + Rank, 0) == 0; more;) {
      md::index_t here = 0;
      for (int axis = 0; axis < Rank; ++axis) { here += at[axis] * view_.strides[axis]; }
      if (here == offset) {
        for (md::index_t const i : at) { std::fprintf(stderr, "[%lld]", static_cast<long long>(i)); }
        return;
      }
      more = false;
      for (int axis = Rank - 1; axis >= 0 && !more; --axis) {
        more = ++at[axis] < view_.sizes[axis];
        if (!more) { at[axis] = 0; }
      }
    }
    std::fprintf(stderr, " outside its elements, at %+lld", static_cast<long long>(offset));
  }

  char const* name_;
  role role_;
  last_axis last_;
  md::tensor_view<T, Rank> view_;
  md::index_t first_ = 0;
  bool missing_ = false;
  std::vector<T> initial_, memory_[2];
};

}  // namespace fuzz
