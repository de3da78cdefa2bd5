// SPDX-License-Identifier: Apache-2.0
#pragma once

// mustdrop on ggml: tensors as the library's views, and ggml's threads as an executor. Nothing here knows llama.cpp.

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

#include <ggml-backend.h>
#include <ggml-cpu.h>
#include <ggml.h>

#include <mustdrop/numerics.hpp>
#include <mustdrop/view.hpp>

namespace mustdrop_llama {

namespace md = mustdrop;
using md::index_t;

/// What a tensor holds, where the host can read it: in place, or copied from its device into `memory`, strides and all.
inline char const* on_host(ggml_tensor const* t, std::vector<char>& memory) {
  ggml_backend_buffer_t const buffer = t->view_src != nullptr ? t->view_src->buffer : t->buffer;
  if (buffer == nullptr || ggml_backend_buffer_is_host(buffer)) { return static_cast<char const*>(t->data); }
  memory.resize(ggml_nbytes(t));
  ggml_backend_tensor_get(t, memory.data(), 0, memory.size());
  return memory.data();
}

/// The number in a tensor's name, as llama.cpp numbers layers. -1: no tensor, or another name.
inline int number_in_name(ggml_tensor const* t, char const* pattern) {
  int number = -1;
  return t != nullptr && std::sscanf(t->name, pattern, &number) == 1 ? number : -1;
}

/// An operator's own number i, of those that are floats: scale, largest ALiBi slope and soft-cap of attention.
inline float parameter(ggml_tensor const* node, int i) {
  float value = 0;
  return std::memcpy(&value, node->op_params + i, sizeof value), value;
}

/// A tensor's first three axes, [ne2, ne1, ne0]: heads, rows or cells, features.
template <class T>
md::tensor_view<T const, 3> view_of(ggml_tensor const* t, char const* bytes) {
  auto const stride = [t](int axis) { return static_cast<index_t>(t->nb[axis] / sizeof(T)); };
  return {reinterpret_cast<T const*>(bytes), {t->ne[2], t->ne[1], t->ne[0]}, {stride(2), stride(1), stride(0)}};
}

/// So many bytes of scratch memory, at an address that words take.
inline md::workspace workspace_in(std::vector<char>& memory, std::size_t bytes) {
  std::size_t room = (memory.resize(bytes + 64), memory.size());
  void* at = memory.data();
  return {std::align(64, bytes, at, room), bytes};
}

/// Whether rows skipped, …, rows - 1 of a mask, which are those of the last `rows` tokens, see the cells of tokens up to their own and no other.
/// cells[t] is where token t is.
inline bool is_causal(ggml_tensor const* mask, char const* bytes, std::vector<std::int32_t> const& cells, index_t rows, index_t skipped) {
  if (bytes == nullptr || mask->ne[1] < rows || (mask->type != GGML_TYPE_F16 && mask->type != GGML_TYPE_F32)) { return false; }
  std::vector<std::size_t> token(static_cast<std::size_t>(mask->ne[0]), cells.size());  // in each cell; nobody is in the others
  for (std::size_t t = 0; t < cells.size(); ++t) {
    if (cells[t] < 0 || cells[t] >= mask->ne[0] || token[static_cast<std::size_t>(cells[t])] != cells.size()) { return false; }
    token[static_cast<std::size_t>(cells[t])] = t;
  }
  for (index_t r = skipped; r < rows; ++r) {
    char const* const row = bytes + static_cast<std::size_t>(r) * mask->nb[1];
    for (std::size_t cell = 0; cell < token.size(); ++cell) {
      bool const seen = mask->type == GGML_TYPE_F16 ? (reinterpret_cast<ggml_fp16_t const*>(row)[cell] & 0x7fff) == 0
                                                    : reinterpret_cast<float const*>(row)[cell] == 0;
      if (seen != (token[cell] + static_cast<std::size_t>(rows - r) <= cells.size())) { return false; }
    }
  }
  return true;
}

/// Keys [kv_heads, cells.size(), dim] of these cells, in this order, given to `use`: in place where they lie one behind the other as f32, f16
/// or bf16; of other cells and types f32 `rows`, made by ggml's own dequantiser.
template <class Use>
md::status with_keys(ggml_tensor const* k, char const* bytes, std::vector<std::int32_t> const& cells, std::vector<float>& rows,
                     Use const& use) {
  if (cells.empty() || bytes == nullptr) { return md::status::bad_argument; }
  auto const count = static_cast<index_t>(cells.size());
  index_t in_order = 0;
  for (auto const cell : cells) {
    if (cell < 0 || cell >= k->ne[1]) { return md::status::bad_argument; }
    in_order += cell == cells[0] + in_order;
  }
  if (in_order == count && k->type == GGML_TYPE_F16) { return use(view_of<md::half>(k, bytes).narrow(1, cells[0], count)); }
  if (in_order == count && k->type == GGML_TYPE_BF16) { return use(view_of<md::bfloat16>(k, bytes).narrow(1, cells[0], count)); }
  if (in_order == count && k->type == GGML_TYPE_F32) { return use(view_of<float>(k, bytes).narrow(1, cells[0], count)); }
  ggml_to_float_t const to_float = ggml_get_type_traits(k->type)->to_float;
  if (to_float == nullptr && k->type != GGML_TYPE_F32) { return md::status::unsupported; }
  rows.resize(static_cast<std::size_t>(k->ne[2] * count * k->ne[0]));
  float* to = rows.data();
  for (index_t h = 0; h < k->ne[2]; ++h) {
    for (auto const cell : cells) {
      char const* const from = bytes + static_cast<std::size_t>(h) * k->nb[2] + static_cast<std::size_t>(cell) * k->nb[1];
      to_float != nullptr ? to_float(from, to, k->ne[0]) : void(std::memcpy(to, from, k->nb[0] * static_cast<std::size_t>(k->ne[0])));
      to += k->ne[0];
    }
  }
  return use(md::view(static_cast<float const*>(rows.data()), k->ne[2], count, k->ne[0]));
}

/// The executor that cpu::backend holds: a step's parts on the threads of a graph of one operator, which ggml calls with (ith, nth). `pool` is
/// the one that llama_attach_threadpool was given, or none. Observers run between graphs, when these threads have nothing to do.
struct ggml_threads {
  int threads = 1;
  ggml_threadpool* pool = nullptr;

  template <class F>
  void operator()(index_t n, F const& f) const noexcept {
    struct step {
      F const* f;
      index_t parts;
    } todo{&f, n};
    ggml_custom_op_t const part = [](ggml_tensor*, int ith, int nth, void* data) {
      auto const& s = *static_cast<step const*>(data);
      for (index_t i = ith; i < s.parts; i += nth) { (*s.f)(i); }
    };
    if (n < 2 || threads < 2) { return part(nullptr, 0, 1, &todo); }
    alignas(64) char memory[8192];
    ggml_context* const context = ggml_init({sizeof memory, memory, false});
    ggml_cgraph* const graph = ggml_new_graph_custom(context, 4, false);
    ggml_build_forward_expand(graph, ggml_custom_4d(context, GGML_TYPE_F32, 1, 1, 1, 1, nullptr, 0, part, GGML_N_TASKS_MAX, &todo));
    ggml_cplan plan = ggml_graph_plan(graph, threads, pool);
    std::vector<std::uint8_t> work(plan.work_size);
    plan.work_data = work.data();
    if (ggml_graph_compute(graph, &plan) != GGML_STATUS_SUCCESS) { GGML_ABORT("ggml ran a part of a step only"); }
    ggml_free(context);
  }
  index_t width() const noexcept { return threads; }
};

}  // namespace mustdrop_llama
