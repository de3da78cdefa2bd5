// SPDX-License-Identifier: Apache-2.0

#include "sentencepiece_check.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <map>
#include <string_view>
#include <utility>
#include <vector>

#include "error.hpp"

namespace llava {
namespace {

[[noreturn]] void refuse(std::string const& why) { throw input_error(why); }

/// One field of a protobuf message. `number` is a varint's or a fixed value's, `bytes` those of a string or of a message.
struct field {
  std::uint32_t id = 0;
  std::uint64_t number = 0;
  std::string_view bytes;
  enum kind { varint = 0, fixed64 = 1, text = 2, fixed32 = 5 } type = varint;
};

/// The fields of a message, one after another.
class message {
 public:
  explicit message(std::string_view rest) : rest_(rest) {}

  bool next(field& f) {
    if (rest_.empty()) { return false; }
    std::uint64_t const tag = varint();
    f = field{};
    if (tag >> 3 == 0 || tag >> 32 != 0) { refuse("a field without a number"); }
    f.id = static_cast<std::uint32_t>(tag >> 3);
    switch (tag & 7) {
      case field::varint: f.number = varint(); break;
      case field::fixed64: f.number = fixed(8); break;
      case field::text: f.bytes = take(varint()); break;
      case field::fixed32: f.number = fixed(4); break;
      default: refuse("a field of a type that is not known");
    }
    f.type = static_cast<field::kind>(tag & 7);
    return true;
  }

 private:
  std::string_view take(std::uint64_t size) {
    if (size > rest_.size()) { refuse("a field that ends behind the file"); }
    std::string_view const taken = rest_.substr(0, static_cast<std::size_t>(size));
    rest_.remove_prefix(taken.size());
    return taken;
  }
  std::uint64_t fixed(std::size_t size) {
    std::string_view const taken = take(size);
    std::uint64_t value = 0;
    for (std::size_t i = size; i-- > 0;) { value = value << 8 | static_cast<unsigned char>(taken[i]); }
    return value;
  }
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      auto const byte = static_cast<unsigned char>(take(1)[0]);
      value |= std::uint64_t{byte & 0x7fU} << shift;
      if (byte < 0x80) { return value; }
    }
    refuse("a number that does not end");
  }

  std::string_view rest_;
};

/// The table of a normaliser: u32 size of a trie, the trie (a double array of u32, as darts-clone makes it), texts that end with a zero each.
/// Whatever text is looked up, the search must stay in the array and find at most 32 entries, which is what SentencePiece has room for.
class charsmap {
 public:
  explicit charsmap(std::string_view bytes) {
    constexpr std::size_t most = 8'000'000, block = 1024;
    if (bytes.size() > most) { refuse("a normalisation table of more than 8 MB"); }
    if (bytes.size() < 4) { refuse("a normalisation table without a size"); }
    std::size_t const trie = read(bytes, 0);
    bytes.remove_prefix(4);
    if (trie > bytes.size() || trie == 0 || trie % block != 0) { refuse("a normalisation table of a wrong size"); }
    for (std::size_t i = 0; i < trie; i += 4) { units_.push_back(read(bytes, i)); }
    texts_ = bytes.substr(trie);
    if (texts_.empty() || texts_.back() != '\0') { refuse("a normalisation table whose texts do not end"); }
  }

  void check() { entries(offset(units_[0]), 0); }

 private:
  static std::uint32_t read(std::string_view bytes, std::size_t at) {
    std::uint32_t value = 0;
    for (std::size_t i = 4; i-- > 0;) { value = value << 8 | static_cast<unsigned char>(bytes[at + i]); }
    return value;
  }
  static std::uint32_t label(std::uint32_t unit) { return unit & 0x8000'00ffU; }
  static bool has_entry(std::uint32_t unit) { return (unit >> 8 & 1) != 0; }
  static std::uint32_t offset(std::uint32_t unit) { return unit >> 10 << ((unit & 1U << 9) >> 6); }

  /// The most entries that a search finds from a state on. States are shared: each is looked at once. Loops end at the deepest level.
  int entries(std::uint32_t state, int depth) {
    constexpr int deepest = 256, most = 32;
    if (depth > deepest || (state | 0xffU) >= units_.size()) { refuse("a normalisation table that leads out of itself"); }
    auto const known = found_.find(state);
    if (known != found_.end()) { return known->second; }
    int longest = 0;
    for (std::uint32_t byte = 0; byte < 256; ++byte) {
      std::uint32_t const at = state ^ byte, unit = units_[at];
      if (label(unit) != byte) { continue; }
      std::uint32_t const next = at ^ offset(unit);
      int const rest = entries(next, depth + 1);
      if (has_entry(unit)) { check_text(units_[next] & 0x7fff'ffffU); }
      longest = std::max(longest, rest + (has_entry(unit) ? 1 : 0));
    }
    if (longest > most) { refuse("a normalisation table with too many prefixes of one text"); }
    found_.emplace(state, longest);
    return longest;
  }
  void check_text(std::uint32_t at) const {
    constexpr std::size_t most = 1024;
    if (at >= texts_.size() || texts_.find('\0', at) - at > most) { refuse("a normalisation table that leads out of its texts"); }
  }

  std::vector<std::uint32_t> units_;
  std::string_view texts_;
  std::map<std::uint32_t, int> found_;
};

void check_normaliser(std::string_view bytes) {
  message spec(bytes);
  constexpr std::uint32_t precompiled_charsmap = 2;
  for (field f; spec.next(f);) {
    if (f.id == precompiled_charsmap && f.type == field::text && !f.bytes.empty()) { charsmap(f.bytes).check(); }
  }
}

struct piece {
  std::string_view text;
  float score = 0;
  std::uint64_t type = 1;
};

piece read_piece(std::string_view bytes) {
  enum : std::uint32_t { text = 1, score = 2, type = 3 };
  piece p;
  message entry(bytes);
  for (field f; entry.next(f);) {
    if (f.id == text && f.type == field::text) { p.text = f.bytes; }
    if (f.id == score && f.type == field::fixed32) {
      auto const bits = static_cast<std::uint32_t>(f.number);
      std::memcpy(&p.score, &bits, sizeof p.score);
    }
    if (f.id == type && f.type == field::varint) { p.type = f.number; }
  }
  return p;
}

/// SentencePiece has room for 64 pieces of the user's own that begin one another.
void check_chains(std::vector<std::string_view> pieces) {
  constexpr std::size_t most = 64;
  std::sort(pieces.begin(), pieces.end());
  std::vector<std::string_view> chain;
  for (std::string_view const piece : pieces) {
    while (!chain.empty() && piece.substr(0, chain.back().size()) != chain.back()) { chain.pop_back(); }
    chain.push_back(piece);
    if (chain.size() > most) { refuse("more than 64 pieces that begin one another"); }
  }
}

void check_model(std::string_view bytes, std::size_t most_pieces) {
  enum : std::uint32_t { pieces = 1, trainer_spec = 2, normalizer_spec = 3, self_test_data = 4, denormalizer_spec = 5 };
  constexpr std::uint64_t user_defined = 4;
  constexpr std::size_t most_text = 1024;
  std::size_t count = 0;
  std::vector<std::string_view> own;
  message model(bytes);
  for (field f; model.next(f);) {
    bool const is_message = f.type == field::text;
    if (f.id <= denormalizer_spec && !is_message) { refuse("a field of a wrong type"); }
    if (f.id == normalizer_spec || f.id == denormalizer_spec) { check_normaliser(f.bytes); }
    if (f.id != pieces) { continue; }
    piece const p = read_piece(f.bytes);
    std::string const number = "piece " + std::to_string(count);
    if (++count > most_pieces) { refuse("more pieces than the " + std::to_string(most_pieces) + " of vocab_size"); }
    if (p.text.empty() || p.text.size() > most_text || p.text.find('\0') != std::string_view::npos) { refuse(number + " is no text"); }
    if (!std::isfinite(p.score)) { refuse(number + " has a score that is no number"); }
    if (p.type == user_defined) { own.push_back(p.text); }
  }
  if (count == 0) { refuse("no pieces"); }
  check_chains(std::move(own));
}

}  // namespace

void check_sentencepiece(unsigned char const* bytes, std::size_t size, std::size_t most_pieces, std::string const& name) {
  try {
    check_model({reinterpret_cast<char const*>(bytes), size}, most_pieces);
  } catch (input_error const& why) { throw input_error(name + ": not a SentencePiece model: " + why.what()); }
}

}  // namespace llava
