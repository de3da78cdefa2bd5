// SPDX-License-Identifier: Apache-2.0
#include "block.hpp"

#include <algorithm>
#include <charconv>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <cuda_emulator/kernel.hpp>
#include <vector>

#include "sanitizers.hpp"
#include "shared_memory.hpp"
#include "stack.hpp"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace cuda_emulator {
namespace {

constexpr unsigned warp_lanes = 32, most_warps = most_threads / warp_lanes;

/// TSan sees races between threads that it knows no order of. Those of so many blocks in a row are kept so: two at least, and then as many
/// as these threads make. Each thread more makes each barrier dearer.
constexpr unsigned unordered_threads = 256, most_stacks = 2 * most_threads;

// A thread gets a stack when it starts. One that never waits gives it back as it returns, so the next runs on it without any switch.
struct thread {
  uint3 index{};
  stack* on = nullptr;
  warp_operation what{};  // that it waits for, and what it brings
  code_line at{};
  unsigned mask = 0, source = 0;
  std::uint64_t value = 0, result = 0;
  unsigned arrived = 0;  // lanes, if it was the first
};

struct warp {
  unsigned lanes = 0;     // that the block has
  unsigned runnable = 0;  // that may go on, or start
  unsigned opening = 0;   // that were the first to arrive where others are waited for
  unsigned at_barrier = 0, returned = 0;
};

struct barrier {
  unsigned arrived = 0, true_count = 0;
  barrier_result result{};
  code_line at{};
};

struct stack_queue {
  stack* items[most_stacks];
  unsigned begin = 0, count = 0;

  void push(stack& one) { items[(begin + count++) % most_stacks] = &one; }
  stack& pop_newest() { return *items[(begin + --count) % most_stacks]; }
  stack& pop_oldest() {
    --count;
    return *items[begin++ % most_stacks];
  }
};

struct machine {
  std::vector<thread> threads{most_threads};
  warp warps[most_warps];
  unsigned thread_count = 0, warp_count = 0;
  unsigned returned = 0;        // threads
  unsigned runnable_warps = 0;  // those with runnable lanes
  unsigned current_warp = 0;
  thread* current = nullptr;
  barrier block_barrier;
  int barrier_value = 0;
  std::function<void()> const* body = nullptr;
  std::uint64_t random_state = 1;
  char problem[512] = "";

  stack stacks[most_stacks];
  unsigned made_stacks = 0;
  stack_queue free_stacks;

  // For TSan. A stack that two threads use is a race to it, unless it knows an order between them.
  stack_queue used_stacks;
  unsigned block_number = 0, unordered_blocks = 2;
  char started = 0;                   // released as a block starts
  char done[unordered_threads] = {};  // released by the threads of one of the unordered blocks as they return
};
machine m;
work_done counted{};

unsigned lowest_bit(unsigned bits) { return static_cast<unsigned>(__builtin_ctz(bits)); }

/// One of the set bits: the next above or below a random place.
unsigned random_bit(unsigned bits) {
  unsigned const random = random_below(64), place = random % 32;
  unsigned const turned = bits >> place | bits << (-place & 31);
  unsigned const above = lowest_bit(turned), below = 31 - static_cast<unsigned>(__builtin_clz(turned));
  return ((random < 32 ? above : below) + place) % 32;
}

unsigned number_of(thread const& t) { return static_cast<unsigned>(&t - m.threads.data()); }
unsigned warp_of(thread const& t) { return number_of(t) / warp_lanes; }
unsigned bit_of(thread const& t) { return 1u << number_of(t) % warp_lanes; }
thread& thread_at(unsigned warp_number, unsigned lane) { return m.threads[warp_number * warp_lanes + lane]; }

bool same_line(code_line a, code_line b) { return a.line == b.line && a.file == b.file; }
char const* file_name(code_line at) {
  char const* const slash = std::strrchr(at.file, '/');
  return slash == nullptr ? at.file : slash + 1;
}

char* append(char* end, uint3 place) {
  for (unsigned const i : {place.x, place.y, place.z}) {
    end = std::to_chars(end, end + 10, i).ptr;
    *end++ = ',';
  }
  end[-1] = ')';
  return end;
}

void run_threads();

stack& make_stack() {
  unsigned const number = m.made_stacks++;
  make_stack(m.stacks[number], number, run_threads);
  return m.stacks[number];
}
stack& take_stack() { return m.free_stacks.count != 0 ? m.free_stacks.pop_newest() : make_stack(); }

void allow(unsigned warp_number, unsigned lanes) {
  m.warps[warp_number].runnable |= lanes;
  if (lanes != 0) { m.runnable_warps |= 1u << warp_number; }
}
void disallow(thread const& t) {
  warp& from = m.warps[warp_of(t)];
  from.runnable &= ~bit_of(t);
  if (from.runnable == 0) { m.runnable_warps &= ~(1u << warp_of(t)); }
}

/// The next thread to run, nullptr if all wait or have returned. Lanes come in random order, warps too. A warp mostly goes on until all of
/// it waits, so it gets ahead of the others as far as barriers let it.
thread* next_thread() {
  if (m.runnable_warps == 0) { return nullptr; }
  if (m.warps[m.current_warp].runnable == 0 || random_below(16) == 0) { m.current_warp = random_bit(m.runnable_warps); }
  thread& next = thread_at(m.current_warp, random_bit(m.warps[m.current_warp].runnable));
  disallow(next);
  return &next;
}

void make_current(thread& t, stack& on) {
  m.current = &t;
  t.on = &on;
  threadIdx = t.index;
}

/// Leaves `from` for the thread, or for the host when there is none.
void go_to(thread* t, stack& from) {
  ++counted.switches;
  if (t == nullptr) {
    m.current = nullptr;
    switch_stack(from, host_stack());
  } else {
    make_current(*t, t->on != nullptr ? *t->on : take_stack());
    switch_stack(from, *t->on);
  }
}

/// The current thread waits; returns when it may go on.
void wait() {
  stack& here = *m.current->on;
  go_to(next_thread(), here);
}

char* done_token() { return &m.done[m.block_number % m.unordered_blocks]; }

/// What every stack does: runs threads that start, one after another.
void run_threads() {
  stack& here = *m.current->on;
  arrive_on(here);
  for (;;) {
    if (watched_by_tsan()) { __tsan_set_fiber_name(here.fiber, who_runs()); }
    tsan_acquire(&m.started);
    (*m.body)();
    tsan_release(done_token());
    thread& ended = *m.current;
    ended.on = nullptr;
    m.warps[warp_of(ended)].returned |= bit_of(ended);
    ++m.returned;
    thread* const next = next_thread();
    if (next != nullptr && next->on == nullptr && !watched_by_tsan()) {
      make_current(*next, here);
      continue;
    }
    (watched_by_tsan() ? m.used_stacks : m.free_stacks).push(here);
    go_to(next, here);
  }
}

/// TSan: each of the lanes releases, or acquires, the token.
void each_lane(unsigned warp_number, unsigned lanes, void (*step)(void*), void* token) {
  for (unsigned rest = lanes; rest != 0; rest &= rest - 1) {
    tsan_go_to(thread_at(warp_number, lowest_bit(rest)).on->fiber);
    step(token);
  }
}

/// What each of the lanes did is ordered before what each of them does next.
void order_warp(unsigned warp_number, unsigned lanes) {
  if (!watched_by_tsan()) { return; }
  void* const token = std::malloc(1);  // that nobody has ever released
  each_lane(warp_number, lanes, tsan_release, token);
  each_lane(warp_number, lanes, tsan_acquire, token);
  tsan_go_to(m.current->on->fiber);
  std::free(token);
}
void order_block() {
  if (!watched_by_tsan()) { return; }
  void* const token = std::malloc(1);
  for (unsigned w = 0; w < m.warp_count; ++w) { each_lane(w, m.warps[w].lanes, tsan_release, token); }
  for (unsigned w = 0; w < m.warp_count; ++w) { each_lane(w, m.warps[w].lanes, tsan_acquire, token); }
  tsan_go_to(m.current->on->fiber);
  std::free(token);
}

/// All threads are at the barrier. The current one came last, and goes on at once.
void open_barrier() {
  barrier& b = m.block_barrier;
  switch (b.result) {
    case barrier_result::none: m.barrier_value = 0; break;
    case barrier_result::count: m.barrier_value = static_cast<int>(b.true_count); break;
    case barrier_result::all: m.barrier_value = b.true_count == m.thread_count; break;
    case barrier_result::any: m.barrier_value = b.true_count != 0; break;
  }
  b = {};
  order_block();
  for (unsigned w = 0; w < m.warp_count; ++w) {
    m.warps[w].at_barrier = 0;
    allow(w, m.warps[w].lanes);
  }
  disallow(*m.current);
}

/// What the lanes of an operation get from each other.
void exchange(unsigned warp_number, thread const& first) {
  unsigned votes = 0;
  for (unsigned rest = first.mask; rest != 0; rest &= rest - 1) {
    thread& t = thread_at(warp_number, lowest_bit(rest));
    if (t.value != 0) { votes |= bit_of(t); }
    if (first.what == warp_operation::shuffle) {
      if ((first.mask >> t.source & 1) == 0) {
        fail("a shuffle reads a lane that its mask does not name: lane %u reads lane %u at %s:%d", lowest_bit(rest), t.source,
             file_name(t.at), t.at.line);
      }
      t.result = thread_at(warp_number, t.source).value;
    }
  }
  if (first.what != warp_operation::ballot) { return; }
  for (unsigned rest = first.mask; rest != 0; rest &= rest - 1) { thread_at(warp_number, lowest_bit(rest)).result = votes; }
}

/// All lanes of the operation that `first` opened are there. The current one came last, and goes on at once.
void close_operation(unsigned warp_number, thread const& first) {
  exchange(warp_number, first);
  if (first.what == warp_operation::barrier) { order_warp(warp_number, first.mask); }  // CUDA promises no order from the others
  m.warps[warp_number].opening &= ~bit_of(first);
  allow(warp_number, first.mask & ~bit_of(*m.current));
}

[[gnu::format(printf, 1, 2)]] void describe(char const* format, ...) {
  std::va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(m.problem, sizeof m.problem, format, arguments);
  va_end(arguments);
}

/// Why nothing goes on although not all threads have returned.
void describe_standstill() {
  for (unsigned w = 0; w < m.warp_count; ++w) {
    if (m.warps[w].opening == 0) { continue; }
    thread const& first = thread_at(w, lowest_bit(m.warps[w].opening));
    thread const& missing = thread_at(w, lowest_bit(first.mask & ~first.arrived));
    char const* const file = file_name(first.at);
    unsigned const lane = number_of(missing) % warp_lanes;
    if ((m.warps[w].returned & bit_of(missing)) != 0) {
      describe("a mask names a lane that has returned: lane %u of warp %u, at %s:%d", lane, w, file, first.at.line);
    } else if ((m.warps[w].at_barrier & bit_of(missing)) != 0) {
      describe("divergent warp operation: lane %u of warp %u is missed at %s:%d and waits at the barrier of %s:%d", lane, w, file,
               first.at.line, file_name(m.block_barrier.at), m.block_barrier.at.line);
    } else {
      describe("divergent warp operation: lane %u of warp %u is missed at %s:%d and waits at %s:%d%s", lane, w, file, first.at.line,
               file_name(missing.at), missing.at.line, missing.mask == first.mask ? "" : " with another mask");
    }
    return;
  }
  describe("barrier after threads have returned: %u wait at %s:%d, %u have returned", m.block_barrier.arrived,
           file_name(m.block_barrier.at), m.block_barrier.at.line, m.returned);
}

/// The threads that have not returned never will.
void abandon_block() {
  for (unsigned i = 0; i < m.thread_count; ++i) {
    thread& t = m.threads[i];
    if (t.on == nullptr) { continue; }
    tsan_go_to(t.on->fiber);
    tsan_release(done_token());
    tsan_go_to(host_stack().fiber);
    reset_stack(*t.on, static_cast<unsigned>(t.on - m.stacks), run_threads);
    m.free_stacks.push(*t.on);
    t.on = nullptr;
  }
  m.runnable_warps = 0;
}

/// The oldest of the unordered blocks is one no more: its token is this block's now, its stacks are free.
void make_place_for_block() {
  ++m.block_number;
  if (!watched_by_tsan()) { return; }
  tsan_acquire(done_token());
  while (m.used_stacks.count > (m.unordered_blocks - 1) * m.thread_count) { m.free_stacks.push(m.used_stacks.pop_oldest()); }
}

}  // namespace

/// With no function that a sanitizer watches: as TSan's name of a thread this is a good part of what a short thread costs.
char const* who_runs() noexcept {
  static char text[96];
  if (m.current == nullptr) { return "no kernel runs"; }
  std::memcpy(text, "thread (", 8);
  char* const end = append(text + 8, m.current->index);
  std::memcpy(end, " of block (", 11);
  *append(end + 11, blockIdx) = '\0';
  return text;
}

void fail(char const* format, ...) {
  stack& here = *m.current->on;
  tsan_go_to(host_stack().fiber);  // who writes the text, as TSan sees it
  std::va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(m.problem, sizeof m.problem, format, arguments);
  va_end(arguments);
  go_to(nullptr, here);
  std::abort();  // nobody comes back to it
}

int block_barrier(barrier_result result, bool predicate, code_line at) {
  barrier& b = m.block_barrier;
  thread const& self = *m.current;
  if (b.arrived == 0) {
    b.result = result;
    b.at = at;
  } else if (!same_line(b.at, at) || b.result != result) {
    fail("divergent barrier: thread (%u,%u,%u) waits at %s:%d, others at %s:%d", self.index.x, self.index.y, self.index.z, file_name(at),
         at.line, file_name(b.at), b.at.line);
  }
  b.true_count += predicate;
  if (++b.arrived == m.thread_count) {
    open_barrier();
  } else {
    m.warps[warp_of(self)].at_barrier |= bit_of(self);
    wait();
  }
  return m.barrier_value;
}

std::uint64_t meet_warp(warp_operation what, unsigned mask, unsigned source, std::uint64_t value, code_line at) {
  thread& t = *m.current;
  unsigned const warp_number = warp_of(t);
  warp& w = m.warps[warp_number];
  if ((mask & bit_of(t)) == 0) { fail("a mask does not name the lane that calls: lane %u at %s:%d", lane(), file_name(at), at.line); }
  if ((mask & ~w.lanes) != 0) { fail("a mask names a lane that the block does not have: %#x at %s:%d", mask, file_name(at), at.line); }
  t.what = what;
  t.at = at;
  t.mask = mask;
  t.source = source;
  t.value = value;
  t.arrived = 0;
  thread* first = &t;
  for (unsigned rest = w.opening; rest != 0; rest &= rest - 1) {
    thread& other = thread_at(warp_number, lowest_bit(rest));
    if (other.what == what && other.mask == mask && same_line(other.at, at)) { first = &other; }
  }
  first->arrived |= bit_of(t);
  if (first->arrived == mask) {
    close_operation(warp_number, *first);
  } else {
    if (first == &t) { w.opening |= bit_of(t); }
    wait();
  }
  return t.result;
}

unsigned lane() noexcept { return number_of(*m.current) % warp_lanes; }

void check_width(int width, code_line at) {
  if (width < 1 || width > 32 || (width & (width - 1)) != 0) {
    fail("a shuffle's width is no power of two up to 32: %d at %s:%d", width, file_name(at), at.line);
  }
}

unsigned random_below(unsigned bound) {
  std::uint64_t& s = m.random_state;
  s ^= s << 13;
  s ^= s >> 7;
  s ^= s << 17;
  return static_cast<unsigned>((s >> 32) * bound >> 32);
}

void begin_kernel(dim3 block, std::function<void()> const& body) {
  m.body = &body;
  m.current_warp = 0;
  m.thread_count = block.x * block.y * block.z;
  m.warp_count = (m.thread_count + warp_lanes - 1) / warp_lanes;
  m.unordered_blocks = std::max(2u, unordered_threads / m.thread_count);
  blockDim = block;
  for (unsigned i = 0; i < m.thread_count; ++i) { m.threads[i].index = {i % block.x, i / block.x % block.y, i / (block.x * block.y)}; }
  std::uint64_t const mixed = (seed() + 1) * 0x9e3779b97f4a7c15u;  // near seeds should not give near orders
  m.random_state = (mixed ^ mixed >> 29) | 1;
  if (watched_by_tsan()) {
    host_stack().fiber = __tsan_get_current_fiber();
    // By the host: what makes a fiber is ordered before it.
    while (m.made_stacks < m.unordered_blocks * m.thread_count) { m.free_stacks.push(make_stack()); }
  }
  speak_before_death();
  ++counted.kernels;
}

bool run_block() {
  make_place_for_block();
  m.returned = 0;
  m.block_barrier = {};
  m.problem[0] = '\0';
  for (unsigned w = 0; w < m.warp_count; ++w) {
    unsigned const lanes = std::min(warp_lanes, m.thread_count - w * warp_lanes);
    m.warps[w] = {};
    m.warps[w].lanes = lanes == warp_lanes ? ~0u : (1u << lanes) - 1;
    allow(w, m.warps[w].lanes);
  }
  begin_shared_memory(watched_by_tsan() ? m.block_number % m.unordered_blocks : 0);
  ++counted.blocks;
  counted.threads += m.thread_count;
  tsan_release(&m.started);  // without what the other unordered blocks did, since the host has not acquired it
  go_to(next_thread(), host_stack());
  if (m.returned == m.thread_count) { return true; }
  if (m.problem[0] == '\0') { describe_standstill(); }
  std::size_t const length = std::strlen(m.problem);
  std::snprintf(m.problem + length, sizeof m.problem - length, "; block (%u,%u,%u) of %u threads", blockIdx.x, blockIdx.y, blockIdx.z,
                m.thread_count);
  report(m.problem);
  abandon_block();
  return false;
}

void end_kernel() {
  if (!watched_by_tsan()) { return; }
  for (unsigned i = 0; i < m.unordered_blocks; ++i) { tsan_acquire(&m.done[i]); }
  while (m.used_stacks.count != 0) { m.free_stacks.push(m.used_stacks.pop_oldest()); }
}

work_done const& work() noexcept { return counted; }

}  // namespace cuda_emulator
