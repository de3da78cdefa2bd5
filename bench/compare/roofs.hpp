// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <executors/thread_pool.hpp>

void read_bytes(executors::pooled const& execute, char const* from, mustdrop::index_t bytes);
void copy_bytes(executors::pooled const& execute, char const* from, char* to, mustdrop::index_t bytes);
void update_bytes(executors::pooled const& execute, char* at, mustdrop::index_t bytes);
void multiply(executors::pooled const& execute, double flops);
