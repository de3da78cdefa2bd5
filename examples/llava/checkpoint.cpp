// SPDX-License-Identifier: Apache-2.0

#include "checkpoint.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <map>
#include <set>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

#include "json_file.hpp"
#include "safetensors.hpp"

namespace llava {
namespace {

using safetensors::printable;

/// A file as the operating system maps it: read when touched. If another program shortens it meanwhile, touching what is gone ends this
/// program with SIGBUS; if one writes into it, the weights change. Download under another name and rename, as Hugging Face's tools do.
class mapping {
 public:
  explicit mapping(std::string path) : path_(std::move(path)) {
    int const file = open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a pipe must not hold us up
    if (file < 0) { throw input_error(path_ + ": cannot be opened"); }
    struct stat status {};
    bool const regular = fstat(file, &status) == 0 && S_ISREG(status.st_mode);
    size_ = regular ? static_cast<std::size_t>(status.st_size) : 0;
    void* const address = size_ > 0 ? mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file, 0) : MAP_FAILED;
    close(file);
    if (!regular) { throw input_error(path_ + ": not a file that can be read"); }
    if (size_ == 0) { throw input_error(path_ + ": the file is empty"); }
    if (address == MAP_FAILED) { throw input_error(path_ + ": cannot be mapped into memory"); }
    address_ = address;
  }
  ~mapping() {
    if (address_ != nullptr) { munmap(address_, size_); }
  }
  mapping(mapping&& other) noexcept : path_(std::move(other.path_)), address_(std::exchange(other.address_, nullptr)), size_(other.size_) {}
  mapping(mapping const&) = delete;
  mapping& operator=(mapping const&) = delete;
  mapping& operator=(mapping&&) = delete;

  std::string const& path() const { return path_; }
  unsigned char const* bytes() const { return static_cast<unsigned char const*>(address_); }
  std::size_t size() const { return size_; }

 private:
  std::string path_;
  void* address_ = nullptr;
  std::size_t size_ = 0;
};

/// Prefixes of the three layouts, and the names that they have here. The first that fits counts.
struct prefix {
  std::string_view written, part;
};
constexpr prefix prefixes[] = {
    {"language_model.lm_head.", "lm_head."},
    {"lm_head.", "lm_head."},
    {"language_model.model.", "text."},
    {"model.language_model.", "text."},
    {"vision_tower.vision_model.", "vision."},
    {"model.vision_tower.vision_model.", "vision."},
    {"vision_tower.", "vision."},
    {"model.vision_tower.", "vision."},
    {"multi_modal_projector.", "projector."},
    {"model.multi_modal_projector.", "projector."},
};

bool starts_with(std::string_view text, std::string_view with) { return text.substr(0, with.size()) == with; }
bool ends_with(std::string_view text, std::string_view with) {
  return text.size() >= with.size() && text.substr(text.size() - with.size()) == with;
}

/// A tensor of a file, under the name that it has there.
struct stored {
  std::string name, path;
  safetensors::tensor shape;
  unsigned char const* data = nullptr;

  [[noreturn]] void refuse(std::string const& why) const { throw input_error(path + ": tensor " + printable(name) + " " + why); }
};

std::string shown(std::vector<std::int64_t> const& shape) {
  std::string text = "[";
  for (std::int64_t const size : shape) { text += (text.size() > 1 ? ", " : "") + std::to_string(size); }
  return text + "]";
}

/// Every tensor of the files by its name here.
class catalogue {
 public:
  explicit catalogue(std::string folder) : folder_(std::move(folder)) {
    std::string const single = folder_ + "/model.safetensors", index = folder_ + "/model.safetensors.index.json";
    if (is_file(single) || !is_file(index)) {
      add("model.safetensors");
    } else {
      add_shards(index);
    }
  }

  stored const* find(std::string const& name) const {
    auto const found = tensors_.find(name);
    return found == tensors_.end() ? nullptr : &found->second;
  }

  /// The tensor, which must be there with this shape.
  stored const& take(std::string const& name, std::vector<std::int64_t> const& shape) const {
    stored const* const found = find(name);
    if (found == nullptr) { throw input_error(files_.front().path() + ": tensor " + as_written(name) + " is missing"); }
    if (found->shape.shape != shape) {
      found->refuse("has shape " + printable(shown(found->shape.shape)) + ", config.json says " + shown(shape));
    }
    return *found;
  }

  /// What the configuration has no place for, and what would change the answer if it were left out.
  void check_names(config const& c) const {
    for (auto const& [name, tensor] : tensors_) {
      check_layer(name, "text.layers.", c.text.layers, tensor);
      check_layer(name, "vision.encoder.layers.", c.vision.layers, tensor);
      bool const bias = ends_with(name, ".bias");
      if (bias && starts_with(name, "text.")) { tensor.refuse("is a bias, which config.json does not speak of"); }
      if (bias && starts_with(name, "projector.") && !c.projector_bias) { tensor.refuse("is a bias, which config.json excludes"); }
    }
  }

  std::vector<mapping> release() { return std::move(files_); }

 private:
  static void check_layer(std::string_view name, std::string_view layers, int count, stored const& tensor) {
    if (!starts_with(name, layers)) { return; }
    int number = 0;
    auto const [end, failed] = std::from_chars(name.data() + layers.size(), name.data() + name.size(), number);
    if (failed != std::errc() || number >= count) {
      tensor.refuse("is of no layer that config.json knows: it says " + std::to_string(count));
    }
    static_cast<void>(end);
  }

  safetensors::contents add(std::string const& file) {
    files_.emplace_back(folder_ + "/" + file);
    mapping const& mapped = files_.back();
    safetensors::contents contents;
    try {
      contents = safetensors::parse(mapped.bytes(), mapped.size());
    } catch (safetensors::error const& why) { throw input_error(mapped.path() + ": " + why.what()); }
    for (auto const& [name, t] : contents.tensors) {
      for (prefix const& p : prefixes) {
        if (!starts_with(name, p.written)) { continue; }
        written_.emplace(p.part, p.written);
        stored const tensor{name, mapped.path(), t, mapped.bytes() + t.begin};
        auto const [other, is_new] = tensors_.emplace(std::string(p.part) + name.substr(p.written.size()), tensor);
        if (!is_new) { tensor.refuse("is a second " + printable(other->second.name) + " of " + printable(other->second.path)); }
        break;
      }
    }
    return contents;
  }

  void add_shards(std::string const& index) {
    nlohmann::json const file = read_json(index);
    section const top(file, index);
    if (!top.inner("weight_map")) { top.refuse("weight_map", "is missing"); }
    std::map<std::string, std::set<std::string>> shards;
    for (auto const& [tensor, shard] : top.find("weight_map")->items()) {
      std::string const key = "tensor " + printable(tensor);
      if (!shard.is_string()) { top.refuse(key, "has no file name"); }
      auto const name = shard.get<std::string>();
      bool const inside =
          !name.empty() && name != "." && name != ".." && name.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos;
      if (!inside) { top.refuse(key, "is in " + printable(name) + ", which is no name of a file in the folder"); }
      shards[name].insert(tensor);
    }
    if (shards.empty()) { top.refuse("weight_map", "names no file"); }
    constexpr std::size_t most_shards = 4096;  // each is a mapping
    if (shards.size() > most_shards) { top.refuse("weight_map", "names more than 4096 files"); }
    for (auto const& [name, tensors] : shards) {
      if (!is_file(folder_ + "/" + name)) {
        throw input_error(index + ": tensor " + printable(*tensors.begin()) + " is in " + printable(name) + ", which is missing");
      }
      safetensors::contents const contents = add(name);
      for (std::string const& tensor : tensors) {
        if (contents.tensors.count(tensor) == 0) {
          throw input_error(folder_ + "/" + printable(name) + ": tensor " + printable(tensor) + " is missing, the index has it here");
        }
      }
    }
  }

  /// How these files would have written a name, for messages.
  std::string as_written(std::string const& name) const {
    std::size_t const end = name.find('.') + 1;
    std::string const part = name.substr(0, end);
    auto const seen = written_.find(part);
    if (seen != written_.end()) { return seen->second + name.substr(end); }
    for (prefix const& p : prefixes) {
      if (p.part == part) { return std::string(p.written) + name.substr(end); }
    }
    return name;
  }

  std::string folder_;
  std::vector<mapping> files_;
  std::map<std::string, stored> tensors_;
  std::map<std::string, std::string> written_;  // part → prefix
};

/// Looks tensors up and keeps a list of them.
class reader {
 public:
  explicit reader(catalogue const& from) : from_(from) {}

  weight matrix(std::string const& name, long rows, long cols) { return take(name, {rows, cols}, rows, cols); }
  weight row(std::string const& name, long cols) { return take(name, {cols}, 1, cols); }
  weight take(std::string const& name, std::vector<std::int64_t> const& shape, long rows, long cols) {
    stored const& found = from_.take(name, shape);
    weight w{found.data, weight_type::f32, rows, cols};
    switch (found.shape.type) {
      case safetensors::dtype::f32: break;
      case safetensors::dtype::f16: w.type = weight_type::f16; break;
      case safetensors::dtype::bf16: w.type = weight_type::bf16; break;
      default: found.refuse(std::string("is of type ") + safetensors::name_of(found.shape.type) + "; F32, F16 and BF16 can be used");
    }
    taken_.push_back(&found);
    return w;
  }

  std::vector<stored const*> const& taken() const { return taken_; }

 private:
  catalogue const& from_;
  std::vector<stored const*> taken_;
};

vision_layer read_vision_layer(reader& from, std::string const& at, vision_config const& c) {
  vision_layer l;
  l.norm1 = from.row(at + "layer_norm1.weight", c.hidden), l.norm1_bias = from.row(at + "layer_norm1.bias", c.hidden);
  l.norm2 = from.row(at + "layer_norm2.weight", c.hidden), l.norm2_bias = from.row(at + "layer_norm2.bias", c.hidden);
  auto const projection = [&](char const* name, weight& matrix, weight& bias) {
    matrix = from.matrix(at + "self_attn." + name + ".weight", c.hidden, c.hidden);
    bias = from.row(at + "self_attn." + name + ".bias", c.hidden);
  };
  projection("q_proj", l.q, l.q_bias), projection("k_proj", l.k, l.k_bias);
  projection("v_proj", l.v, l.v_bias), projection("out_proj", l.out, l.out_bias);
  l.fc1 = from.matrix(at + "mlp.fc1.weight", c.intermediate, c.hidden), l.fc1_bias = from.row(at + "mlp.fc1.bias", c.intermediate);
  l.fc2 = from.matrix(at + "mlp.fc2.weight", c.hidden, c.intermediate), l.fc2_bias = from.row(at + "mlp.fc2.bias", c.hidden);
  return l;
}

vision_weights read_vision(reader& from, vision_config const& c) {
  vision_weights v;
  v.class_embedding = from.row("vision.embeddings.class_embedding", c.hidden);
  v.patch_embedding = from.take("vision.embeddings.patch_embedding.weight", {c.hidden, c.channels, c.patch_size, c.patch_size}, c.hidden,
                                long{c.channels} * c.patch_size * c.patch_size);
  v.position_embedding = from.matrix("vision.embeddings.position_embedding.weight", 1 + c.patches(), c.hidden);
  v.pre_norm = from.row("vision.pre_layrnorm.weight", c.hidden);  // spelt so in every checkpoint
  v.pre_norm_bias = from.row("vision.pre_layrnorm.bias", c.hidden);
  for (int l = 0; l < c.layers; ++l) { v.layers.push_back(read_vision_layer(from, "vision.encoder.layers." + std::to_string(l) + ".", c)); }
  return v;
}

projector_weights read_projector(reader& from, config const& c) {
  projector_weights p;
  long const hidden = c.text.hidden;
  p.linear1 = from.matrix("projector.linear_1.weight", hidden, c.vision.hidden * static_cast<long>(c.feature_layers.size()));
  p.linear2 = from.matrix("projector.linear_2.weight", hidden, hidden);
  if (c.projector_bias) {
    p.linear1_bias = from.row("projector.linear_1.bias", hidden);
    p.linear2_bias = from.row("projector.linear_2.bias", hidden);
  }
  return p;
}

text_layer read_text_layer(reader& from, std::string const& at, text_config const& c) {
  text_layer l;
  long const query = long{c.heads} * c.head_dim, key = long{c.kv_heads} * c.head_dim;
  l.input_norm = from.row(at + "input_layernorm.weight", c.hidden);
  l.post_attention_norm = from.row(at + "post_attention_layernorm.weight", c.hidden);
  l.q = from.matrix(at + "self_attn.q_proj.weight", query, c.hidden);
  l.k = from.matrix(at + "self_attn.k_proj.weight", key, c.hidden);
  l.v = from.matrix(at + "self_attn.v_proj.weight", key, c.hidden);
  l.o = from.matrix(at + "self_attn.o_proj.weight", c.hidden, query);
  l.gate = from.matrix(at + "mlp.gate_proj.weight", c.intermediate, c.hidden);
  l.up = from.matrix(at + "mlp.up_proj.weight", c.intermediate, c.hidden);
  l.down = from.matrix(at + "mlp.down_proj.weight", c.hidden, c.intermediate);
  return l;
}

text_weights read_text(reader& from, text_config const& c) {
  text_weights t;
  t.embed_tokens = from.matrix("text.embed_tokens.weight", c.vocab, c.hidden);
  for (int l = 0; l < c.layers; ++l) { t.layers.push_back(read_text_layer(from, "text.layers." + std::to_string(l) + ".", c)); }
  t.norm = from.row("text.norm.weight", c.hidden);
  t.lm_head = c.tied ? t.embed_tokens : from.matrix("lm_head.weight", c.vocab, c.hidden);
  return t;
}

/// A number is finite iff its exponent's bits are not all set.
template <class Bits>
bool all_finite(unsigned char const* data, std::size_t count, Bits exponent) {
  constexpr std::size_t block = 1024;  // a fixed number of turns, which compilers turn into vectors
  std::size_t i = 0;
  for (; i + block <= count; i += block) {
    Bits values[block], wrong = 0;
    std::memcpy(values, data + i * sizeof(Bits), sizeof values);
    for (Bits const value : values) { wrong = static_cast<Bits>(wrong | ((value & exponent) == exponent)); }
    if (wrong != 0) { return false; }
  }
  for (; i < count; ++i) {
    Bits value;
    std::memcpy(&value, data + i * sizeof(Bits), sizeof value);
    if ((value & exponent) == exponent) { return false; }
  }
  return true;
}

bool all_finite(safetensors::dtype type, unsigned char const* data, std::size_t count) {
  switch (type) {
    case safetensors::dtype::f16: return all_finite<std::uint16_t>(data, count, 0x7c00);
    case safetensors::dtype::bf16: return all_finite<std::uint16_t>(data, count, 0x7f80);
    default: return all_finite<std::uint32_t>(data, count, 0x7f800000);
  }
}

/// A part of a tensor, small enough to share the work.
struct piece {
  stored const* of;
  std::size_t begin, count;
};

std::vector<piece> in_pieces(std::vector<stored const*> const& tensors) {
  constexpr std::size_t most = std::size_t{1} << 22;
  std::vector<piece> pieces;
  for (stored const* const t : tensors) {
    for (std::size_t begin = 0; begin < t->shape.elements(); begin += most) {
      pieces.push_back({t, begin, std::min(most, t->shape.elements() - begin)});
    }
  }
  return pieces;
}

bool finite(piece const& p) {
  std::size_t const width = safetensors::bytes_of(p.of->shape.type);
  return all_finite(p.of->shape.type, p.of->data + p.begin * width, p.count);
}

/// Every weight is looked at once, by all processors; it has to be read from the disk anyway. The first bad one in the model's order is named.
void refuse_not_finite(std::vector<stored const*> const& tensors, void (*progress)(long done, long total)) {
  std::vector<piece> const pieces = in_pieces(tensors);
  std::atomic<std::size_t> next{0}, done{0}, first_bad{pieces.size()};
  auto const look = [&](bool report) {
    for (std::size_t i; (i = next.fetch_add(1)) < pieces.size();) {
      if (!finite(pieces[i])) {
        for (std::size_t bad = first_bad; i < bad && !first_bad.compare_exchange_weak(bad, i);) {}
        next = pieces.size();  // pieces before this one have been handed out
      }
      ++done;
      if (report && progress != nullptr) { progress(static_cast<long>(done), static_cast<long>(pieces.size())); }
    }
  };
  constexpr std::size_t worth_a_thread = 64;  // pieces
  std::size_t const processors = std::max(1U, std::thread::hardware_concurrency());
  std::vector<std::thread> others;
  try {
    for (std::size_t i = 1; i < std::min(processors, pieces.size() / worth_a_thread); ++i) { others.emplace_back(look, false); }
  } catch (std::system_error const&) {}  // no more threads here: those that there are do the work
  look(true);
  for (std::thread& other : others) { other.join(); }
  if (progress != nullptr) { progress(static_cast<long>(pieces.size()), static_cast<long>(pieces.size())); }

  if (first_bad == pieces.size()) { return; }
  piece bad = pieces[first_bad];
  while (bad.count > 1) {  // halves that hold it
    std::size_t const half = bad.count / 2;
    piece const left{bad.of, bad.begin, half};
    bad = finite(left) ? piece{bad.of, bad.begin + half, bad.count - half} : left;
  }
  bad.of->refuse("holds NaN or infinity: its element " + std::to_string(bad.begin));
}

}  // namespace

struct checkpoint::files {
  std::vector<mapping> mapped;
};

checkpoint::checkpoint(std::string const& folder, config const& config, void (*progress)(long done, long total)) {
  catalogue all(folder);
  all.check_names(config);
  reader from(all);
  vision = read_vision(from, config.vision);
  projector = read_projector(from, config);
  text = read_text(from, config.text);
  for (stored const* const t : from.taken()) { parameters += static_cast<long>(t->shape.elements()); }
  refuse_not_finite(from.taken(), progress);
  files_ = std::make_unique<files>(files{all.release()});
}

checkpoint::~checkpoint() = default;
checkpoint::checkpoint(checkpoint&&) noexcept = default;
checkpoint& checkpoint::operator=(checkpoint&&) noexcept = default;

}  // namespace llava
