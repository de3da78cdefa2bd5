// SPDX-License-Identifier: Apache-2.0
#include "block.hpp"

#include <algorithm>
#include <cstdlib>
#include <cuda_emulator/kernel.hpp>
#include <numeric>
#include <string>
#include <vector>

#include "sanitizers.hpp"
#include "shared_memory.hpp"
#include "stack.hpp"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace cuda_emulator {
namespace {

constexpr unsigned warp_lanes = 32, most_warps = most_threads / warp_lanes;
constexpr unsigned most_stacks = 2 * most_threads;

struct stack_list {
  stack* items[most_stacks];
  unsigned count = 0;
  void push(stack& one) { items[count++] = &one; }
  stack& pop() { return *items[--count]; }
};

// A thread gets a stack when it starts. One that never waits gives it back on returning, so the next thread runs on it without any
// switch; one that waits keeps it.
struct thread {
  uint3 index{};
  stack* on = nullptr;
  warp_operation what{};  // that it waits for, with the lanes below; `arrived` if it is the first of them
  code_line at{};
  unsigned mask = 0, source = 0, arrived = 0;
  std::uint64_t value = 0, result = 0;
};

struct warp {
  unsigned lanes = 0;     // that the block has
  unsigned runnable = 0;  // that may go on, or start
  unsigned opening = 0;   // first arrivals at operations that wait for more
  unsigned at_barrier = 0, returned = 0;
};

struct barrier {
  unsigned arrived = 0, true_count = 0;
  barrier_result result{};
  code_line at{};
};

struct machine {
  std::vector<thread> threads{most_threads};
  warp warps[most_warps];
  unsigned thread_count = 0, warp_count = 0, returned = 0;
  unsigned runnable_warps = 0;
  unsigned current_warp = 0;  // goes on while it can, now and then: see next_thread()
  thread* current = nullptr;
  barrier block_barrier;
  int barrier_value = 0;
  std::function<void()> const* body = nullptr;
  bool failed = false;

  // As fibers use them, TSan would judge what a container does with its memory.
  stack stacks[most_stacks];
  stack_list free_stacks;
  stack_list used_stacks;  // TSan only: of threads that returned and that nothing has been ordered after
  unsigned made_stacks = 0;
  char started = 0, done = 0;  // what TSan sees released at the begin of a block, and by each thread at its end

  std::uint64_t random_state = 1;
};
machine m;
work_done counted{};

unsigned random_below(unsigned bound) {
  std::uint64_t& s = m.random_state;
  s ^= s << 13;
  s ^= s >> 7;
  s ^= s << 17;
  return static_cast<unsigned>((s >> 32) * bound >> 32);
}

/// One of the set bits.
unsigned random_bit(unsigned bits) {
  unsigned const turn = random_below(32);
  unsigned const turned = bits >> turn | bits << (-turn & 31);
  return (static_cast<unsigned>(__builtin_ctz(turned)) + turn) & 31;
}

unsigned number_of(thread const& t) { return static_cast<unsigned>(&t - m.threads.data()); }

std::string text(unsigned x, unsigned y, unsigned z) {
  return "(" + std::to_string(x) + "," + std::to_string(y) + "," + std::to_string(z) + ")";
}
std::string text(thread const& t) { return "thread " + text(t.index.x, t.index.y, t.index.z); }
std::string text(code_line at) {
  std::string const file = at.file;
  return file.substr(file.find_last_of('/') + 1) + ":" + std::to_string(at.line);
}
bool same_line(code_line a, code_line b) { return a.line == b.line && a.file == b.file; }

void run_threads();

stack& take_stack() {
  if (m.free_stacks.count != 0) { return m.free_stacks.pop(); }
  unsigned const number = m.made_stacks++;
  make_stack(m.stacks[number], number, run_threads);
  return m.stacks[number];
}

/// Takes the next thread to run off those that may, nullptr if there is none. Lanes come in random order, warps too; a warp mostly runs
/// until all of it waits, so that it gets ahead of the others as far as barriers let it.
thread* next_thread() {
  if (m.runnable_warps == 0) { return nullptr; }
  if (m.warps[m.current_warp].runnable == 0 || random_below(16) == 0) { m.current_warp = random_bit(m.runnable_warps); }
  warp& from = m.warps[m.current_warp];
  unsigned const lane = random_bit(from.runnable);
  from.runnable &= ~(1u << lane);
  if (from.runnable == 0) { m.runnable_warps &= ~(1u << m.current_warp); }
  return &m.threads[m.current_warp * warp_lanes + lane];
}

void allow(unsigned warp_number, unsigned lanes) {
  m.warps[warp_number].runnable |= lanes;
  m.runnable_warps |= 1u << warp_number;
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
    switch_stack(from, host_stack());
  } else {
    make_current(*t, t->on != nullptr ? *t->on : take_stack());
    switch_stack(from, *t->on);
  }
}

/// The current thread waits; returns when it may go on.
void wait() {
  thread const& self = *m.current;
  go_to(next_thread(), *self.on);
}

[[noreturn]] void fail(std::string const& what) {
  m.failed = true;
  tsan_go_to(host_stack().fiber);
  report(what + "; block " + text(blockIdx.x, blockIdx.y, blockIdx.z) + " of " + std::to_string(m.thread_count) + " threads");
  go_to(nullptr, *m.current->on);
  std::abort();  // nobody comes back to a thread that failed
}

/// What every stack does: runs threads that start, one after another.
void run_threads() {
  stack& here = *m.current->on;
  arrive_on(here);
  for (;;) {
    tsan_acquire(&m.started);
    (*m.body)();
    tsan_release(&m.done);
    thread& ended = *m.current;
    ended.on = nullptr;
    m.warps[number_of(ended) / warp_lanes].returned |= 1u << number_of(ended) % warp_lanes;
    ++m.returned;
    thread* const next = next_thread();
    if (next != nullptr && next->on == nullptr && !watched_by_tsan()) {
      make_current(*next, here);
      continue;
    }
    // TSan takes what two threads write to one stack for a race, unless it knows of an order between them.
    (watched_by_tsan() ? m.used_stacks : m.free_stacks).push(here);
    go_to(next, here);
  }
}

/// Each of the lanes releases, or acquires, the token.
void order_lanes(unsigned warp_number, unsigned lanes, void* token, void (*step)(void*)) {
  for (unsigned rest = lanes; rest != 0; rest &= rest - 1) {
    tsan_go_to(m.threads[warp_number * warp_lanes + static_cast<unsigned>(__builtin_ctz(rest))].on->fiber);
    step(token);
  }
}

/// Everything that each of the lanes did comes before everything that each of them does next.
void order_warp(unsigned warp_number, unsigned lanes) {
  if (!watched_by_tsan()) { return; }
  void* const token = std::malloc(1);  // that nobody has released or acquired
  order_lanes(warp_number, lanes, token, tsan_release);
  order_lanes(warp_number, lanes, token, tsan_acquire);
  tsan_go_to(m.current->on->fiber);
  std::free(token);
}

void order_block() {
  if (!watched_by_tsan()) { return; }
  void* const token = std::malloc(1);
  for (unsigned w = 0; w < m.warp_count; ++w) { order_lanes(w, m.warps[w].lanes, token, tsan_release); }
  for (unsigned w = 0; w < m.warp_count; ++w) { order_lanes(w, m.warps[w].lanes, token, tsan_acquire); }
  tsan_go_to(m.current->on->fiber);
  std::free(token);
}

/// All threads are at the barrier, the current one as the last.
void open_barrier() {
  barrier& b = m.block_barrier;
  switch (b.result) {
    case barrier_result::none: m.barrier_value = 0; break;
    case barrier_result::count: m.barrier_value = static_cast<int>(b.true_count); break;
    case barrier_result::all: m.barrier_value = b.true_count == m.thread_count; break;
    case barrier_result::any: m.barrier_value = b.true_count != 0; break;
  }
  order_block();
  for (unsigned w = 0; w < m.warp_count; ++w) {
    m.warps[w].at_barrier = 0;
    allow(w, m.warps[w].lanes);
  }
  unsigned const self = number_of(*m.current);
  warp& own = m.warps[self / warp_lanes];
  own.runnable &= ~(1u << self % warp_lanes);  // it goes on at once
  if (own.runnable == 0) { m.runnable_warps &= ~(1u << self / warp_lanes); }
  b = {};
}

/// All lanes of the operation that `first` opened are there.
void close_operation(unsigned warp_number, thread& first) {
  thread* const lanes = &m.threads[warp_number * warp_lanes];
  for (unsigned rest = first.mask; rest != 0; rest &= rest - 1) {
    unsigned const lane = static_cast<unsigned>(__builtin_ctz(rest));
    thread& t = lanes[lane];
    if (first.what == warp_operation::shuffle) {
      if ((first.mask >> t.source & 1) == 0) {
        fail("a shuffle reads a lane that its mask does not name: lane " + std::to_string(lane) + " reads lane " +
             std::to_string(t.source) + " at " + text(t.at));
      }
      t.result = lanes[t.source].value;
    } else if (t.value != 0) {
      first.arrived |= 1u << lane;
    } else {
      first.arrived &= ~(1u << lane);
    }
  }
  if (first.what == warp_operation::ballot) {
    unsigned const votes = first.arrived;
    for (unsigned rest = first.mask; rest != 0; rest &= rest - 1) { lanes[__builtin_ctz(rest)].result = votes; }
  }
  // CUDA promises no order of memory from shuffles and votes.
  if (first.what == warp_operation::barrier) { order_warp(warp_number, first.mask); }
  m.warps[warp_number].opening &= ~(1u << number_of(first) % warp_lanes);
  unsigned const self = 1u << number_of(*m.current) % warp_lanes;
  if (first.mask != self) { allow(warp_number, first.mask & ~self); }
}

/// Why nothing can go on although not all threads have returned.
std::string what_blocks() {
  for (unsigned w = 0; w < m.warp_count; ++w) {
    if (m.warps[w].opening == 0) { continue; }
    thread const& first = m.threads[w * warp_lanes + static_cast<unsigned>(__builtin_ctz(m.warps[w].opening))];
    unsigned const missing = first.mask & ~first.arrived;
    unsigned const lane = static_cast<unsigned>(__builtin_ctz(missing));
    thread const& absent = m.threads[w * warp_lanes + lane];
    std::string const waits = text(first) + " waits at " + text(first.at) + " for lane " + std::to_string(lane) + " of its warp, which ";
    if ((m.warps[w].returned >> lane & 1) != 0) { return "a mask names a lane that has returned: " + waits + "has returned"; }
    if ((m.warps[w].at_barrier >> lane & 1) != 0) {
      return "divergent warp operation: " + waits + "waits at the barrier of " + text(m.block_barrier.at);
    }
    return "divergent warp operation: " + waits + "waits at " + text(absent.at) +
           (same_line(absent.at, first.at) ? " with another mask" : "");
  }
  return "barrier that threads have returned before: " + std::to_string(m.block_barrier.arrived) + " threads wait at " +
         text(m.block_barrier.at) + ", " + std::to_string(m.returned) + " have returned";
}

/// TSan: what follows comes after all that the threads so far did.
void end_unordered_blocks() {
  tsan_acquire(&m.done);
  while (m.used_stacks.count != 0) { m.free_stacks.push(m.used_stacks.pop()); }
  forget_shared_memory();
}

void abandon_block() {
  for (unsigned i = 0; i < m.thread_count; ++i) {
    thread& t = m.threads[i];
    if (t.on == nullptr) { continue; }
    tsan_go_to(t.on->fiber);
    tsan_release(&m.done);
    tsan_go_to(host_stack().fiber);
    reset_stack(*t.on, static_cast<unsigned>(t.on - m.stacks), run_threads);
    m.free_stacks.push(*t.on);
    t.on = nullptr;
  }
}

void run_block() {
  m.returned = 0;
  m.block_barrier = {};
  for (unsigned w = 0; w < m.warp_count; ++w) {
    warp& one = m.warps[w];
    one = {};
    unsigned const lanes = std::min(warp_lanes, m.thread_count - w * warp_lanes);
    one.lanes = lanes == warp_lanes ? ~0u : (1u << lanes) - 1;
    allow(w, one.lanes);
  }
  begin_shared_memory();
  tsan_release(&m.started);  // the host has not acquired what earlier blocks did, so these are not ordered after them
  go_to(next_thread(), host_stack());
  if (!m.failed && m.returned != m.thread_count) {
    m.failed = true;
    report(what_blocks() + "; block " + text(blockIdx.x, blockIdx.y, blockIdx.z) + " of " + std::to_string(m.thread_count) + " threads");
  }
  if (m.failed) { abandon_block(); }
  m.runnable_warps = 0;
}

/// Neighbours race most often, and TSan sees a race between blocks that run soon after one another: two of three orders are a walk up or
/// down from somewhere, the third has no order.
std::vector<unsigned> order_of_blocks(unsigned count) {
  std::vector<unsigned> blocks(count);
  std::iota(blocks.begin(), blocks.end(), 0u);
  unsigned const kind = random_below(3);
  if (kind == 2) {
    for (unsigned i = count; i > 1; --i) { std::swap(blocks[i - 1], blocks[random_below(i)]); }
    return blocks;
  }
  if (kind == 1) { std::reverse(blocks.begin(), blocks.end()); }
  std::rotate(blocks.begin(), blocks.begin() + random_below(count), blocks.end());
  return blocks;
}

}  // namespace

int block_barrier(barrier_result result, bool predicate, code_line at) {
  barrier& b = m.block_barrier;
  if (b.arrived == 0) {
    b.result = result;
    b.at = at;
  } else if (!same_line(b.at, at) || b.result != result) {
    fail("divergent barrier: " + text(*m.current) + " waits at " + text(at) + ", others at " + text(b.at));
  }
  b.true_count += predicate;
  if (++b.arrived == m.thread_count) {
    open_barrier();
    return m.barrier_value;
  }
  unsigned const self = number_of(*m.current);
  m.warps[self / warp_lanes].at_barrier |= 1u << self % warp_lanes;
  wait();
  return m.barrier_value;
}

std::uint64_t meet_warp(warp_operation what, unsigned mask, unsigned source, std::uint64_t value, code_line at) {
  thread& t = *m.current;
  unsigned const number = number_of(t), warp_number = number / warp_lanes, own = 1u << number % warp_lanes;
  warp& w = m.warps[warp_number];
  if ((mask & own) == 0) { fail("a mask does not name the lane that calls: " + text(t) + " at " + text(at)); }
  if ((mask & ~w.lanes) != 0) { fail("a mask names a lane that the block does not have: " + text(t) + " at " + text(at)); }
  t.what = what;
  t.at = at;
  t.mask = mask;
  t.source = source;
  t.value = value;
  thread* first = &t;
  t.arrived = 0;
  for (unsigned rest = w.opening; rest != 0; rest &= rest - 1) {
    thread& other = m.threads[warp_number * warp_lanes + static_cast<unsigned>(__builtin_ctz(rest))];
    if (other.what == what && other.mask == mask && same_line(other.at, at)) { first = &other; }
  }
  first->arrived |= own;
  if (first->arrived == mask) {
    close_operation(warp_number, *first);
    return t.result;
  }
  if (first == &t) { w.opening |= own; }
  wait();
  return t.result;
}

unsigned lane() noexcept { return number_of(*m.current) % warp_lanes; }

void check_width(int width, code_line at) {
  if (width < 1 || width > 32 || (width & (width - 1)) != 0) { fail("a shuffle's width is no power of two up to 32: " + text(at)); }
}

void shared_memory_exceeded(std::size_t bytes) {
  fail("the block's shared memory is " + std::to_string(bytes) + " bytes, more than " + std::to_string(most_shared_memory));
}

bool run_blocks(launch_shape const& shape, std::function<void()> const& body) {
  m.body = &body;
  m.failed = false;
  m.thread_count = shape.block.x * shape.block.y * shape.block.z;
  m.warp_count = (m.thread_count + warp_lanes - 1) / warp_lanes;
  gridDim = shape.grid;
  blockDim = shape.block;
  for (unsigned i = 0; i < m.thread_count; ++i) {
    m.threads[i].index = {i % blockDim.x, i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y)};
  }
  // The seed is mixed, since near seeds should not give near orders.
  m.random_state = (seed() + 1) * 0x9e3779b97f4a7c15u;
  m.random_state ^= m.random_state >> 31;
  m.random_state += m.random_state == 0;

  unsigned const block_count = gridDim.x * gridDim.y * gridDim.z;
  if (watched_by_tsan()) { host_stack().fiber = __tsan_get_current_fiber(); }
  // TSan compares blocks that run within so many threads with each other; more would make each barrier dearer.
  unsigned const unordered_threads = std::max(1024u, 2 * m.thread_count);
  set_dynamic_shared_memory(shape.dynamic_shared);
  ++counted.kernels;
  for (unsigned const block : order_of_blocks(block_count)) {
    blockIdx = {block % gridDim.x, block / gridDim.x % gridDim.y, block / (gridDim.x * gridDim.y)};
    if (m.used_stacks.count + m.thread_count > unordered_threads) { end_unordered_blocks(); }
    run_block();
    ++counted.blocks;
    counted.threads += m.thread_count;
    if (m.failed) { break; }
  }
  end_unordered_blocks();
  return !m.failed;
}

work_done const& work() noexcept { return counted; }

}  // namespace cuda_emulator
