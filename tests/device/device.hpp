// SPDX-License-Identifier: Apache-2.0
#pragma once

// What every program for a device does first: without one it says so and ends with 77, which CTest counts as skipped.

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <cuda_runtime.h>

namespace on_device {

/// A call of the runtime that has to work, or the program ends.
inline void must(cudaError_t code, char const* what) {
  if (code == cudaSuccess) { return; }
  std::fprintf(stderr, "%s: %s (%d)\n", what, cudaGetErrorString(code), static_cast<int>(code));
  std::exit(1);
}

/// 0 where there is a device, else what to exit with: 77 for no driver, no device, or none of them visible, unless MUSTDROP_REQUIRE_GPU=1;
/// anything else is a failure.
inline int status_without_device() {
  int devices = 0;
  cudaError_t const code = cudaGetDeviceCount(&devices);
  if (code == cudaSuccess && devices > 0) { return 0; }
  std::printf("no device: cudaGetDeviceCount answers %d, %d devices\n", static_cast<int>(code), devices);
  bool const absent = code == cudaSuccess || code == cudaErrorInsufficientDriver || code == cudaErrorNoDevice;
  char const* const required = std::getenv("MUSTDROP_REQUIRE_GPU");
  return absent && (required == nullptr || std::strcmp(required, "1") != 0) ? 77 : 1;
}

/// "NVIDIA H100 80GB HBM3, sm_90, driver 13.0, runtime 13.0"
inline void print_device() {
  cudaDeviceProp device;
  int driver = 0, runtime = 0;
  must(cudaGetDeviceProperties(&device, 0), "cudaGetDeviceProperties");
  must(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
  must(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion");
  std::printf("%s, sm_%d%d, driver %d.%d, runtime %d.%d\n", device.name, device.major, device.minor, driver / 1000, driver % 1000 / 10,
              runtime / 1000, runtime % 1000 / 10);
}

}  // namespace on_device
