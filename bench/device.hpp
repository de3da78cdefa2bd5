// SPDX-License-Identifier: Apache-2.0
#pragma once

// How a step is measured on a device. Its blocks lie in the device's memory; calls on them, one after another, are one graph, whose time between
// two events is divided by their number, so that what the host needs to launch is left out.
//   hot   as many blocks as half of L2 holds, at least one and at most 64
//   cold  as many, but before each launch twice the size of L2 is overwritten, and no block is used twice
// Before that a call and a graph of it, launched twice, must each write the bytes that the reference writes.

#include "../tests/device/backends.hpp"
#include "device_compositions.hpp"

using on_device::must;

constexpr std::size_t most_blocks = 64;

/// Memory of the device that outlives the benchmarks.
inline char* lasting_memory(std::size_t bytes) {
  static char* memory = nullptr;
  static std::size_t size = 0;
  if (size < bytes) {
    must(cudaFree(memory), "cudaFree");
    must(cudaMalloc(&memory, bytes), "cudaMalloc");
    size = bytes;
  }
  return memory;
}

inline std::size_t l2_bytes() {
  int bytes = 0;
  must(cudaDeviceGetAttribute(&bytes, cudaDevAttrL2CacheSize, 0), "cudaDeviceGetAttribute");
  return bytes > 0 ? static_cast<std::size_t>(bytes) : std::size_t{4} << 20;
}

class event {
 public:
  event() { must(cudaEventCreate(&event_), "cudaEventCreate"); }
  ~event() { must(cudaEventDestroy(event_), "cudaEventDestroy"); }
  event(event const&) = delete;
  event& operator=(event const&) = delete;

  void record() { must(cudaEventRecord(event_, on_device::stream()), "cudaEventRecord"); }
  double seconds_since(event const& begin) {
    float milliseconds = 0;
    must(cudaEventSynchronize(event_), "cudaEventSynchronize");
    must(cudaEventElapsedTime(&milliseconds, begin.event_, event_), "cudaEventElapsedTime");
    return static_cast<double>(milliseconds) * 1e-3;
  }

 private:
  cudaEvent_t event_ = nullptr;
};

/// The speed of a large copy from the device's memory to itself, bytes read and written a second: the median of several.
inline double copy_rate() {
  static double const rate = [] {
    constexpr std::size_t bytes = std::size_t{1} << 28;
    char* const memory = lasting_memory(2 * bytes);
    std::vector<double> seconds;
    for (int i = 0; i < 11; ++i) {
      event begin, end;
      begin.record();
      must(cudaMemcpyAsync(memory, memory + bytes, bytes, cudaMemcpyDeviceToDevice, on_device::stream()), "cudaMemcpyAsync");
      end.record();
      seconds.push_back(end.seconds_since(begin));
    }
    std::nth_element(seconds.begin(), seconds.begin() + 5, seconds.end());
    return 2.0 * static_cast<double>(bytes) / seconds[5];
  }();
  return rate;
}

/// Calls on blocks in turn, captured and ready to be launched.
class recorded_calls {
 public:
  template <class Step, class Backend>
  recorded_calls(Step& step, Backend const& on, block_memory const& memory, std::size_t calls) {
    must(cudaStreamBeginCapture(on.stream, cudaStreamCaptureModeGlobal), "cudaStreamBeginCapture");
    for (std::size_t i = 0; i < calls && status_ == md::status::ok; ++i) {
      step.use(memory.block(i));
      status_ = step.run(on);
    }
    cudaGraph_t graph = nullptr;
    must(cudaStreamEndCapture(on.stream, &graph), "cudaStreamEndCapture");
    must(cudaGraphInstantiate(&ready_, graph, 0), "cudaGraphInstantiate");
    must(cudaGraphDestroy(graph), "cudaGraphDestroy");
  }
  ~recorded_calls() { must(cudaGraphExecDestroy(ready_), "cudaGraphExecDestroy"); }
  recorded_calls(recorded_calls const&) = delete;
  recorded_calls& operator=(recorded_calls const&) = delete;

  md::status status() const { return status_; }
  void launch() { must(cudaGraphLaunch(ready_, on_device::stream()), "cudaGraphLaunch"); }

 private:
  cudaGraphExec_t ready_ = nullptr;
  md::status status_ = md::status::ok;
};

/// Whether the bytes that a backend writes are the reference's: called, and twice as a graph.
template <class Step, class Backend>
char const* difference(Step& step, Backend const& on, block_memory const& memory) {
  std::vector<char> expected(step.block_bytes()), input(step.block_bytes()), got(step.block_bytes());
  step.fill(expected.data(), 1);
  if (md::status const s = step.run(md::reference::backend{}); s != md::status::ok) { return md::message(s); }
  step.fill(input.data(), 1);

  auto const differs = [&](auto const& run) {
    must(cudaMemcpy(memory.block(0), input.data(), input.size(), cudaMemcpyHostToDevice), "cudaMemcpy");
    run();
    must(cudaStreamSynchronize(on.stream), "cudaStreamSynchronize");
    must(cudaMemcpy(got.data(), memory.block(0), got.size(), cudaMemcpyDeviceToHost), "cudaMemcpy");
    return got != expected;
  };
  md::status called = md::status::ok;
  step.use(memory.block(0));
  bool const wrong = differs([&] { called = step.run(on); });  // scratch is as large as it must be from here on
  if (called != md::status::ok) { return md::message(called); }
  if (wrong) { return "the device and the reference differ"; }
  recorded_calls graph(step, on, memory, 1);
  if (graph.status() != md::status::ok) { return md::message(graph.status()); }
  bool const once = differs([&] { graph.launch(); }), twice = differs([&] { graph.launch(); });
  return once || twice ? "a graph and the reference differ" : nullptr;
}

/// Overwrites what L2 holds.
inline void empty_l2(char* memory) { must(cudaMemsetAsync(memory, 0x5a, 2 * l2_bytes(), on_device::stream()), "cudaMemsetAsync"); }

template <class Step, class Backend>
void measure(benchmark::State& state, shape const& s, bool&) {
  double const copy = copy_rate();
  Step step(s);
  std::size_t const stride = (step.block_bytes() + 255) / 256 * 256;
  std::size_t const count = std::clamp<std::size_t>(l2_bytes() / 2 / stride, 1, most_blocks), calls = s.cold ? count : most_blocks;
  char* const start = lasting_memory(stride * count + 2 * l2_bytes());
  block_memory const memory{start, stride, count};
  Backend const on{on_device::stream()};
  if (char const* const why = difference(step, on, memory); why != nullptr) { return fail(state, why); }
  std::vector<char> input(step.block_bytes());
  for (std::size_t i = 0; i < count; ++i) {
    step.fill(input.data(), static_cast<unsigned>(i) + 1);
    must(cudaMemcpy(memory.block(i), input.data(), input.size(), cudaMemcpyHostToDevice), "cudaMemcpy");
  }
  recorded_calls graph(step, on, memory, calls);
  if (graph.status() != md::status::ok) { return fail(state, "not ok"); }
  graph.launch();
  double took = 0;
  event begin, end;
  while (state.KeepRunningBatch(static_cast<benchmark::IterationCount>(calls))) {
    if (s.cold) { empty_l2(start + stride * count); }
    begin.record();
    graph.launch();
    end.record();
    double const seconds = end.seconds_since(begin);
    state.SetIterationTime(seconds);
    took += seconds;
  }
  auto const times = static_cast<double>(state.iterations());
  state.counters["bytes"] = benchmark::Counter(step.bytes * times, benchmark::Counter::kIsRate);
  if (step.flops > 0) { state.counters["flops"] = benchmark::Counter(step.flops * times, benchmark::Counter::kIsRate); }
  if (Step::limit != roof::none && Step::limit != roof::fma) { state.counters["roof"] = step.bytes * times / took / copy; }
}

constexpr bool times_are_given = true;

/// Steps that say `using composed = themselves` are measured as CUB's parts too.
template <class Step, class = void>
struct is_composed : std::false_type {};
template <class Step>
struct is_composed<Step, std::void_t<typename Step::composed>> : std::is_same<typename Step::composed, Step> {};

template <class Step, class Add>
void add_backends(bool, Add const& add) {
  add("cuda", &measure<Step, cuda_backend>);
  if constexpr (is_composed<Step>::value) { add("cub", &measure<Step, composed::backend>); }
}

inline int status_without_machine() { return on_device::status_without_device(); }
inline void add_context() {
  on_device::print_device();
  cudaDeviceProp device;
  must(cudaGetDeviceProperties(&device, 0), "cudaGetDeviceProperties");
  benchmark::AddCustomContext("device", device.name);
  benchmark::AddCustomContext("copy_bytes_per_second", std::to_string(copy_rate()));
}
