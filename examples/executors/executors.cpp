// SPDX-License-Identifier: Apache-2.0

// Two steps on the threads of whoever has some: the same bits as the reference from each adapter, with any number of threads. Prints the
// best time of a few; what it says of more threads than the machine has processors is how the adapter bears that.

#include <chrono>
#include <cstdio>
#include <initializer_list>
#include <thread>

#include "ggml.hpp"
#include "steps.hpp"
#include "thread_pool.hpp"
#if defined(MUSTDROP_HAS_OPENMP)
#include "openmp.hpp"
#endif
#if defined(MUSTDROP_HAS_ONETBB)
#include <oneapi/tbb/global_control.h>

#include "onetbb.hpp"
#endif

struct ggml_tensor;  // ggml.h

namespace {

using arch = xsimd::default_arch;

steps::picture_data const& pictures_of_all() {
  static steps::picture_data const data;
  return data;
}

/// Both steps, again and again.
struct measured {
  steps::results out;
  double best_ms = 1e9;
  md::status done = md::status::ok;
  steps::scratch_memory scratch;

  template <class Backend>
  void run(Backend const& on, int times) {
    for (int time = 0; time < times && done == md::status::ok; ++time) {
      auto const begin = std::chrono::steady_clock::now();
      done = steps::merge_alike(on, pictures_of_all(), out, scratch);
      if (done == md::status::ok) { done = steps::drop_unseen(on, pictures_of_all(), out, scratch); }
      std::chrono::duration<double, std::milli> const took = std::chrono::steady_clock::now() - begin;
      best_ms = std::min(best_ms, took.count());
    }
  }
};
constexpr int times = 3;

void on_pool(int threads, measured& work) {
  // [docs/cpu.md]
  executors::thread_pool pool(threads);  // made once, for all calls
  md::cpu::backend<arch, executors::pooled> const on{{&pool}};
  // [end]
  work.run(on, times);
}

// [docs/cpu.md]
/// A node of the graph: ggml_custom_4d(…, drop_tokens, GGML_N_TASKS_MAX, &node).
struct drop_node {
  executors::ggml_team team;
  measured* work;
};

void drop_tokens(ggml_tensor*, int /*ith*/, int nth, void* userdata) {  // ggml calls this on each of its threads
  auto& node = *static_cast<drop_node*>(userdata);
  node.team.run(nth, [&](executors::ggml_threads threads) {  // this is called on one of them, the others help
    md::cpu::backend<arch, executors::ggml_threads> const on{threads};
    node.work->run(on, 1);
  });
}
// [end]

/// Stands for ggml: threads that all come to the node, in each of a few graphs.
void on_ggml(int threads, measured& work) {
  drop_node node{{}, &work};
  auto const compute = [&](int ith) {
    for (int graph = 0; graph < times; ++graph) { drop_tokens(nullptr, ith, threads, &node); }
  };
  std::vector<std::thread> workers;
  for (int ith = 1; ith < threads; ++ith) { workers.emplace_back(compute, ith); }
  compute(0);
  for (std::thread& worker : workers) { worker.join(); }
}

#if defined(MUSTDROP_HAS_ONETBB)
void on_onetbb(int threads, measured& work) {
  auto const as_many = static_cast<std::size_t>(threads);
  tbb::global_control const more_than_processors(tbb::global_control::max_allowed_parallelism, as_many);
  // [docs/cpu.md]
  tbb::task_arena arena(threads);
  md::cpu::backend<arch, executors::onetbb> const on{{&arena}};
  // [end]
  work.run(on, times);
}
#endif

#if defined(MUSTDROP_HAS_OPENMP)
void on_openmp(int threads, measured& work) {
  // [docs/cpu.md]
  md::cpu::backend<arch, executors::openmp> const on{{threads}};
  // [end]
  work.run(on, times);
}
#endif

struct adapter {
  char const* name;
  void (*run)(int threads, measured& work);
};
constexpr adapter adapters[] = {
    {"thread_pool", on_pool},
    {"ggml", on_ggml},
#if defined(MUSTDROP_HAS_ONETBB)
    {"onetbb", on_onetbb},
#endif
#if defined(MUSTDROP_HAS_OPENMP)
    {"openmp", on_openmp},
#endif
};

/// Whether it did what the reference did.
bool add_cell(adapter const& on, int threads, steps::results const& want) {
  measured work;
  on.run(threads, work);
  bool const same = work.done == md::status::ok && work.out == want;
  if (same) {
    std::printf("%9.2f", work.best_ms);
  } else {
    std::printf("%9s", work.done == md::status::ok ? "differs" : "failed");
  }
  return same;
}

}  // namespace

int main() {
  measured reference;
  reference.run(md::reference::backend{}, 1);
  if (reference.done != md::status::ok) {
    std::printf("reference: %s\n", md::message(reference.done));
    return 1;
  }
  bool same = true;
  std::printf("%-12s%9s%9s%9s%9s   threads, ms on %s\n", "", "1", "2", "3", "7", arch::name());
  for (adapter const& on : adapters) {
    std::printf("%-12s", on.name);
    for (int const threads : {1, 2, 3, 7}) { same = add_cell(on, threads, reference.out) && same; }
    std::printf("\n");
  }
  std::printf("%s\n", same ? "the same bits as the reference everywhere" : "NOT the same bits everywhere");
  return same ? 0 : 1;
}
