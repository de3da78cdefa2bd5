// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <type_traits>

#include <mustdrop/version.hpp>

MUSTDROP_NAMESPACE_BEGIN

// A backend is any type that says `using is_mustdrop_backend = void;`. Word `top_k` calls `top_k_impl(backend, …)` and
// `top_k_workspace_size_impl(backend, …)`, which argument-dependent lookup finds in the backend's own namespace once the
// backend's header of that word is included (mustdrop/reference/top_k.hpp): a new backend edits no file here.
template <class T, class = void>
struct is_backend : std::false_type {};
template <class T>
struct is_backend<T, std::void_t<typename T::is_mustdrop_backend>> : std::true_type {};

template <class T>
using require_backend = std::enable_if_t<is_backend<T>::value, int>;

MUSTDROP_NAMESPACE_END
