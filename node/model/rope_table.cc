#include "node/model/rope_table.h"

#include <cmath>
#include <numbers>

namespace muselet {
namespace {

// Long wavelengths are stretched by `factor`, short ones are kept, those between are blended.
double ScaleLlama3(const RopeSpec& spec, double frequency) {
  const double original = spec.original_context;
  const double wavelength = 2.0 * std::numbers::pi / frequency;
  if (wavelength < original / spec.high_freq_factor) return frequency;
  if (wavelength > original / spec.low_freq_factor) return frequency / spec.factor;
  const double smooth = (original / wavelength - spec.low_freq_factor) /
                        (spec.high_freq_factor - spec.low_freq_factor);
  return (1.0 - smooth) * frequency / spec.factor + smooth * frequency;
}

}  // namespace

std::vector<float> RopeFrequencies(const RopeSpec& spec) {
  std::vector<float> frequencies(spec.rotary_dim / 2);
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const double exponent = static_cast<double>(2 * i) / spec.rotary_dim;
    double frequency = static_cast<float>(std::pow(spec.theta, -exponent));
    if (spec.scaling == RopeScaling::kLlama3) frequency = ScaleLlama3(spec, frequency);
    if (spec.scaling == RopeScaling::kLinear) frequency /= spec.factor;
    if (!spec.frequency_divisors.empty()) frequency /= spec.frequency_divisors[i];
    frequencies[i] = static_cast<float>(frequency);
  }
  return frequencies;
}

bool SameAngles(const RopeSpec& a, const RopeSpec& b) {
  return a.rotary_dim == b.rotary_dim && RopeFrequencies(a) == RopeFrequencies(b);
}

void FillRopeAngles(std::span<const float> frequencies, std::span<const RowPlace> places,
                    float* cosine, float* sine) {
  for (const RowPlace& place : places) {
    for (const float frequency : frequencies) {
      const float angle = static_cast<float>(place.position) * frequency;
      *cosine++ = static_cast<float>(std::cos(static_cast<double>(angle)));
      *sine++ = static_cast<float>(std::sin(static_cast<double>(angle)));
    }
  }
}

}  // namespace muselet
