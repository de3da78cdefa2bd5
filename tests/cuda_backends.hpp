// SPDX-License-Identifier: Apache-2.0
#pragma once

// The CUDA backend, whose kernels the emulator of tests/cuda_emulator runs: its launch.cuh is found first.

#include <mustdrop/cuda/dual_mask.cuh>
#include <mustdrop/cuda/gather.cuh>
#include <mustdrop/cuda/top_k.cuh>

using cuda_backend = mustdrop::cuda::backend<>;

template <class Tag>
char const* name_of(mustdrop::cuda::backend<Tag> const&) {
  return "cuda, emulated";
}
