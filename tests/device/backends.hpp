// SPDX-License-Identifier: Apache-2.0
#pragma once

// The CUDA backend on a device, for tables of cases that know nothing of streams: each call is finished when it returns. Two ways:
//   called    the word puts its kernels on a stream, which is waited for
//   replayed  the same call is captured into a graph, which is launched twice; once where a word changes its input in place

#include "../cuda_backends.hpp"
#include "device.hpp"

namespace md = mustdrop;

namespace on_device {

enum class way { called, replayed };

template <way Way>
struct backend {
  using is_mustdrop_backend = void;
};
using called = backend<way::called>;
using replayed = backend<way::replayed>;

inline char const* name_of(called) { return "cuda"; }
inline char const* name_of(replayed) { return "cuda, as a graph"; }

/// The stream of all calls. It waits for no other.
inline cudaStream_t stream() {
  static cudaStream_t const one = [] {
    cudaStream_t made = nullptr;
    must(cudaStreamCreateWithFlags(&made, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
    return made;
  }();
  return one;
}

template <class Call>
md::status finish(called, int, Call const& call) noexcept {
  md::status const s = call(cuda_backend{stream()});
  cudaError_t const code = cudaStreamSynchronize(stream());
  return s != md::status::ok ? s : md::device_status(code);
}

/// While a stream is captured in the global mode, calls that a capture does not allow (allocation, waiting, the default stream) are errors.
template <class Call>
md::status finish(replayed, int launches, Call const& call) noexcept {
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t ready = nullptr;
  cudaError_t code = cudaStreamBeginCapture(stream(), cudaStreamCaptureModeGlobal);
  if (code != cudaSuccess) { return md::device_status(code); }
  md::status const s = call(cuda_backend{stream()});
  code = cudaStreamEndCapture(stream(), &graph);
  if (s == md::status::ok) {
    if (code == cudaSuccess) { code = cudaGraphInstantiate(&ready, graph, 0); }
    for (int i = 0; i < launches && code == cudaSuccess; ++i) { code = cudaGraphLaunch(ready, stream()); }
    if (code == cudaSuccess) { code = cudaStreamSynchronize(stream()); }
  }
  if (ready != nullptr) { must(cudaGraphExecDestroy(ready), "cudaGraphExecDestroy"); }
  if (graph != nullptr) { must(cudaGraphDestroy(graph), "cudaGraphDestroy"); }
  return s != md::status::ok ? s : md::device_status(code);
}

#define MUSTDROP_TEST_ON_DEVICE(word, launches)                                                            \
  template <way Way, class... Argument>                                                                    \
  md::status word##_impl(backend<Way> on, Argument const&... argument) noexcept {                          \
    return finish(on, launches, [&](cuda_backend const& cuda) { return word##_impl(cuda, argument...); }); \
  }                                                                                                        \
  template <way Way, class... Argument>                                                                    \
  constexpr std::size_t word##_workspace_size_impl(backend<Way>, Argument const&... argument) noexcept {   \
    return word##_workspace_size_impl(cuda_backend{}, argument...);                                        \
  }
MUSTDROP_TEST_ON_DEVICE(window_similarity, 2)
MUSTDROP_TEST_ON_DEVICE(window_merge, 2)
MUSTDROP_TEST_ON_DEVICE(attention_scores, 1)
MUSTDROP_TEST_ON_DEVICE(top_k, 2)
MUSTDROP_TEST_ON_DEVICE(cls_topk, 2)
MUSTDROP_TEST_ON_DEVICE(dual_mask, 2)
MUSTDROP_TEST_ON_DEVICE(kv_evict, 2)
MUSTDROP_TEST_ON_DEVICE(random_scores, 2)
MUSTDROP_TEST_ON_DEVICE(gather, 2)
MUSTDROP_TEST_ON_DEVICE(merge_rows, 2)
MUSTDROP_TEST_ON_DEVICE(spread_rows, 2)
MUSTDROP_TEST_ON_DEVICE(compact, 1)
MUSTDROP_TEST_ON_DEVICE(positions, 2)
MUSTDROP_TEST_ON_DEVICE(rerotate, 1)
#undef MUSTDROP_TEST_ON_DEVICE

}  // namespace on_device
