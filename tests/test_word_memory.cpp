// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <utility>

#include "backends.hpp"
#include "word_runs.hpp"

namespace {

/// An array that ends where a page that nobody may touch begins.
template <class T>
class page_array {
 public:
  explicit page_array(std::size_t n) : size_(n) {
    auto const page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE)), bytes = n * sizeof(T);
    std::size_t const used = (bytes + page) / page * page;  // one page at least
    mapped_ = used + page;
    memory_ = static_cast<char*>(mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (memory_ == MAP_FAILED || mprotect(memory_ + used, page, PROT_NONE) != 0) { std::abort(); }
    data_ = reinterpret_cast<T*>(memory_ + used - bytes);
  }
  page_array(page_array&& from) noexcept
      : size_(from.size_), mapped_(from.mapped_), memory_(std::exchange(from.memory_, nullptr)), data_(from.data_) {}
  page_array& operator=(page_array&&) = delete;
  ~page_array() {
    if (memory_ != nullptr) { munmap(memory_, mapped_); }
  }

  T* data() { return data_; }
  T const* data() const { return data_; }
  T* begin() { return data_; }
  T* end() { return data_ + size_; }
  T& operator[](std::size_t i) { return data_[i]; }

 private:
  std::size_t size_, mapped_;
  char* memory_;
  T* data_;
};

struct page_memory {
  template <class T>
  using array = page_array<T>;
  template <class T>
  static array<T> zeros(md::index_t n) {
    return array<T>(static_cast<std::size_t>(n));
  }
};

template <class Backend, class Memory>
std::map<std::string, std::uint64_t> hashes_of(md::index_t dim) {
  words::hashes wrote;
  for (bool const special : {false, true}) {
    words::run<Backend, Memory, float, float, std::int32_t>(dim, special, wrote);
    words::run<Backend, Memory, md::half, float, std::int64_t>(dim, special, wrote);
    words::run<Backend, Memory, md::bfloat16, md::bfloat16, std::int32_t>(dim, special, wrote);
  }
  EXPECT_FALSE(wrote.refused());
  return wrote.all();
}

template <class Backend>
class WordMemory : public testing::Test {};
TYPED_TEST_SUITE(WordMemory, Backends);

// Every array that a word reads or writes ends at the end of a page: with each length it begins at another offset of a register, and one
// element too many is a fault.
TYPED_TEST(WordMemory, NothingIsReadOrWrittenBehindAnArray) {
  for (md::index_t dim = 0; dim <= words::most_dims; ++dim) {
    auto const want = hashes_of<md::reference::backend, words::heap_memory>(dim), got = hashes_of<TypeParam, page_memory>(dim);
    EXPECT_EQ(got, want) << "dim " << dim;
  }
}

}  // namespace
