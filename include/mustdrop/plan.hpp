// SPDX-License-Identifier: Apache-2.0
#pragma once

// no backend: a plan is a few hundred integers on the host.
//
// plan: the list of what stays, in the forms that engines want, and the algebra of such lists.
//
//   keep list  ascending indices            {1, 2, 5}          the form that words write
//   mask       one byte a token             0 1 1 0 0 1        vLLM
//   runs       (begin, length)              (1, 2) (5, 1)      MNN's reserve pairs, llama_memory_seq_rm's gaps
//   moves      (source, destination, length)  1→0 ×2, 5→2 ×1   TensorRT-LLM: ascending, destination ≤ source, safe in place
//
// All functions work on one list (a row of keep_lists: `keep.indices` narrowed, or `list(keep, s)`), allocate nothing, check what they are
// given, and write nothing unless they return ok. `count` receives the number of entries written.
// Errors      bad_shape     the output is too short, or a mask is not as long as it must be
//             bad_stride    a view is not dense
//             bad_argument  a list does not ascend, or an index lies outside what it indexes
// Precondition  outputs overlap no input. Memory is the host's.

#include <initializer_list>

#include <mustdrop/status.hpp>
#include <mustdrop/view.hpp>

MUSTDROP_NAMESPACE_BEGIN

/// Tokens [begin, begin + length).
struct run {
  index_t begin = 0, length = 0;
};

/// Slots [source, source + length) go to [destination, …); destination ≤ source.
struct move {
  index_t source = 0, destination = 0, length = 0;
};

/// List s of a batch, as plan functions take it.
template <class Index>
constexpr tensor_view<Index const, 1> list(keep_lists<Index> const& keep, index_t s) noexcept {
  return {keep.indices.data + s * keep.indices.strides[0], {keep.counts(s)}, {1}};  // no element is named: there may be none
}

/// Whether a list ascends within [0, tokens).
template <class Index>
constexpr status check(tensor_view<Index, 1> keep, index_t tokens) noexcept {
  if (!well_formed(keep) || tokens < 0) { return status::bad_shape; }
  if (!unit_stride(keep)) { return status::bad_stride; }
  index_t last = -1;
  for (index_t i = 0; i < keep.size(0); ++i) {
    if (keep(i) <= last || keep(i) >= tokens) { return status::bad_argument; }
    last = keep(i);
  }
  return status::ok;
}

namespace plan_detail {

template <class T>
constexpr status writable(tensor_view<T, 1> out, index_t needed) noexcept {
  if (!well_formed(out) || out.size(0) < needed) { return status::bad_shape; }
  return unit_stride(out) ? status::ok : status::bad_stride;
}

template <class... Status>
constexpr status first_error(Status... statuses) noexcept {
  status found = status::ok;
  ((found = found != status::ok ? found : statuses), ...);
  return found;
}

/// Calls visit(begin, length) for each maximal run of consecutive indices.
template <class Index, class Visit>
constexpr index_t for_each_run(tensor_view<Index, 1> keep, Visit const& visit) noexcept {
  index_t runs = 0;
  for (index_t i = 0; i < keep.size(0); ++runs) {
    index_t length = 1;
    while (i + length < keep.size(0) && keep(i + length) == keep(i) + length) { ++length; }
    visit(runs, i, index_t{keep(i)}, length);
    i += length;
  }
  return runs;
}

/// Runs or moves back to a list; `begin_of` reads where one begins.
template <class Part, class Index, class BeginOf>
constexpr status from_parts(tensor_view<Part, 1> parts, tensor_view<Index, 1> keep, index_t& count, BeginOf const& begin_of) noexcept {
  index_t total = 0, end = 0;
  if (status const s = writable(parts, 0); s != status::ok) { return s; }
  for (index_t r = 0; r < parts.size(0); ++r) {
    index_t const begin = begin_of(parts(r)), length = parts(r).length;
    if (begin < end || begin > most_tokens || length < 0 || length > most_tokens - begin) { return status::bad_argument; }
    end = begin + length, total += length;
  }
  if (status const s = writable(keep, total); s != status::ok) { return s; }
  count = 0;
  for (index_t r = 0; r < parts.size(0); ++r) {
    for (index_t i = 0; i < parts(r).length; ++i) { keep(count++) = static_cast<Index>(begin_of(parts(r)) + i); }
  }
  return status::ok;
}

}  // namespace plan_detail

/// mask[t] = 1 for tokens that stay, 0 for the others; as long as the segment.
template <class Index>
constexpr status to_mask(tensor_view<Index, 1> keep, tensor_view<std::uint8_t, 1> mask) noexcept {
  if (status const s = plan_detail::first_error(plan_detail::writable(mask, 0), check(keep, mask.size(0))); s != status::ok) { return s; }
  for (index_t t = 0; t < mask.size(0); ++t) { mask(t) = 0; }
  for (index_t i = 0; i < keep.size(0); ++i) { mask(keep(i)) = 1; }
  return status::ok;
}

template <class Index>
constexpr status from_mask(tensor_view<std::uint8_t const, 1> mask, tensor_view<Index, 1> keep, index_t& count) noexcept {
  if (!well_formed(mask)) { return status::bad_shape; }
  if (!unit_stride(mask)) { return status::bad_stride; }
  index_t total = 0;
  for (index_t t = 0; t < mask.size(0); ++t) { total += mask(t) != 0; }
  if (status const s = plan_detail::writable(keep, total); s != status::ok) { return s; }
  count = 0;
  for (index_t t = 0; t < mask.size(0); ++t) {
    if (mask(t) != 0) { keep(count++) = static_cast<Index>(t); }
  }
  return status::ok;
}

/// The fewest runs; keep.size(0) of them are always room enough.
template <class Index>
constexpr status to_runs(tensor_view<Index, 1> keep, tensor_view<run, 1> runs, index_t& count) noexcept {
  if (status const s = check(keep, most_tokens); s != status::ok) { return s; }
  index_t const needed = plan_detail::for_each_run(keep, [](index_t, index_t, index_t, index_t) {});
  if (status const s = plan_detail::writable(runs, needed); s != status::ok) { return s; }
  count = plan_detail::for_each_run(keep, [runs](index_t r, index_t, index_t begin, index_t length) { runs(r) = {begin, length}; });
  return status::ok;
}

template <class Index>
constexpr status from_runs(tensor_view<run const, 1> runs, tensor_view<Index, 1> keep, index_t& count) noexcept {
  return plan_detail::from_parts(runs, keep, count, [](run const& r) { return r.begin; });
}

/// One move a run, in ascending order; the first may stay in place. Done in this order, no move overwrites what a later one reads.
template <class Index>
constexpr status to_moves(tensor_view<Index, 1> keep, tensor_view<move, 1> moves, index_t& count) noexcept {
  if (status const s = check(keep, most_tokens); s != status::ok) { return s; }
  index_t const needed = plan_detail::for_each_run(keep, [](index_t, index_t, index_t, index_t) {});
  if (status const s = plan_detail::writable(moves, needed); s != status::ok) { return s; }
  count = plan_detail::for_each_run(keep, [moves](index_t r, index_t to, index_t from, index_t length) { moves(r) = {from, to, length}; });
  return status::ok;
}

/// Moves that leave no gap behind (each destination is where the one before ended), as to_moves writes them.
template <class Index>
constexpr status from_moves(tensor_view<move const, 1> moves, tensor_view<Index, 1> keep, index_t& count) noexcept {
  if (status const s = plan_detail::writable(moves, 0); s != status::ok) { return s; }
  index_t packed = 0;
  for (index_t m = 0; m < moves.size(0); ++m) {
    if (moves(m).destination != packed || moves(m).length < 0 || moves(m).length > most_tokens) { return status::bad_argument; }
    packed += moves(m).length;
  }
  return plan_detail::from_parts(moves, keep, count, [](move const& m) { return m.source; });
}

/// Two stages as one, in the first one's coordinates: out[i] = first[second[i]].
template <class First, class Second, class Index>
constexpr status compose(tensor_view<First, 1> first, tensor_view<Second, 1> second, tensor_view<Index, 1> out, index_t& count) noexcept {
  status const s =
      plan_detail::first_error(check(first, most_tokens), check(second, first.size(0)), plan_detail::writable(out, second.size(0)));
  if (s != status::ok) { return s; }
  for (index_t i = 0; i < second.size(0); ++i) { out(i) = static_cast<Index>(first(second(i))); }
  count = second.size(0);
  return status::ok;
}

/// What is in either list: how a protected set joins a plan.
template <class A, class B, class Index>
constexpr status unite(tensor_view<A, 1> a, tensor_view<B, 1> b, tensor_view<Index, 1> out, index_t& count) noexcept {
  if (status const s = plan_detail::first_error(check(a, most_tokens), check(b, most_tokens)); s != status::ok) { return s; }
  for (bool const writing : {false, true}) {  // count first, so that a list too short is left alone
    index_t i = 0, j = 0, n = 0;
    while (i < a.size(0) || j < b.size(0)) {
      bool const take_a = j == b.size(0) || (i < a.size(0) && a(i) <= b(j)), take_b = i == a.size(0) || (j < b.size(0) && b(j) <= a(i));
      if (writing) { out(n) = static_cast<Index>(take_a ? a(i) : b(j)); }
      i += take_a, j += take_b, ++n;
    }
    if (writing) {
      count = n;
    } else if (status const s = plan_detail::writable(out, n); s != status::ok) {
      return s;
    }
  }
  return status::ok;
}

/// Where the members of a set are after a stage: out = { i : keep[i] in set }. Members that the stage dropped are left out.
template <class Set, class Keep, class Index>
constexpr status rebase(tensor_view<Set, 1> set, tensor_view<Keep, 1> keep, tensor_view<Index, 1> out, index_t& count) noexcept {
  if (status const s = plan_detail::first_error(check(set, most_tokens), check(keep, most_tokens)); s != status::ok) { return s; }
  for (bool const writing : {false, true}) {
    index_t n = 0;
    for (index_t i = 0, j = 0; i < keep.size(0) && j < set.size(0);) {
      if (keep(i) == set(j)) {
        if (writing) { out(n) = static_cast<Index>(i); }
        ++n, ++i, ++j;
      } else {
        keep(i) < set(j) ? ++i : ++j;
      }
    }
    if (writing) {
      count = n;
    } else if (status const s = plan_detail::writable(out, n); s != status::ok) {
      return s;
    }
  }
  return status::ok;
}

/// A plan for the tokens [span.begin, span.begin + span.length) of a sequence as a plan for all of it: what is around stays.
template <class Keep, class Index>
constexpr status in_sequence(tensor_view<Keep, 1> keep, run span, index_t sequence, tensor_view<Index, 1> out, index_t& count) noexcept {
  if (sequence < 0 || sequence > most_tokens || span.begin < 0 || span.length < 0 || span.length > sequence - span.begin) {
    return status::bad_shape;
  }
  if (status const s = check(keep, span.length); s != status::ok) { return s; }
  if (status const s = plan_detail::writable(out, sequence - span.length + keep.size(0)); s != status::ok) { return s; }
  count = 0;
  for (index_t t = 0; t < span.begin; ++t) { out(count++) = static_cast<Index>(t); }
  for (index_t i = 0; i < keep.size(0); ++i) { out(count++) = static_cast<Index>(span.begin + keep(i)); }
  for (index_t t = span.begin + span.length; t < sequence; ++t) { out(count++) = static_cast<Index>(t); }
  return status::ok;
}

/// Offsets of packed segments from their counts: [0, c0, c0 + c1, …]. What gather's out_offsets and the next word's segments take.
constexpr status pack(tensor_view<std::int32_t const, 1> counts, tensor_view<std::int32_t, 1> offsets) noexcept {
  if (!well_formed(counts) || !well_formed(offsets) || offsets.size(0) != counts.size(0) + 1) { return status::bad_shape; }
  if (!unit_stride(counts) || !unit_stride(offsets)) { return status::bad_stride; }
  index_t total = 0;
  for (index_t s = 0; s < counts.size(0); ++s) {
    if (counts(s) < 0 || counts(s) > most_tokens - total) { return status::bad_argument; }
    total += counts(s);
  }
  offsets(0) = 0;
  for (index_t s = 0; s < counts.size(0); ++s) { offsets(s + 1) = offsets(s) + counts(s); }
  return status::ok;
}

/// Provenance the other way round: members[offsets[r] … offsets[r + 1]) are the tokens that went into row r, ascending.
template <class Source, class Index>
constexpr status invert(tensor_view<Source, 1> source, tensor_view<std::int32_t, 1> offsets, tensor_view<Index, 1> members) noexcept {
  status const s = plan_detail::first_error(plan_detail::writable(offsets, 1), plan_detail::writable(members, source.size(0)));
  if (!well_formed(source) || s != status::ok) { return s != status::ok ? s : status::bad_shape; }
  if (!unit_stride(source)) { return status::bad_stride; }
  index_t const rows = offsets.size(0) - 1;
  for (index_t t = 0; t < source.size(0); ++t) {
    if (source(t) < 0 || source(t) >= rows) { return status::bad_argument; }
  }
  for (index_t r = 0; r <= rows; ++r) { offsets(r) = 0; }
  for (index_t t = 0; t < source.size(0); ++t) { ++offsets(source(t)); }
  std::int32_t end = 0;
  for (index_t r = 0; r <= rows; ++r) { offsets(r) = end += offsets(r); }                                // where each row ends …
  for (index_t t = source.size(0); t-- > 0;) { members(--offsets(source(t))) = static_cast<Index>(t); }  // … and now where it begins
  return status::ok;
}

MUSTDROP_NAMESPACE_END
