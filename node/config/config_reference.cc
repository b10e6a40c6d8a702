#include "node/config/config_reference.h"

#include "node/config/cluster_sections.h"
#include "node/config/config_loader.h"
#include "node/config/option_table.h"

namespace muselet {
namespace {

constexpr const char* kIntroduction =
    R"(# Configuration

This page is made by `muselet config reference`; do not edit it by hand.

One YAML file describes the whole cluster: `muselet serve --config FILE` runs all of it in one
process, `muselet run --config FILE --name N` runs one gateway, scheduler or node of it. The least
file names a model:

```yaml
models:
  - path: /models/SmolLM2-135M-Instruct.gguf
```

- **Precedence**: a flag wins over a `MUSELET_*` variable, a variable over the file, the file over
  the default. `muselet config show --effective` prints every value and where it came from.
- **Flags and variables** follow from the key: `gateway.http.body_bytes_max` is
  `--gateway-http-body-bytes-max` and `MUSELET_GATEWAY_HTTP_BODY_BYTES_MAX`. `MUSELET_CONFIG`
  names the file. Entries of lists are set in the file only.
- **Sizes** are bytes: `4096`, `"64KiB"`, `"256MiB"`, `"1.5GiB"` (KiB = 1024 bytes, kB = 1000).
- **Times** carry a unit: `"250us"`, `"500ms"`, `"2s"`, `"5m"`, `"1h"`; a plain number is
  milliseconds.
- **Paths** in the file start from the file's directory, those of flags and variables from the
  current one.
- **Faults** are found before anything starts, all at once, as `file:line:column: key: problem
  (hint)`, with exit code 2. `muselet config check FILE` looks for them without starting anything.
  Unknown keys, keys given twice, anchors, aliases, tags and second documents are faults.
- **Editors** complete and check the file with `schema.json` in this directory, by a first line
  such as `# yaml-language-server: $schema=schema.json`.
- **Exposure**: an HTTP address other than loopback needs keys for every surface. Wires between
  the processes that leave the machine need keys too, or `insecure: true` for a network that is
  trusted.
- **Keys of the wires**: `muselet keys generate --out NAME` writes `NAME.key` (secret) and
  `NAME.pub`. The simplest cluster has one pair: copy the `.key` to every machine and name it as
  `security.key_file`. With a pair for each machine, name its own `.key` there (or in
  `MUSELET_SECURITY_KEY_FILE`), and write the public keys into the entries as `public_key`, in
  quotes. Processes that the file does not name are admitted by `security.known_keys_file`, front
  ends that use a gateway's `rpc` by `security.front_end_keys_file`: files of `.pub` lines. A front
  end connects with its own secret key and the gateway's public one. Only known keys are admitted;
  what others send is not read.
- **Tensors between hosts** are not covered by those keys: the ranks of a replica that stand on
  different machines send each other tensors in plain TCP, so they need a network that nobody else
  can reach, and `ranks.private_network: true` says that it is one (`insecure: true` does too).
- **Sharding**: a replica with `tensor` and `pipeline` is that many ranks, rank = stage x tensor +
  tensor rank; each takes a device of its own, in the order of the nodes of `on` and of their
  `devices`. `muselet model inspect --tensor N --pipeline N` shows which sizes a model allows.
)";

// Markdown tables end a cell at '|'.
std::string Cell(const std::string& text) {
  std::string cell;
  for (const char c : text) {
    if (c == '|') cell += '\\';
    cell += c;
  }
  return cell;
}

std::string Code(const std::string& text) {
  return text.empty() ? "" : "`" + Cell(text) + "`";
}

std::string ValuesOf(const FieldSpec& spec) {
  const std::string range = DescribeRange(spec);
  return range.empty() ? Placeholder(spec) : range;
}

template <typename Entry>
void AppendSection(const Section<Entry>& section, std::string& page) {
  page += "\n### `" + section.name + "`\n\n" + section.meaning + ".";
  if (!section.when_missing.empty()) page += " Without this list: " + section.when_missing + ".";
  page += "\n\n| key | meaning | values | default |\n|---|---|---|---|\n";
  for (const Field<Entry>& field : section.fields) {
    const FieldSpec& spec = field.spec;
    std::string fallback = spec.required ? "required" : Cell(spec.default_text);
    if (fallback.empty()) fallback = Code(FormatValue(spec, field.get(Entry())));
    page += "| " + Code(spec.key) + " | " + Cell(spec.meaning) + " | " + Cell(ValuesOf(spec)) +
            " | " + fallback + " |\n";
  }
}

void AppendOptions(std::string& page) {
  const ClusterConfig defaults;
  std::string group;
  for (const Option& option : OptionTable()) {
    const FieldSpec& spec = option.field.spec;
    if (option.group != group) {
      group = option.group;
      page += "\n### " + group + "\n\n| key | meaning | values | default |\n|---|---|---|---|\n";
    }
    page += "| " + Code(spec.key) + " | " + Cell(spec.meaning) + " | " + Cell(ValuesOf(spec)) +
            " | " + Code(FormatValue(spec, option.field.get(defaults))) + " |\n";
  }
}

}  // namespace

std::string ConfigReference() {
  std::string page = kIntroduction;
  page += "\n## Entries\n";
  VisitSections([&](const auto& section) { AppendSection(section, page); });
  page += "\n## Shortcuts\n\nOnly as flags and variables.\n\n";
  page += "| flag | variable | meaning |\n|---|---|---|\n";
  for (const FieldSpec& spec : ShortcutTable()) {
    const bool positional = spec.key == "model";
    page += "| " + Code(positional ? "serve PATH" : FlagOf(spec.key) + " " + Placeholder(spec)) +
            " | " + Code(VariableOf(spec.key)) + " | " + spec.meaning + " |\n";
  }
  page += "\n## Options\n";
  AppendOptions(page);
  return page;
}

}  // namespace muselet
