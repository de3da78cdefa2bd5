// SPDX-License-Identifier: Apache-2.0
#pragma once

// SentencePiece trusts its model file: damaged normalisation tables make it read out of bounds. So files are looked through before it gets them.

#include <cstddef>
#include <string>

namespace llava {

/// Refuses what is no ModelProto of at most `most_pieces` pieces that SentencePiece can be given. `name` is what messages begin with.
void check_sentencepiece(unsigned char const* bytes, std::size_t size, std::size_t most_pieces, std::string const& name);

}  // namespace llava
