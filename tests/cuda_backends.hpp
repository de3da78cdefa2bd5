// SPDX-License-Identifier: Apache-2.0
#pragma once

// The CUDA backend, whose kernels the emulator of tests/cuda_emulator runs: its launch.cuh is found first.

#include <mustdrop/cuda/attention_scores.cuh>
#include <mustdrop/cuda/cls_topk.cuh>
#include <mustdrop/cuda/compact.cuh>
#include <mustdrop/cuda/dual_mask.cuh>
#include <mustdrop/cuda/gather.cuh>
#include <mustdrop/cuda/kv_evict.cuh>
#include <mustdrop/cuda/merge_rows.cuh>
#include <mustdrop/cuda/positions.cuh>
#include <mustdrop/cuda/random.cuh>
#include <mustdrop/cuda/rerotate.cuh>
#include <mustdrop/cuda/spread_rows.cuh>
#include <mustdrop/cuda/top_k.cuh>
#include <mustdrop/cuda/window_merge.cuh>
#include <mustdrop/cuda/window_similarity.cuh>

using cuda_backend = mustdrop::cuda::backend<>;

template <class Tag>
char const* name_of(mustdrop::cuda::backend<Tag> const&) {
  return "cuda, emulated";
}
