// SPDX-License-Identifier: Apache-2.0
#pragma once

// Streams: work on the wrong one, results read and memory freed too early.

#include <cuda_emulator/machine.hpp>
#include <memory>

#include "twins.hpp"

namespace twins {

class stream {
 public:
  stream() { cudaStreamCreateWithFlags(&handle_, cudaStreamNonBlocking); }
  ~stream() { cudaStreamDestroy(handle_); }
  stream(stream const&) = delete;
  stream& operator=(stream const&) = delete;
  cudaStream_t get() const { return handle_; }

 private:
  cudaStream_t handle_ = nullptr;
};

__global__ inline void add_one(int const* in, int* out) { out[place_in_grid()] = in[place_in_grid()] + 1; }
inline cudaError_t add_one(cudaStream_t on, ints const& in, ints& out) {
  return launch(add_one, blocks, threads, 0, on, in.data(), out.data());
}

/// Adds 2 in two steps, both on one stream. Wrong: the second is on another, which nothing orders after the first.
inline bool wrong_order(made as) {
  stream const first, second;
  ints const in(blocks * threads, 1);
  ints between(in.size()), out(in.size());
  bool const good = add_one(first.get(), in, between) == cudaSuccess &&
                    add_one(as == made::right ? first.get() : second.get(), between, out) == cudaSuccess &&
                    cudaDeviceSynchronize() == cudaSuccess;
  return good && out == ints(in.size(), 3);
}

/// The same, where the wrong stream is the null stream.
inline bool null_stream(made as) {
  stream const callers;
  ints const in(blocks * threads, 1);
  ints between(in.size()), out(in.size());
  bool const good = add_one(callers.get(), in, between) == cudaSuccess &&
                    add_one(as == made::right ? callers.get() : nullptr, between, out) == cudaSuccess &&
                    cudaStreamSynchronize(callers.get()) == cudaSuccess;
  return good && out == ints(in.size(), 3);
}

/// A call that is told its stream. Wrong: it puts its first step on the null stream, which is early enough to come out right.
inline bool wrong_stream(made as) {
  stream const callers;
  ints const in(blocks * threads, 1);
  ints between(in.size()), out(in.size());
  bool good = true;
  {
    cuda_emulator::only_stream const call(callers.get());
    good = good && add_one(as == made::right ? callers.get() : nullptr, in, between) == cudaSuccess;
    good = good && add_one(callers.get(), between, out) == cudaSuccess;
  }
  good = good && cudaStreamSynchronize(callers.get()) == cudaSuccess;
  return good && out == ints(in.size(), 3);
}

inline bool read_before_done(made as) {
  stream const callers;
  ints const in(blocks * threads, 1);
  ints out(in.size());
  bool const good = add_one(callers.get(), in, out) == cudaSuccess && (as == made::wrong || cudaDeviceSynchronize() == cudaSuccess);
  bool const right = good && out == ints(in.size(), 2);
  return cudaDeviceSynchronize() == cudaSuccess && right;
}

inline bool freed_before_done(made as) {
  stream const callers;
  auto in = std::make_unique<ints>(blocks * threads, 1);
  ints out(in->size());
  bool const good = add_one(callers.get(), *in, out) == cudaSuccess;
  if (as == made::wrong) { in.reset(); }
  return cudaStreamSynchronize(callers.get()) == cudaSuccess && good && out == ints(out.size(), 2);
}

}  // namespace twins
