#include "base/json.h"

#include <algorithm>
#include <iterator>
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

// "line 1, column 5, byte 4".
std::string JsonPlace(std::string_view text, size_t byte) {
  const std::string_view before = text.substr(0, byte);
  const auto lines = std::count(before.begin(), before.end(), '\n');
  const size_t line_begin = before.rfind('\n') + 1;  // npos + 1 = 0
  return "line " + std::to_string(lines + 1) + ", column " + std::to_string(byte - line_begin + 1) +
         ", byte " + std::to_string(byte);
}

// Walks over the text and lets others see how far it was read.
class Reader {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  Reader(const char* at, const char** seen) : at_(at), seen_(seen) {}
  reference operator*() const { return *at_; }
  Reader& operator++() {
    *seen_ = ++at_;
    return *this;
  }
  Reader operator++(int) {
    Reader before = *this;
    ++*this;
    return before;
  }
  bool operator==(const Reader& other) const { return at_ == other.at_; }
  bool operator!=(const Reader& other) const { return at_ != other.at_; }

 private:
  const char* at_;
  const char** seen_;
};

// What nlohmann says of a fault, without its frame: "[...] parse error at line 1, column 2: syntax
// error while parsing value - invalid literal; last read: 'x'" gives "invalid literal".
std::string BareProblem(std::string_view said) {
  const size_t last_read = said.rfind("; last read: ");
  if (last_read != std::string_view::npos) said = said.substr(0, last_read);
  const size_t begin = said.find(" - ");
  return begin == std::string_view::npos ? "malformed" : Shown(said.substr(begin + 3), 200);
}

// Builds the value in one pass and stops at the first limit or duplicate key. nlohmann's own
// builder searches an ordered object for each key it adds, which is quadratic in a hostile object;
// this one knows the keys of the open objects and appends.
class Builder : public nlohmann::json_sax<Json> {
 public:
  // `read` is where the lexer stands in `text`.
  Builder(const JsonLimits& limits, std::string_view text, const char* const* read)
      : limits_(limits), text_(text), read_(read) {}

  bool null() override { return Add(Json()); }
  bool boolean(bool value) override { return Add(Json(value)); }
  bool number_integer(number_integer_t value) override { return Add(Json(value)); }
  bool number_unsigned(number_unsigned_t value) override { return Add(Json(value)); }
  bool number_float(number_float_t value, const string_t&) override { return Add(Json(value)); }
  bool string(string_t& value) override { return Add(Json(std::move(value))); }
  bool binary(binary_t&) override { return Fail("binary value", LastRead()); }
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
      fault_key_ = Shown(name, 64);
      return Fail("duplicate key \"" + fault_key_ + "\"", KeyBegin());
    }
    if (open_.size() == 1) outermost_key_ = name;
    key_ = std::move(name);
    return Count();
  }
  // `position` counts what was read, the end of the text included.
  bool parse_error(std::size_t position, const std::string& token,
                   const nlohmann::detail::exception& fault) override {
    const size_t last = std::min(position == 0 ? 0 : position - 1, text_.size());
    constexpr int kOutOfRange = 406;
    if (fault.id != kOutOfRange) return Fail("not valid JSON: " + BareProblem(fault.what()), last);
    fault_key_ = Shown(outermost_key_, 64);
    return Fail("number out of range: " + Shown(token, 32),
                last + 1 - std::min(last + 1, token.size()));
  }

  Json TakeValue() { return std::move(root_); }
  const std::string& problem() const { return problem_; }
  const std::string& fault_key() const { return fault_key_; }

 private:
  bool Count() {
    if (++values_ > limits_.values_max) {
      return Fail("more than " + std::to_string(limits_.values_max) + " values", LastRead());
    }
    return true;
  }
  bool Add(Json value) {
    Place(std::move(value));
    return Count();
  }
  bool Open(Json empty) {
    if (open_.size() >= limits_.depth_max) {
      fault_key_ = Shown(outermost_key_, 64);
      return Fail("nested deeper than " + std::to_string(limits_.depth_max) + " levels",
                  LastRead());
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
  size_t LastRead() const {
    const auto read = static_cast<size_t>(*read_ - text_.data());
    return read == 0 ? 0 : read - 1;
  }
  // The opening quote of the key whose closing quote was read last.
  size_t KeyBegin() const {
    size_t at = LastRead();
    while (at > 0) {
      --at;
      size_t slashes = 0;
      while (slashes < at && text_[at - 1 - slashes] == '\\') ++slashes;
      if (text_[at] == '"' && slashes % 2 == 0) break;
    }
    return at;
  }
  bool Fail(const std::string& problem, size_t byte) {
    problem_ = problem + " (" + JsonPlace(text_, byte) + ")";
    return false;
  }

  JsonLimits limits_;
  std::string_view text_;
  const char* const* read_;
  Json root_;
  std::vector<Json*> open_;
  std::string key_;  // of the member that comes next
  size_t values_ = 0;
  std::vector<std::unordered_set<std::string>> keys_;
  std::string outermost_key_;
  std::string fault_key_;
  std::string problem_;
};

Status WrongType(std::string_view where, std::string_view key, std::string_view expected,
                 const Json& value) {
  return InvalidArgument(std::string(where) + ": " + std::string(key) + ": expected " +
                         std::string(expected) + ", got " + value.type_name());
}

}  // namespace

Result<Json> ParseJson(std::string_view text, const JsonLimits& limits, std::string* fault_key) {
  // The library takes a NUL byte for the end of its input.
  const size_t nul = text.find('\0');
  if (nul != std::string_view::npos)
    return InvalidArgument("not valid JSON: a NUL byte (" + JsonPlace(text, nul) + ")");
  const char* read = text.data();
  Builder builder(limits, text, &read);
  const Reader begin(text.data(), &read);
  const Reader end(text.data() + text.size(), &read);
  if (!Json::sax_parse(begin, end, &builder)) {
    if (fault_key != nullptr) *fault_key = builder.fault_key();
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
