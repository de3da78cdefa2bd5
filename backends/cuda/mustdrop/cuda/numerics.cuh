// SPDX-License-Identifier: Apache-2.0
#pragma once

// mustdrop/numerics.hpp on a warp: the 32 lanes of a sum are its lanes. What is done to single numbers is said there, for the device too.

#include <mustdrop/cuda/elements.cuh>

MUSTDROP_NAMESPACE_BEGIN
namespace cuda {

/// The lanes of a sum folded by halves; every lane gets the total.
__device__ inline float lanes_total(float lane) {
  for (unsigned half = 16; half > 0; half /= 2) {
    lane += __shfl_down_sync(all_lanes, lane, half);
  }  // what lanes above `half` add is not read
  return __shfl_sync(all_lanes, lane, 0);
}

/// ‖x‖² of a row, by a warp.
template <class T>
__device__ float square_norm(T const* row, index_t dim) {
  float lane = 0;
  for (index_t d = lane_of_thread(); d < dim; d += 32) {
    float const x = to_float(row[d]);
    lane = mustdrop::fma(x, x, lane);
  }
  return lanes_total(lane);
}

}  // namespace cuda
MUSTDROP_NAMESPACE_END
