// SPDX-License-Identifier: Apache-2.0
#pragma once

// Every word's reference, which the others are compared with before they are measured.

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
