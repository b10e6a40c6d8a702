// GPT-2's printable alphabet for bytes: vocabularies of byte-level BPE spell each byte as one
// character (Radford et al. 2019, encoder.py, bytes_to_unicode).
//
// Pure functions; any thread.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace muselet {

// The character of each byte.
std::array<char32_t, 256> ByteLevelAlphabet();
// Appends the bytes that `spelled` stands for. If a character is not of the alphabet, the whole
// piece stands for itself (as Hugging Face's ByteLevel decoder has it) and the answer is false.
// REQUIRES: valid UTF-8.
bool AppendByteLevelDecoded(std::string_view spelled, std::string& out);

}  // namespace muselet
