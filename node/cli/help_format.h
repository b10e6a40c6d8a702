// How --help looks: one paragraph an option, wrapped, with its default and its variable.
#pragma once

#include <memory>
#include <string>

namespace CLI {
class FormatterBase;
}

namespace muselet {

std::shared_ptr<CLI::FormatterBase> MakeHelpFormat();

// `text` broken at spaces into lines of at most `width` columns, each after `indent` spaces.
std::string WrapText(const std::string& text, size_t indent, size_t width);

}  // namespace muselet
