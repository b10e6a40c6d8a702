#include "node/cli/help_format.h"

#include <CLI/CLI.hpp>
#include <sstream>

namespace muselet {
namespace {

constexpr size_t kWidth = 96;
constexpr size_t kIndent = 6;

class HelpFormat final : public CLI::Formatter {
 public:
  std::string make_option(const CLI::Option* option, bool is_positional) const override {
    std::string head = "  " + option->get_name(is_positional, !is_positional);
    const std::string type = option->get_type_name();
    if (!is_positional && !type.empty()) head += " " + type;
    return head + "\n" + WrapText(option->get_description(), kIndent, kWidth);
  }
  std::string make_subcommand(const CLI::App* command) const override {
    constexpr size_t kNameColumns = 12;
    std::string name = "  " + command->get_name();
    name.resize(std::max(name.size() + 1, kNameColumns), ' ');
    const std::string description = command->get_description();
    return name + description.substr(0, description.find('\n')) + "\n";
  }
};

}  // namespace

std::string WrapText(const std::string& text, size_t indent, size_t width) {
  std::istringstream words(text);
  std::string wrapped;
  std::string line;
  for (std::string word; words >> word;) {
    if (!line.empty() && indent + line.size() + 1 + word.size() > width) {
      wrapped += std::string(indent, ' ') + line + "\n";
      line.clear();
    }
    line += (line.empty() ? "" : " ") + word;
  }
  return wrapped + std::string(indent, ' ') + line + "\n";
}

std::shared_ptr<CLI::FormatterBase> MakeHelpFormat() {
  return std::make_shared<HelpFormat>();
}

}  // namespace muselet
