// SPDX-License-Identifier: Apache-2.0

// Blocks that an SM holds, by NVIDIA's cuda_occupancy.h and a device's limits that cuda_report writes: no device is asked. A line of input is
//   MAJOR MINOR THREADS_OF_SM SHARED_OF_SM SHARED_OF_BLOCK RESERVED_OF_BLOCK   REGISTERS SHARED THREADS
// and a line of output the number of blocks, or minus the header's error.

#include <cstdio>

#include <cuda_occupancy.h>

int main() {
  unsigned long shared_of_sm, shared_of_block, reserved, shared;
  int major, minor, threads_of_sm, registers, threads;
  while (std::scanf("%d %d %d %lu %lu %lu %d %lu %d", &major, &minor, &threads_of_sm, &shared_of_sm, &shared_of_block, &reserved,
                    &registers, &shared, &threads) == 9) {
    cudaOccDeviceProp device;
    device.computeMajor = major, device.computeMinor = minor, device.warpSize = 32, device.numSms = 1;
    device.maxThreadsPerBlock = 1024, device.maxThreadsPerMultiprocessor = threads_of_sm;
    device.regsPerBlock = device.regsPerMultiprocessor = 65536;
    device.sharedMemPerBlock = 49152, device.sharedMemPerMultiprocessor = shared_of_sm;
    device.sharedMemPerBlockOptin = shared_of_block, device.reservedSharedMemPerBlock = reserved;
    cudaOccFuncAttributes kernel;
    kernel.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN;
    kernel.maxThreadsPerBlock = 1024, kernel.numRegs = registers, kernel.sharedSizeBytes = shared, kernel.numBlockBarriers = 1;
    cudaOccDeviceState const state;
    cudaOccResult result;
    cudaOccError const error = cudaOccMaxActiveBlocksPerMultiprocessor(&result, &device, &kernel, &state, threads, 0);
    std::printf("%d\n", error == CUDA_OCC_SUCCESS ? result.activeBlocksPerMultiprocessor : -static_cast<int>(error));
  }
}
