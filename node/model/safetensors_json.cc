#include "node/model/safetensors_json.h"

#include <algorithm>

#include "base/json.h"
#include "node/model/file_fault.h"

namespace muselet {
namespace {

constexpr size_t kDepthMax = 8;
constexpr size_t kNameBytesMax = 512;
constexpr size_t kClaimsMax = 1'000'000;

// What the two texts share: the path of keys to the current value, and the fault. A subclass sees
// each scalar with its path; containers only where it says so.
class StreamReader : public nlohmann::json_sax<Json> {
 public:
  const std::string& problem() const { return problem_; }

  bool null() override { return Fail("null is not allowed here"); }
  bool boolean(bool) override { return Fail("true or false is not allowed here"); }
  bool number_integer(number_integer_t) override { return Fail("a negative number"); }
  bool number_float(number_float_t, const string_t&) override { return Fail("not an integer"); }
  bool number_unsigned(number_unsigned_t value) override { return Number(value); }
  bool string(string_t& text) override { return Text(text); }
  bool binary(binary_t&) override { return Fail("binary value"); }
  bool start_object(std::size_t) override { return Open(/*array=*/false); }
  bool end_object() override { return Close(); }
  bool start_array(std::size_t) override { return Open(/*array=*/true); }
  bool end_array() override { return Close(); }
  bool key(string_t& name) override {
    if (name.size() > kNameBytesMax)
      return Fail("a name of " + std::to_string(name.size()) + " bytes");
    keys_.back() = name;
    return Key();
  }
  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    problem_ = "header: not valid JSON at byte " + std::to_string(position);
    return false;
  }

 protected:
  virtual bool Number(uint64_t value) = 0;
  virtual bool Text(const std::string& text) = 0;
  virtual bool Key() { return true; }
  // A container opens at depth() (1 = the outermost), or closes that was there.
  virtual bool Opened(bool array) = 0;
  virtual bool Closed() { return true; }

  size_t depth() const { return keys_.size(); }
  // The key that is being read at a depth from 1; "" in an array.
  const std::string& KeyAt(size_t depth) const { return keys_[depth - 1]; }

  bool Fail(const std::string& problem) {
    for (const std::string& key : keys_) {
      if (!key.empty()) problem_ += Printable(key) + ": ";
    }
    if (problem_.empty()) problem_ = "header: ";
    problem_ += problem;
    return false;
  }

 private:
  bool Open(bool array) {
    if (keys_.size() == kDepthMax) return Fail("nested too deep");
    keys_.emplace_back();
    return Opened(array);
  }
  bool Close() {
    if (!Closed()) return false;
    keys_.pop_back();
    return true;
  }

  std::vector<std::string> keys_;
  std::string problem_;
};

class HeaderReader : public StreamReader {
 public:
  std::vector<SafetensorsClaim> claims;

 protected:
  bool InMetadata() const { return depth() >= 2 && KeyAt(1) == "__metadata__"; }

  bool Opened(bool array) override {
    switch (depth()) {
      case 1:
        return !array || Fail("expected an object");
      case 2:
        if (array) return Fail("expected an object");
        return InMetadata() || Begin();
      case 3:
        if (InMetadata() || !array) return Fail("not allowed here");
        return BeginArray();
      default:
        return Fail("nested too deep");
    }
  }

  bool Closed() override {
    if (depth() == 3 && KeyAt(2) == "data_offsets" && array_size_ != 2) {
      return Fail("must be [begin, end]");
    }
    if (depth() == 2 && !InMetadata() && seen_ != (kDTypeSeen | kShapeSeen | kOffsetsSeen)) {
      return Fail("needs dtype, shape and data_offsets");
    }
    return true;
  }

  bool Key() override {
    if (depth() != 2 || InMetadata()) return true;
    const std::string& name = KeyAt(2);
    const unsigned bit = name == "dtype"          ? kDTypeSeen
                         : name == "shape"        ? kShapeSeen
                         : name == "data_offsets" ? kOffsetsSeen
                                                  : 0;
    if (bit == 0) return Fail("unknown field");
    if ((seen_ & bit) != 0) return Fail("stands twice");
    seen_ |= bit;
    return true;
  }

  bool Text(const std::string& text) override {
    if (InMetadata()) return true;
    if (depth() != 2 || KeyAt(2) != "dtype") return Fail("a string is not allowed here");
    claims.back().dtype = text.substr(0, kNameBytesMax);
    return true;
  }

  bool Number(uint64_t value) override {
    if (depth() != 3 || InMetadata()) return Fail("a number is not allowed here");
    SafetensorsClaim& claim = claims.back();
    const size_t index = array_size_++;
    if (KeyAt(2) == "shape") {
      if (index >= claim.shape.size()) return Fail("more than 4 dimensions");
      claim.shape[index] = value;
      claim.rank = static_cast<uint32_t>(array_size_);
      return true;
    }
    if (index >= 2) return Fail("must be [begin, end]");
    (index == 0 ? claim.begin : claim.end) = value;
    return true;
  }

 private:
  static constexpr unsigned kDTypeSeen = 1;
  static constexpr unsigned kShapeSeen = 2;
  static constexpr unsigned kOffsetsSeen = 4;

  bool Begin() {
    if (claims.size() == kClaimsMax) return Fail("too many tensors");
    claims.emplace_back().name = KeyAt(1);
    seen_ = 0;
    return true;
  }
  bool BeginArray() {
    if (KeyAt(2) == "dtype") return Fail("expected a string");
    array_size_ = 0;
    return true;
  }

  unsigned seen_ = 0;
  size_t array_size_ = 0;
};

class IndexReader : public StreamReader {
 public:
  std::vector<ShardClaim> claims;

 protected:
  bool InMap() const { return depth() == 2 && KeyAt(1) == "weight_map"; }
  bool Opened(bool array) override {
    if (depth() == 1 || InMap()) return !array || Fail("expected an object");
    return KeyAt(1) != "weight_map" || Fail("expected a file name");
  }
  bool Text(const std::string& text) override {
    if (!InMap()) return true;
    if (claims.size() == kClaimsMax) return Fail("too many tensors");
    if (text.size() > kNameBytesMax) return Fail("a file name that is too long");
    claims.push_back({KeyAt(2), text});
    return true;
  }
  bool Number(uint64_t) override { return !InMap() || Fail("expected a file name"); }
  bool number_float(number_float_t, const string_t&) override { return Number(0); }
  bool boolean(bool) override { return Number(0); }
};

Status ReadStream(std::string_view text, StreamReader& reader) {
  // The library takes a NUL byte for the end of its input.
  if (text.find('\0') != std::string_view::npos) {
    return DataLoss("header: not valid JSON: NUL byte");
  }
  if (!Json::sax_parse(text.begin(), text.end(), &reader)) return DataLoss(reader.problem());
  return OkStatus();
}

}  // namespace

Result<std::vector<SafetensorsClaim>> ParseSafetensorsHeader(std::string_view text) {
  if (!text.starts_with('{')) return DataLoss("header: does not begin with '{'");
  HeaderReader reader;
  RETURN_IF_ERROR(ReadStream(text, reader));
  return std::move(reader.claims);
}

Result<std::vector<ShardClaim>> ParseSafetensorsIndex(std::string_view text) {
  IndexReader reader;
  RETURN_IF_ERROR(ReadStream(text, reader));
  return std::move(reader.claims);
}

}  // namespace muselet
