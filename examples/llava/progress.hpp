// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <string>

namespace llava {

/// A bar on stderr, where that is a terminal; it is gone when it is full.
class progress_bar {
 public:
  explicit progress_bar(std::string what) : what_(std::move(what)), shown_(isatty(STDERR_FILENO) == 1) {}
  ~progress_bar() { clear(); }
  progress_bar(progress_bar const&) = delete;
  progress_bar& operator=(progress_bar const&) = delete;

  void show(long done, long total) {
    auto const now = std::chrono::steady_clock::now();
    if (!shown_ || total <= 0 || (done < total && now - last_ < std::chrono::milliseconds(50))) { return; }
    last_ = now;
    constexpr int width = 30;
    auto const full = static_cast<int>(width * done / total);
    std::string const bar = std::string(static_cast<std::size_t>(full), '#') + std::string(static_cast<std::size_t>(width - full), '.');
    double const seconds = std::chrono::duration<double>(now - start_).count();
    std::fprintf(stderr, "\r%s [%s] %ld/%ld", what_.c_str(), bar.c_str(), done, total);
    if (done > 0 && seconds > 2) {
      std::fprintf(stderr, ", %.0f s left ", seconds / static_cast<double>(done) * static_cast<double>(total - done));
    }
    drawn_ = true;
    if (done >= total) { clear(); }
  }

 private:
  void clear() {
    if (drawn_) { std::fputs("\r\033[K", stderr); }
    drawn_ = false;
  }

  std::string what_;
  bool shown_, drawn_ = false;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now(), last_;
};

/// For llava::model, which takes a function.
inline void show_loading(long done, long total) {
  static progress_bar bar("loading");
  bar.show(done, total);
}

}  // namespace llava
