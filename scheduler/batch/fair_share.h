// Fairness among surfaces of one class: the surface that was served the fewest tokens goes next
// (virtual token counter, Sheng et al., "Fairness in Serving Large Language Models", OSDI'24).
// A surface that comes back after a pause is lifted to the least counter of those that stayed, so
// that idling earns no credit. Weights divide what is charged. Step thread only.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace muselet {

class FairShare {
 public:
  // What a surface was served so far; there is one for as long as it has sequences.
  struct Account {
    double served = 0;
    double weight = 1;
    bool weighted = false;  // by SetWeight: the account outlives its sequences
    uint32_t sequences = 0;
    void Charge(uint64_t tokens) { served += static_cast<double>(tokens) / weight; }
  };

  // A sequence of the surface arrived, or left for good. Its weight is from now on the surface's,
  // unless SetWeight was called. The account stays where it is until the sequence left.
  Account* Enter(const std::string& surface, double weight = 1);
  void Leave(const std::string& surface);
  void Charge(const std::string& surface, uint64_t tokens);
  double Served(const std::string& surface) const;
  // A surface of weight 2 gets twice the tokens of one of weight 1. REQUIRES: weight > 0.
  void SetWeight(const std::string& surface, double weight);

 private:
  std::map<std::string, Account, std::less<>> accounts_;
  double floor_ = 0;  // the last known least counter
};

}  // namespace muselet
