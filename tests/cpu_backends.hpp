// SPDX-License-Identifier: Apache-2.0
#pragma once

// The CPU backend for the instruction set that this file is compiled for, or MUSTDROP_TEST_ARCH.

#include <mustdrop/cpu/attention_scores.hpp>
#include <mustdrop/cpu/cls_topk.hpp>
#include <mustdrop/cpu/compact.hpp>
#include <mustdrop/cpu/dual_mask.hpp>
#include <mustdrop/cpu/gather.hpp>
#include <mustdrop/cpu/kv_evict.hpp>
#include <mustdrop/cpu/merge_rows.hpp>
#include <mustdrop/cpu/positions.hpp>
#include <mustdrop/cpu/random.hpp>
#include <mustdrop/cpu/rerotate.hpp>
#include <mustdrop/cpu/spread_rows.hpp>
#include <mustdrop/cpu/top_k.hpp>
#include <mustdrop/cpu/window_merge.hpp>
#include <mustdrop/cpu/window_similarity.hpp>

#if defined(MUSTDROP_TEST_ARCH)
using cpu_backend = mustdrop::cpu::backend<MUSTDROP_TEST_ARCH>;
#else
using cpu_backend = mustdrop::cpu::backend<>;
#endif

template <class Arch, class Executor>
char const* name_of(mustdrop::cpu::backend<Arch, Executor> const&) {
  return Arch::name();
}
