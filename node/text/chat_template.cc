#include "node/text/chat_template.h"

#include "node/text/jinja/interpreter.h"
#include "node/text/jinja/parser.h"
#include "node/text/utf8.h"

namespace muselet {
namespace {

constexpr size_t kSourceBytesMax = 1 << 20;

// Values of a client: every string is tainted, keys included.
jinja::Value FromJson(const Json& json) {
  switch (json.type()) {
    case Json::value_t::boolean:
      return jinja::Value(json.get<bool>());
    case Json::value_t::number_integer:
      return jinja::Value(json.get<int64_t>());
    case Json::value_t::number_unsigned: {
      const auto number = json.get<uint64_t>();
      if (number > static_cast<uint64_t>(INT64_MAX))
        return jinja::Value(static_cast<double>(number));
      return jinja::Value(static_cast<int64_t>(number));
    }
    case Json::value_t::number_float:
      return jinja::Value(json.get<double>());
    case Json::value_t::string:
      return jinja::Value(jinja::Text(json.get<std::string>(), true));
    case Json::value_t::array: {
      std::vector<jinja::Value> items;
      items.reserve(json.size());
      for (const Json& item : json) items.push_back(FromJson(item));
      return jinja::MakeList(std::move(items));
    }
    case Json::value_t::object: {
      std::vector<std::pair<jinja::Value, jinja::Value>> items;
      items.reserve(json.size());
      for (const auto& [key, value] : json.items()) {
        items.emplace_back(jinja::Text(key, true), FromJson(value));
      }
      return jinja::MakeDistinctDict(std::move(items));
    }
    default:
      return jinja::Value(jinja::None{});
  }
}

class JinjaChatTemplate : public ChatTemplate {
 public:
  explicit JinjaChatTemplate(std::unique_ptr<jinja::Template> parsed)
      : template_(std::move(parsed)) {}

  Result<RenderedPrompt> Render(const ChatTemplateInput& input) const override {
    jinja::Interpreter interpreter(*template_, jinja::Limits(), input.now_unix_us);
    const auto set = [&](std::string_view name, jinja::Value value) {
      interpreter.SetGlobal(name, std::move(value));
    };
    set("messages", FromJson(input.messages));
    set("tools", FromJson(input.tools));
    set("documents", FromJson(input.documents));
    set("add_generation_prompt", jinja::Value(input.add_generation_prompt));
    set("bos_token", jinja::Value::String(input.bos_token));
    set("eos_token", jinja::Value::String(input.eos_token));
    if (input.kwargs.is_object()) {
      for (const auto& [name, value] : input.kwargs.items()) set(name, FromJson(value));
    }
    ASSIGN_OR_RETURN(const jinja::Text text, interpreter.Render());
    return RenderedPrompt{text.bytes(), text.tainted()};
  }

 private:
  std::unique_ptr<jinja::Template> template_;
};

}  // namespace

Result<std::unique_ptr<ChatTemplate>> ChatTemplate::Parse(std::string_view source) {
  if (source.size() > kSourceBytesMax) return InvalidArgument("template is larger than 1 MiB");
  if (!IsValidUtf8(source)) return InvalidArgument("template is not valid UTF-8");
  auto parsed = jinja::ParseTemplate(source);
  // Faults quote the source, which may hold anything.
  if (!parsed.ok()) return Status(parsed.status().code(), OneLine(parsed.status().message()));
  return {std::make_unique<JinjaChatTemplate>(std::move(parsed).value())};
}

}  // namespace muselet
