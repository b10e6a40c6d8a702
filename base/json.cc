#include "base/json.h"

#include <algorithm>
#include <cmath>
#include <unordered_set>
#include <vector>

namespace muselet {
namespace {

// The beginning of a text that came from outside, for a message of one line: whole characters of
// valid UTF-8, without control characters.
std::string Shown(std::string_view text, size_t bytes_max) {
  size_t end = std::min(text.size(), bytes_max);
  while (end > 0 && end < text.size() && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) {
    --end;
  }
  std::string shown(text.substr(0, end));
  for (char& letter : shown) {
    if (static_cast<unsigned char>(letter) < ' ' || letter == '\x7F') letter = '?';
  }
  return shown;
}

// Builds the value in one pass and stops at the first limit or duplicate key. nlohmann's own
// builder searches an ordered object for each key it adds, which is quadratic in a hostile object;
// this one knows the keys of the open objects and appends.
class Builder : public nlohmann::json_sax<Json> {
 public:
  explicit Builder(const JsonLimits& limits) : limits_(limits) {}

  bool null() override { return Add(Json()); }
  bool boolean(bool value) override { return Add(Json(value)); }
  bool number_integer(number_integer_t value) override { return Add(Json(value)); }
  bool number_unsigned(number_unsigned_t value) override { return Add(Json(value)); }
  bool number_float(number_float_t value, const string_t& text) override {
    if (!std::isfinite(value)) return Fail("number out of range: " + Shown(text, 32));
    return Add(Json(value));
  }
  bool string(string_t& value) override { return Add(Json(std::move(value))); }
  bool binary(binary_t&) override { return Fail("binary value"); }
  bool start_object(std::size_t) override {
    keys_.emplace_back();
    return Open(Json::object());
  }
  bool end_object() override {
    keys_.pop_back();
    return Close();
  }
  bool start_array(std::size_t) override { return Open(Json::array()); }
  bool end_array() override { return Close(); }
  bool key(string_t& name) override {
    if (!keys_.back().insert(name).second) {
      return Fail("duplicate key \"" + Shown(name, 64) + "\"");
    }
    key_ = std::move(name);
    return Count();
  }
  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    return Fail("not valid JSON at byte " + std::to_string(position));
  }

  Json TakeValue() { return std::move(root_); }
  const std::string& problem() const { return problem_; }

 private:
  bool Count() {
    if (++values_ > limits_.values_max) {
      return Fail("more than " + std::to_string(limits_.values_max) + " values");
    }
    return true;
  }
  bool Add(Json value) {
    Place(std::move(value));
    return Count();
  }
  bool Open(Json empty) {
    if (open_.size() >= limits_.depth_max) {
      return Fail("nested deeper than " + std::to_string(limits_.depth_max) + " levels");
    }
    // Stays valid: a container does not grow while one of its members is open.
    open_.push_back(Place(std::move(empty)));
    return Count();
  }
  bool Close() {
    open_.pop_back();
    return true;
  }
  Json* Place(Json value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    if (auto* array = open_.back()->get_ptr<Json::array_t*>()) {
      return &array->emplace_back(std::move(value));
    }
    Json::object_t& object = *open_.back()->get_ptr<Json::object_t*>();
    object.push_back({std::move(key_), std::move(value)});
    return &object.back().second;
  }
  bool Fail(std::string problem) {
    problem_ = std::move(problem);
    return false;
  }

  JsonLimits limits_;
  Json root_;
  std::vector<Json*> open_;
  std::string key_;  // of the member that comes next
  size_t values_ = 0;
  std::vector<std::unordered_set<std::string>> keys_;
  std::string problem_;
};

Status WrongType(std::string_view where, std::string_view key, std::string_view expected,
                 const Json& value) {
  return InvalidArgument(std::string(where) + ": " + std::string(key) + ": expected " +
                         std::string(expected) + ", got " + value.type_name());
}

}  // namespace

Result<Json> ParseJson(std::string_view text, const JsonLimits& limits) {
  // The library takes a NUL byte for the end of its input.
  if (text.find('\0') != std::string_view::npos) return InvalidArgument("not valid JSON: NUL byte");
  Builder builder(limits);
  if (!Json::sax_parse(text.begin(), text.end(), &builder)) {
    return InvalidArgument(builder.problem().empty() ? "not valid JSON" : builder.problem());
  }
  return builder.TakeValue();
}

std::string WriteJson(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

void AppendJsonString(std::string_view text, std::string& out) {
  out += Json(text).dump(-1, ' ', false, Json::error_handler_t::replace);
}

const Json* FindMember(const Json& object, std::string_view key) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return nullptr;
  return &*found;
}

Result<int64_t> GetInt(const Json& object, std::string_view key, int64_t fallback,
                       std::string_view where) {
  const Json* value = FindMember(object, key);
  if (value == nullptr) return fallback;
  if (value->is_number_unsigned() && value->get<uint64_t>() > uint64_t{INT64_MAX}) {
    return InvalidArgument(std::string(where) + ": " + std::string(key) + ": number too large");
  }
  if (!value->is_number_integer()) return WrongType(where, key, "an integer", *value);
  return value->get<int64_t>();
}

Result<double> GetDouble(const Json& object, std::string_view key, double fallback,
                         std::string_view where) {
  const Json* value = FindMember(object, key);
  if (value == nullptr) return fallback;
  if (!value->is_number()) return WrongType(where, key, "a number", *value);
  return value->get<double>();
}

Result<bool> GetBool(const Json& object, std::string_view key, bool fallback,
                     std::string_view where) {
  const Json* value = FindMember(object, key);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) return WrongType(where, key, "true or false", *value);
  return value->get<bool>();
}

Result<std::string> GetString(const Json& object, std::string_view key, std::string_view fallback,
                              std::string_view where) {
  const Json* value = FindMember(object, key);
  if (value == nullptr) return std::string(fallback);
  if (!value->is_string()) return WrongType(where, key, "a string", *value);
  return value->get<std::string>();
}

}  // namespace muselet
