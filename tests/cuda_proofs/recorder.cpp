// SPDX-License-Identifier: Apache-2.0
// recorder SIZES: makes the calls of a file of launches and prints every launch as a line of JSON. What nvcc compiles calls these functions
// of the CUDA runtime, and no others: one to say which kernel a host function stands for, one to launch. SIZES: a line for each kernel,
// its name and the bytes of each of its parameters.

#include "recorder.hpp"

#include <cstring>
#include <fstream>
#include <map>
#include <sstream>

#include <cuda_runtime_api.h>

namespace recorder {

void calls();  // of the file of launches

namespace {

struct knowledge {
  std::uint64_t address;
  std::string bytes, kernel;
};
struct state {
  std::map<void const*, std::string> names;
  std::map<std::string, std::vector<std::size_t>> sizes;
  std::vector<knowledge> known;
  std::uint64_t next = 0x40'0000'0000;
  std::string title;
};
state& now() {
  static state it;  // kernels are registered before main
  return it;
}

std::string hex(void const* bytes, std::size_t size) {
  constexpr char digits[] = "0123456789abcdef";
  std::string text;
  for (std::size_t i = 0; i < size; ++i) {
    unsigned const byte = static_cast<unsigned char const*>(bytes)[i];
    text += digits[byte / 16], text += digits[byte % 16];
  }
  return text;
}

/// Whether some argument is an address of it.
bool points_to(void** arguments, std::vector<std::size_t> const& sizes, knowledge const& known) {
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    for (std::size_t at = 0; at + sizeof(std::uint64_t) <= sizes[i]; at += sizeof(std::uint64_t)) {
      std::uint64_t word;
      std::memcpy(&word, static_cast<char const*>(arguments[i]) + at, sizeof word);
      if (word - known.address < known.bytes.size()) { return true; }
    }
  }
  return false;
}

void print(std::string const& kernel, cudaLaunchConfig_t const& config, void** arguments) {
  auto const& sizes = now().sizes.at(kernel);
  std::printf("{\"case\": \"%s\", \"entry\": \"%s\", \"grid\": [%u, %u, %u], \"block\": [%u, %u, %u], \"shared\": %zu, \"arguments\": [",
              now().title.c_str(), kernel.c_str(), config.gridDim.x, config.gridDim.y, config.gridDim.z, config.blockDim.x,
              config.blockDim.y, config.blockDim.z, config.dynamicSmemBytes);
  for (std::size_t i = 0; i < sizes.size(); ++i) { std::printf("%s\"%s\"", i > 0 ? ", " : "", hex(arguments[i], sizes[i]).c_str()); }
  std::printf("], \"known\": {");
  char const* separator = "";
  for (knowledge const& one : now().known) {
    if (kernel.find(one.kernel) == std::string::npos || !points_to(arguments, sizes, one)) { continue; }
    std::printf("%s\"%llu\": \"%s\"", separator, static_cast<unsigned long long>(one.address),
                hex(one.bytes.data(), one.bytes.size()).c_str());
    separator = ", ";
  }
  std::printf("}}\n");
}

}  // namespace

void begin(std::string const& title) { now().title = title; }
void* address() { return reinterpret_cast<void*>(now().next += region); }
void know(void const* at, void const* bytes, std::size_t size, std::string const& kernel) {
  now().known.push_back({reinterpret_cast<std::uint64_t>(at), std::string(static_cast<char const*>(bytes), size), kernel});
}

}  // namespace recorder

extern "C" {
void** __cudaRegisterFatBinary(void*) { return nullptr; }
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
char __cudaInitModule(void**) { return 1; }
void __cudaRegisterFunction(void**, char const* host, char*, char const* name, int, uint3*, uint3*, dim3*, dim3*, int*) {
  recorder::now().names[host] = name;
}
cudaError_t __cudaPopCallConfiguration(dim3*, dim3*, std::size_t*, void*) { std::abort(); }  // kernel<<<…>>>(…): nowhere in the backend
cudaError_t __cudaGetKernel(cudaKernel_t*, void const*) { std::abort(); }
cudaError_t __cudaLaunchKernel(cudaKernel_t, dim3, dim3, void**, std::size_t, cudaStream_t) { std::abort(); }
cudaError_t cudaLaunchKernelExC(cudaLaunchConfig_t const* config, void const* kernel, void** arguments) {
  recorder::print(recorder::now().names.at(kernel), *config, arguments);
  return cudaSuccess;
}
}

int main(int count, char** arguments) {
  if (count != 2) { return 2; }
  std::ifstream lines(arguments[1]);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string kernel;
    words >> kernel;
    for (std::size_t size = 0; words >> size;) { recorder::now().sizes[kernel].push_back(size); }
  }
  recorder::calls();
}
