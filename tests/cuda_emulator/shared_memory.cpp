// SPDX-License-Identifier: Apache-2.0
#include "shared_memory.hpp"

#include <cstdint>
#include <cstdlib>
#include <cuda_emulator/kernel.hpp>
#include <vector>

#include "block.hpp"
#include "sanitizers.hpp"

namespace cuda_emulator {
namespace {

constexpr std::size_t gap = 64;  // that ASan watches, before and behind each variable
constexpr std::size_t arena_size = most_shared_memory + 128 * gap;

struct memory {
  std::vector<char*> arenas;  // TSan: one for each block that is not ordered after the others; else one
  std::size_t next_arena = 0;
  char* arena = nullptr;    // of the block that runs
  std::size_t end = 0;      // of its last variable in the arena
  std::size_t counted = 0;  // of the bytes that a device would use
  std::uint64_t block = 0;  // counts blocks, so that a variable knows whether it was placed in this one
  shared_place dynamic;
  std::size_t dynamic_size = 0;
};
memory m;

std::size_t round_up(std::size_t size, std::size_t to) { return (size + to - 1) / to * to; }

/// Not memset, which the compiler and TSan would see.
void fill_with_ones(char* begin, std::size_t size) {
  std::size_t i = 0;
  for (; i + 8 <= size && reinterpret_cast<std::uintptr_t>(begin + i) % 8 == 0; i += 8) {
    *reinterpret_cast<std::uint64_t volatile*>(begin + i) = ~std::uint64_t{0};
  }
  for (; i < size; ++i) { *const_cast<char volatile*>(begin + i) = '\xff'; }
}

}  // namespace

void set_dynamic_shared_memory(std::size_t size) { m.dynamic_size = size; }

void begin_shared_memory(unsigned place) {
  if (m.arena != nullptr) { poison(m.arena, round_up(m.end, 8)); }
  while (m.arenas.size() <= place) {
    auto* const made = static_cast<char*>(std::aligned_alloc(128, arena_size));
    if (made == nullptr) { std::abort(); }
    poison(made, arena_size);
    m.arenas.push_back(made);
  }
  m.arena = m.arenas[place];
  m.end = 0;
  m.counted = 0;
  ++m.block;
  m.dynamic = {};
  if (m.dynamic_size != 0) { shared_memory(m.dynamic, m.dynamic_size, 16); }
}

void* shared_memory(shared_place& place, std::size_t size, std::size_t alignment) {
  if (place.block == m.block) { return place.address; }
  m.counted = round_up(m.counted, alignment) + size;
  if (m.counted > most_shared_memory) { fail("the block's shared memory is more than %zu bytes: %zu", most_shared_memory, m.counted); }
  // An address that is aligned as asked, and no better: who reads it in larger pieces is found out.
  std::size_t const begin = round_up(m.end + gap, 2 * alignment) + alignment;
  if (begin + size + gap > arena_size) { fail("too many shared variables for the emulator"); }
  m.end = begin + size;
  place = {m.block, m.arena + begin};
  unpoison(m.arena + begin, size);
  fill_with_ones(m.arena + begin, size);
  return place.address;
}

void* dynamic_shared_memory() { return m.dynamic.address; }

}  // namespace cuda_emulator
