// SPDX-License-Identifier: Apache-2.0
#pragma once

// Every backend that is built, for every table of cases. A new backend adds its headers and its type here.

#include <gtest/gtest.h>

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
#if defined(MUSTDROP_TEST_CPU)
#include "cpu_backends.hpp"
#endif
#if defined(MUSTDROP_TEST_CUDA_EMULATOR)
#include "cuda_backends.hpp"
#endif
#if defined(MUSTDROP_TEST_CUDA_DEVICE)
#include "device/backends.hpp"
#endif

namespace md = mustdrop;

/// What a backend is called in the output of a test program.
inline char const* name_of(md::reference::backend) { return "reference"; }

#if defined(MUSTDROP_TEST_CUDA_EMULATOR)
using Backends = testing::Types<md::reference::backend, cuda_backend>;  // golden compares the one with the other
#elif defined(MUSTDROP_TEST_CUDA_DEVICE)
using Backends = testing::Types<md::reference::backend, on_device::called, on_device::replayed>;
#elif defined(MUSTDROP_TEST_ARCH)
using Backends = testing::Types<cpu_backend>;  // the reference has been through all this in the plain build
#elif defined(MUSTDROP_TEST_CPU)
using Backends = testing::Types<md::reference::backend, cpu_backend>;
#else
using Backends = testing::Types<md::reference::backend>;
#endif
