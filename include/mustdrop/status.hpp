// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include <mustdrop/version.hpp>

MUSTDROP_NAMESPACE_BEGIN

/// What every call returns. Unless it is `ok` or a device code, no output was written.
enum class [[nodiscard]] status : std::int32_t{
    ok = 0,
    bad_shape,            ///< sizes of two arguments disagree, one is negative, or a list is too short for what may be written to it
    bad_stride,           ///< an innermost stride that must be 1 is not
    bad_argument,         ///< an option is outside its documented range, or a host function was given contents that are not what it takes
    workspace_too_small,  ///< fewer bytes than <word>_workspace_size says, or not aligned to 64
    unsupported,          ///< this backend has no kernel for these types or sizes
};

/// A device runtime's own error code (a cudaError_t, say) as a status, and back: nothing is lost, for codes in [0, 2^31 − 1001].
/// 0 is `ok`.
constexpr status device_status(std::int32_t code) noexcept { return code == 0 ? status::ok : static_cast<status>(1000 + code); }
constexpr bool is_device_status(status s) noexcept { return static_cast<std::int32_t>(s) > 1000; }
constexpr std::int32_t device_code(status s) noexcept { return is_device_status(s) ? static_cast<std::int32_t>(s) - 1000 : 0; }

constexpr char const* message(status s) noexcept {
  switch (s) {
    case status::ok: return "ok";
    case status::bad_shape: return "bad shape";
    case status::bad_stride: return "bad stride";
    case status::bad_argument: return "bad argument";
    case status::workspace_too_small: return "workspace too small, or not aligned to 64";
    case status::unsupported: return "unsupported";
  }
  return is_device_status(s) ? "error of the device runtime: device_code() has its number" : "unknown status";
}

MUSTDROP_NAMESPACE_END
