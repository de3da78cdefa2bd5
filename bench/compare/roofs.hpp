// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "thread_pool.hpp"

void read_bytes(pooled const& execute, char const* from, mustdrop::index_t bytes);
void copy_bytes(pooled const& execute, char const* from, char* to, mustdrop::index_t bytes);
void update_bytes(pooled const& execute, char* at, mustdrop::index_t bytes);
void multiply(pooled const& execute, double flops);
