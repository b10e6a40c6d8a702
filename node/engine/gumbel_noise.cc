#include "node/engine/gumbel_noise.h"

#include "base/philox.h"
#include "node/engine/portable_math.h"

namespace muselet {
namespace {

uint32_t Word(const GumbelNoise::Key& key, TokenId id) {
  return Philox4x32({static_cast<uint32_t>(id), key.position, key.choice, 0}, key.seed)[0];
}

double NoiseOf(uint32_t word) {
  const double u = (word + 0.5) * 0x1p-32;
  return -PortableLog(-PortableLog(u));
}

}  // namespace

GumbelNoise::GumbelNoise() {
  for (int n = 0; n < kSteps; ++n) {
    // noise(u) = n at u = exp(-exp(-n)); a margin covers the rounding of both directions.
    const double word = PortableExp(-PortableExp(-static_cast<double>(n))) * 0x1p32 - 16.0;
    word_floor_[n] = static_cast<uint32_t>(word);
  }
}

double GumbelNoise::Draw(const Key& key, TokenId id) {
  return NoiseOf(Word(key, id));
}

double GumbelNoise::DrawIfAbove(const Key& key, TokenId id, double least) const {
  const uint32_t word = Word(key, id);
  if (least >= 0) {
    const int n = least < kSteps - 1 ? static_cast<int>(least) : kSteps - 1;
    if (word < word_floor_[n]) return kMin;
  }
  return NoiseOf(word);
}

}  // namespace muselet
