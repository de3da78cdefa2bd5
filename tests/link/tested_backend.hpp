// SPDX-License-Identifier: Apache-2.0
#pragma once

// The backend that every_word.hpp is compiled for: the reference, with MUSTDROP_TEST_CPU the CPU backend, with MUSTDROP_TEST_CUDA the CUDA backend.

#if defined(MUSTDROP_TEST_CPU)
#include "../cpu_backends.hpp"
using tested_backend = cpu_backend;
#elif defined(MUSTDROP_TEST_CUDA)
#include "../cuda_backends.hpp"
using tested_backend = cuda_backend;
#else
#include <mustdrop/reference/attention_scores.hpp>
#include <mustdrop/reference/cls_topk.hpp>
#include <mustdrop/reference/compact.hpp>
#include <mustdrop/reference/dual_mask.hpp>
#include <mustdrop/reference/gather.hpp>
#include <mustdrop/reference/kv_evict.hpp>
#include <mustdrop/reference/merge_rows.hpp>
#include <mustdrop/reference/positions.hpp>
#include <mustdrop/reference/random.hpp>
#include <mustdrop/reference/rerotate.hpp>
#include <mustdrop/reference/spread_rows.hpp>
#include <mustdrop/reference/top_k.hpp>
#include <mustdrop/reference/window_merge.hpp>
#include <mustdrop/reference/window_similarity.hpp>
using tested_backend = mustdrop::reference::backend;
#endif
