// SPDX-License-Identifier: Apache-2.0

// One program of files compiled for different lists of architectures. Each refuses a wrong shape; without a device each hands on the
// runtime's own code, and with one it finds the best score, or says that it holds no code for that device.

#include <cstdio>

#include <cuda_runtime.h>
#include <mustdrop/top_k.hpp>

namespace md = mustdrop;

using caller = md::status(float const* scores, md::index_t tokens, std::int32_t* kept, std::int32_t* count, md::workspace scratch);
caller best_by_old, best_by_new;
std::size_t scratch_of_old(md::index_t tokens), scratch_of_new(md::index_t tokens);

namespace {

constexpr int tokens = 70, best = 41;

struct memory {
  float scores[tokens];
  std::int32_t kept, count;
  alignas(64) unsigned char scratch[1024];
};

/// What is wrong with a file; nullptr: nothing.
char const* fault(caller* of, std::size_t scratch, memory& at, int devices_code) {
  md::workspace const lent{at.scratch, scratch};
  if (scratch == 0 || scratch > sizeof at.scratch) { return "asks for scratch that is not here"; }
  if (of(nullptr, tokens, &at.kept, &at.count, lent) != md::status::bad_shape) { return "takes scores that are nowhere"; }
  if (of(at.scores, tokens, &at.kept, &at.count, {at.scratch, scratch - 1}) != md::status::workspace_too_small) {
    return "takes too little scratch";
  }
  md::status const got = of(at.scores, tokens, &at.kept, &at.count, lent);
  if (devices_code != cudaSuccess) { return md::device_code(got) == devices_code ? nullptr : "hides that there is no device"; }
  if (md::device_code(got) == cudaErrorNoKernelImageForDevice) { return nullptr; }
  if (got != md::status::ok || cudaDeviceSynchronize() != cudaSuccess) { return "does not run"; }
  return at.count == 1 && at.kept == best ? nullptr : "finds another score";
}

}  // namespace

int main() {
  int devices = 0;
  auto code = static_cast<int>(cudaGetDeviceCount(&devices));
  if (code == cudaSuccess && devices == 0) { code = cudaErrorNoDevice; }
  if (code != cudaSuccess && code != cudaErrorNoDevice && code != cudaErrorInsufficientDriver) {
    std::printf("cudaGetDeviceCount: %d\n", code);
    return 1;
  }
  static memory on_host;
  memory* at = &on_host;
  if (code == cudaSuccess && cudaMallocManaged(&at, sizeof *at) != cudaSuccess) { return 1; }
  for (int t = 0; t < tokens; ++t) { at->scores[t] = t == best ? 2.0f : static_cast<float>(t % 7) / 8; }

  char const* const of_old = fault(best_by_old, scratch_of_old(tokens), *at, code);
  char const* const of_new = fault(best_by_new, scratch_of_new(tokens), *at, code);
  std::printf("old list: %s\nnew list: %s\n%s\n", of_old ? of_old : "right", of_new ? of_new : "right",
              code == cudaSuccess ? "on a device" : "no device: the host's side alone");
  return of_old == nullptr && of_new == nullptr ? 0 : 1;
}
