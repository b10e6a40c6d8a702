#include "node/simulate/trace.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>
#include <string_view>
#include <utility>

#include "base/json.h"
#include "scheduler/sim/sim_random.h"

namespace muselet {
namespace {

constexpr uint64_t kTokensMax = 10'000'000;  // of one prompt or answer

template <typename T>
bool TakeNumber(std::string_view text, T* value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *value);
  return error == std::errc() && end == text.data() + text.size();
}

// Days since 1970-01-01 of a date of the Gregorian calendar.
int64_t DaysOf(int64_t year, int64_t month, int64_t day) {
  const int64_t shifted = year - (month <= 2 ? 1 : 0);
  const int64_t era = shifted / 400;
  const int64_t year_of_era = shifted - era * 400;
  const int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
  const int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
  return era * 146'097 + day_of_era - 719'468;
}

// "2023-11-16 18:15:46.6805900"
bool TakeTime(std::string_view text, int64_t* time_us) {
  int64_t year = 0;
  int64_t month = 0;
  int64_t day = 0;
  int64_t hour = 0;
  int64_t minute = 0;
  double seconds = 0;
  const bool parts = text.size() >= 19 && TakeNumber(text.substr(0, 4), &year) &&
                     TakeNumber(text.substr(5, 2), &month) && TakeNumber(text.substr(8, 2), &day) &&
                     TakeNumber(text.substr(11, 2), &hour) &&
                     TakeNumber(text.substr(14, 2), &minute) &&
                     TakeNumber(text.substr(17), &seconds);
  if (!parts || year < 1970 || month < 1 || month > 12) return false;
  *time_us = ((DaysOf(year, month, day) * 24 + hour) * 60 + minute) * 60'000'000 +
             static_cast<int64_t>(seconds * 1e6);
  return true;
}

bool TakeCsvLine(std::string_view line, TraceRequest* request, uint64_t* prompt, uint64_t* output) {
  const size_t first = line.find(',');
  const size_t second = first == line.npos ? line.npos : line.find(',', first + 1);
  return second != line.npos && TakeTime(line.substr(0, first), &request->arrival_us) &&
         TakeNumber(line.substr(first + 1, second - first - 1), prompt) &&
         TakeNumber(line.substr(second + 1), output);
}

bool TakeJsonLine(std::string_view line, TraceRequest* request, uint64_t* prompt,
                  uint64_t* output) {
  const Result<Json> json = ParseJson(line);
  if (!json.ok() || !json->is_object()) return false;
  const auto number = [&](const char* key, auto* value) {
    const auto found = json->find(key);
    if (found == json->end() || !found->is_number() || found->get<double>() < 0) return false;
    *value = found->get<std::remove_pointer_t<decltype(value)>>();
    return true;
  };
  double milliseconds = 0;
  if (!number("timestamp", &milliseconds) || !number("input_length", prompt) ||
      !number("output_length", output))
    return false;
  request->arrival_us = static_cast<int64_t>(milliseconds * 1e3);
  if (const auto ids = json->find("hash_ids"); ids != json->end()) {
    if (!ids->is_array()) return false;
    for (const Json& id : *ids) {
      if (!id.is_number_unsigned()) return false;
      request->prefix.push_back(id.get<uint64_t>());
    }
  }
  return true;
}

uint32_t Scaled(uint64_t tokens, double scale) {
  return static_cast<uint32_t>(std::max(1.0, std::round(static_cast<double>(tokens) * scale)));
}

}  // namespace

Result<std::vector<TraceRequest>> ReadTrace(const std::string& path, const TraceOptions& options) {
  std::ifstream file(path);
  if (!file) return NotFound(path + ": cannot be read");
  std::vector<TraceRequest> requests;
  std::string line;
  for (size_t number = 1; std::getline(file, line) && requests.size() < options.requests_max;
       ++number) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (line.empty() || (number == 1 && line.rfind("TIMESTAMP", 0) == 0)) continue;
    TraceRequest request;
    uint64_t prompt = 0;
    uint64_t output = 0;
    const bool taken = line.front() == '{' ? TakeJsonLine(line, &request, &prompt, &output)
                                           : TakeCsvLine(line, &request, &prompt, &output);
    if (!taken || prompt > kTokensMax || output > kTokensMax) {
      return InvalidArgument(path + ":" + std::to_string(number) +
                             ": expected TIMESTAMP,ContextTokens,GeneratedTokens or a JSON object "
                             "with timestamp, input_length and output_length");
    }
    request.prompt_tokens = Scaled(prompt, options.length_scale);
    request.output_tokens = Scaled(output, options.length_scale);
    requests.push_back(std::move(request));
  }
  if (requests.empty()) return InvalidArgument(path + ": holds no requests");
  std::stable_sort(
      requests.begin(), requests.end(),
      [](const TraceRequest& a, const TraceRequest& b) { return a.arrival_us < b.arrival_us; });
  const int64_t first_us = requests.front().arrival_us;
  for (TraceRequest& request : requests) request.arrival_us -= first_us;
  return requests;
}

std::vector<TokenId> TracePrompt(const TraceRequest& request, uint64_t index, uint32_t vocab) {
  std::vector<TokenId> prompt(request.prompt_tokens);
  for (uint32_t i = 0; i < prompt.size(); ++i) {
    const uint32_t block = i / kTraceBlockTokens;
    const uint64_t name = block < request.prefix.size()
                              ? request.prefix[block] << 20
                              : MixBits(index + 0x5851F42D4C957F2DULL) | 1;
    prompt[i] = static_cast<TokenId>(MixBits(name + i) % vocab);
  }
  return prompt;
}

}  // namespace muselet
