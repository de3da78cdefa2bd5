// SPDX-License-Identifier: Apache-2.0
#pragma once

// Prompts as llama.cpp is given them: words are ids, a picture is rows. Who made the rows, and what was dropped in doing so, is no matter here.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <llama.h>

#include <mustdrop/view.hpp>

namespace mustdrop_llama {

namespace md = mustdrop;

/// Frees what a C interface made, for std::unique_ptr.
template <class T, void (*Free)(T*)>
struct deleter {
  void operator()(T* t) const { Free(t); }
};

/// A picture on its way into a batch: rows of the language model's width, of which each keeps the place that it had among all.
struct picture {
  std::vector<float> rows;            // [at.size(), width]
  std::vector<std::int32_t> at;       // ascending, in [0, places)
  std::vector<std::int32_t> key_set;  // indices of rows that no mask drops
  std::int32_t places = 0;            // how many rows there were before any was dropped
  double encode_ms = 0, reduction_ms = 0;
};

/// A question about one picture.
struct prompt {
  std::vector<llama_token> before, after;  // around it
  picture image;
};

/// Where prompts come from and answers go: a tokenizer and a vision encoder. Throws llava::input_error.
class front {
 public:
  virtual ~front() = default;
  /// At most `tokens` rows; 0: all.
  virtual prompt ask(std::string const& image, std::string const& question, int tokens) = 0;
  virtual std::string text(std::vector<llama_token> const& answer) const = 0;
  virtual bool ends(llama_token token) const = 0;
};

/// What llama.cpp and libmtmd say is errors, on stderr.
void errors_only(ggml_log_level level, char const* text, void*);

/// examples/llava: a checkpoint's tower tells features and what CLS attends to. Windows merge, then rows that CLS attends to most (its method `before`).
std::unique_ptr<front> checkpoint_front(std::string const& folder, int threads);

/// Windows of the grid become one row each, the most alike first, until no more than `tokens` >= 1 rows are left: windows of 3 × 3, and larger ones where
/// these do not save enough. The picture's rows are [side², width].
void merge_windows(picture& p, md::index_t side, md::index_t width, md::index_t tokens, int threads);

/// libmtmd tells features only: windows merge, the most alike first, until no more than the tokens asked for are left.
std::unique_ptr<front> mtmd_front(llama_model const* model, std::string const& mmproj, int threads);

}  // namespace mustdrop_llama
