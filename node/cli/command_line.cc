#include "node/cli/command_line.h"

#include <CLI/CLI.hpp>
#include <cstdint>
#include <map>

#include "node/cli/help_format.h"
#include "node/cli/load_flags.h"
#include "node/cli/number_checks.h"
#include "node/cli/version.h"
#include "node/config/config_loader.h"
#include "node/config/option_table.h"
#include "node/config/suggestion.h"

namespace muselet {
namespace {

constexpr int kUsageError = 2;
constexpr const char* kOwn = "Options";
constexpr uint64_t kTokensMax = 16'777'216;

// Owns the CLI11 objects while the arguments are read.
class Parser {
 public:
  Parser() : app_("Serve language models on one machine or on many.", "muselet") {
    app_.formatter(MakeHelpFormat());
    app_.option_defaults()->group(kOwn);
    app_.set_help_flag("-h,--help", "Print this help");
    app_.set_version_flag("--version", VersionText(), "Print the version");
    app_.require_subcommand(1);
    app_.footer("muselet COMMAND --help tells more. Start with: muselet serve MODEL.gguf");
    AddServe();
    AddRun();
    AddDrain();
    AddSimulate();
    AddRank();
    AddClients();
    AddConfig();
    AddModel();
    AddKeys();
    CLI::App* version =
        AddCommand(&app_, "version", "Print what this program is", Command::kVersion);
    version->add_flag("--json", line_.json, "As a JSON object");
  }

  std::variant<CommandLine, CommandLineExit> Parse(std::vector<std::string> arguments) {
    if (arguments.empty()) return CommandLineExit{kUsageError, Help()};
    std::reverse(arguments.begin(), arguments.end());  // CLI11 takes them from the back
    try {
      app_.parse(arguments);
    } catch (const CLI::CallForHelp&) {
      return CommandLineExit{0, Help()};
    } catch (const CLI::CallForVersion&) {
      return CommandLineExit{0, VersionText()};
    } catch (const CLI::ParseError& fault) {
      return CommandLineExit{kUsageError, Explain(fault)};
    }
    for (const auto& [key, option] : config_options_) {
      if (option->count() > 0) line_.config_flags.emplace_back(key, texts_[key]);
    }
    return line_;
  }

 private:
  CLI::App* AddCommand(CLI::App* parent, const char* name, const char* meaning, Command command) {
    CLI::App* added = parent->add_subcommand(name, meaning);
    added->footer("");
    added->callback([this, command] { line_.command = command; });
    return added;
  }

  // A flag whose text goes to the config loader, which checks it.
  void AddConfigFlag(CLI::App* command, const FieldSpec& spec, const std::string& group,
                     const std::string& description) {
    std::string& text = texts_[spec.key];
    CLI::Option* option = nullptr;
    if (spec.kind == ValueKind::kBool) {
      option = command->add_flag(FlagOf(spec.key), text, description);
    } else {
      option = command->add_option(FlagOf(spec.key), text, description);
      option->type_name(Placeholder(spec));
    }
    config_options_.emplace_back(spec.key, option);
    option->group(group);
  }

  void AddConfigFlags(CLI::App* command) {
    for (const FieldSpec& spec : ShortcutTable()) {
      if (spec.key == "model") continue;  // it is the positional argument
      AddConfigFlag(command, spec, kOwn, spec.meaning + " [" + VariableOf(spec.key) + "]");
    }
    const ClusterConfig defaults;
    for (const Option& option : OptionTable()) {
      const FieldSpec& spec = option.field.spec;
      const std::string value = FormatValue(spec, option.field.get(defaults));
      const bool on = spec.kind == ValueKind::kBool && value == "true";
      const std::string how = on ? "; " + option.flag() + "=false turns it off" : "";
      AddConfigFlag(command, spec, option.group,
                    spec.meaning + " (default " + value + how + ") [" + option.variable() + "]");
    }
  }

  void AddConfigFile(CLI::App* command) {
    command
        ->add_option("-c,--config", line_.config_file, "The cluster's YAML file [MUSELET_CONFIG]")
        ->type_name("FILE");
  }

  void AddServe() {
    CLI::App* serve =
        AddCommand(&app_, "serve", "Run the whole cluster in this process", Command::kServe);
    CLI::Option* path = serve->add_option(
        "PATH", texts_["model"],
        "GGUF file or Hugging Face directory, instead of --config [MUSELET_MODEL]");
    path->type_name("PATH");
    config_options_.emplace_back("model", path);
    AddConfigFile(serve);
    AddConfigFlags(serve);
  }

  void AddRun() {
    CLI::App* run =
        AddCommand(&app_, "run", "Run one gateway, scheduler or node of a cluster", Command::kRun);
    run->add_option("-n,--name", line_.entry, "Its name in the file")
        ->required()
        ->type_name("NAME");
    AddConfigFile(run);
    AddConfigFlags(run);
  }

  void AddDrain() {
    CLI::App* drain = AddCommand(&app_, "drain",
                                 "Let one process of a cluster end its work and stop, by a word "
                                 "to a scheduler",
                                 Command::kDrain);
    drain->add_option("NAME", line_.entry, "Its name in the file")->required()->type_name("NAME");
    AddConfigFile(drain);
  }

  void AddSimulate() {
    CLI::App* command = AddCommand(&app_, "simulate",
                                   "What a cluster would do under a trace, faster than real time",
                                   Command::kSimulate);
    AddConfigFile(command);
    AddSimulateFlags(command, line_.simulate);
  }

  // Nodes start these; people see them in a list of processes alone.
  void AddRank() {
    RankInvocation& rank = line_.rank;
    CLI::App* command = AddCommand(
        &app_, "rank", "One rank of a sharded replica, started by its node", Command::kRank);
    command->group("");
    command->add_option("--replica", rank.replica, "Its replica")->required()->type_name("NAME");
    command->add_option("--rank", rank.number, "Its number")
        ->required()
        ->type_name("N")
        ->check(Whole(0, 65535));
    command->add_option("--leader", rank.leader, "Endpoint where it joins")
        ->required()
        ->type_name("ENDPOINT");
    command->add_flag("--supervised", rank.supervised, "It has a socket to its node");
    AddConfigFile(command);
  }

  void AddServer(CLI::App* command, std::string& api_key, std::string& model, TlsTrust& trust) {
    command->add_option("--api-key", api_key, "Key for the server [MUSELET_API_KEY]")
        ->type_name("KEY");
    command
        ->add_option("--ca-file", trust.ca_file,
                     "https: PEM file of the authorities to trust (default: the system's)")
        ->type_name("FILE");
    command->add_flag("--insecure", trust.insecure,
                      "https: accept any certificate, whoever made it and for whatever host");
    command->add_option("--model", model, "Model to ask (default: the first that is listed)")
        ->type_name("ID");
  }

  void AddClients() {
    AddChat();
    AddBench();
  }

  void AddChat() {
    ChatOptions& chat = line_.chat;
    CLI::App* command = AddCommand(&app_, "chat", "Talk to a server", Command::kChat);
    command
        ->add_option("--url", chat.url,
                     "The server, http:// or https:// (default http://127.0.0.1:8000)")
        ->type_name("URL");
    AddServer(command, chat.api_key, chat.model, chat.trust);
    command->add_option("--system", chat.system, "System message")->type_name("TEXT");
    command->add_option("--max-tokens", chat.max_tokens, "Longest answer (default: the server's)")
        ->type_name("N")
        ->check(Whole(1, kTokensMax));
    command
        ->add_option("--temperature", chat.temperature,
                     "0 is deterministic (default: the server's)")
        ->type_name("T")
        ->check(Number(0, 10));
    command->add_option("--seed", chat.seed, "Of the sampling (default: drawn by the server)")
        ->type_name("N")
        ->check(Whole(0, UINT64_MAX));
    command
        ->add_option_function<std::string>(
            "--once",
            [&chat](const std::string& question) {
              chat.once = question;
              chat.has_once = true;
            },
            "Ask this one question and end")
        ->type_name("TEXT");
    command->footer(
        "In a conversation: /reset forgets it, /exit or Ctrl-D ends, Ctrl-C stops an answer.\n"
        "Without a terminal every line of the input is a question; answers go to stdout, the rest "
        "to stderr.");
  }

  void AddBench() {
    BenchOptions& bench = line_.bench;
    CLI::App* command =
        AddCommand(&app_, "bench", "Measure any OpenAI-compatible server", Command::kBench);
    command
        ->add_option("URL", bench.url,
                     "The server, http:// or https:// (default http://127.0.0.1:8000)")
        ->type_name("URL");
    AddServer(command, bench.api_key, bench.model, bench.trust);
    AddBenchLoad(command, bench);
    AddBenchRequests(command, bench);
    const char* output = "Output";
    command->add_option("--json", bench.json, "Write the results to FILE, - is stdout")
        ->type_name("FILE")
        ->group(output);
    command->add_flag("--quiet", bench.quiet, "No progress line")->group(output);
    command->footer(
        "Closed loop (default): --concurrency requests are always in flight. Open loop: requests "
        "arrive at random,\n--rate a second on average, however slow the server is.\n"
        "Tokens are counted by the server's usage object, or else by chunks.");
  }

  void AddConfig() {
    CLI::App* config = app_.add_subcommand("config", "Check and explain configuration");
    config->require_subcommand(1);
    CLI::App* check = AddCommand(config, "check", "Report every fault of a file, or its summary",
                                 Command::kConfigCheck);
    CLI::App* show = AddCommand(config, "show", "Print the values and where they come from",
                                Command::kConfigShow);
    for (CLI::App* command : {check, show}) {
      command
          ->add_option("-c,--config,FILE", line_.config_file,
                       "The cluster's YAML file [MUSELET_CONFIG]")
          ->type_name("FILE");
      command->add_flag("--no-files", line_.no_files,
                        "Look at the file alone: not for model and key files, nor at this machine");
      AddConfigFlags(command);
    }
    show->add_flag("--effective", line_.effective, "Print the defaults too");
    show->add_flag("--json", line_.json, "As a JSON object");
    AddCommand(config, "schema", "Print the JSON Schema of the file", Command::kConfigSchema);
    AddCommand(config, "reference", "Print the reference page", Command::kConfigReference);
  }

  void AddModel() {
    CLI::App* model = app_.add_subcommand("model", "Look at models");
    model->require_subcommand(1);
    CLI::App* inspect =
        AddCommand(model, "inspect", "Print what a checkpoint holds", Command::kModelInspect);
    inspect->add_option("PATH", line_.model_path, "GGUF file or Hugging Face directory")
        ->required()
        ->type_name("PATH");
    inspect->add_flag("--json", line_.json, "As a JSON object");
    AddPlan(inspect);
  }

  // Options that make `model inspect` plan ranks and memory.
  void AddPlan(CLI::App* inspect) {
    PlanArguments& plan = line_.plan;
    const std::string group = "Plan ranks and memory (a config.json alone will do)";
    const auto add = [&](const std::string& name, auto& value, const std::string& meaning,
                         const std::string& type) {
      CLI::Option* option = inspect->add_option(name, value, meaning)->type_name(type);
      option->group(group)->each([&plan](const std::string&) { plan.asked = true; });
      return option;
    };
    add("--tensor", plan.tensor, "Ranks that share each layer (default 1)", "N")
        ->check(Whole(1, 65536));
    add("--pipeline", plan.pipeline, "Stages of whole layers (default 1)", "N")
        ->check(Whole(1, 65536));
    add("--layers", plan.layers, "Layers of each stage, e.g. 20,10 (default: balanced)", "A,B,...")
        ->delimiter(',')
        ->check(Whole(1, 65536));
    add("--device-memory", plan.device_memory, "Of one rank, e.g. 80GiB: say what fits", "SIZE");
    add("--context", plan.context, "Tokens of a sequence (default: the model's limit)", "N")
        ->check(Whole(1, 1U << 30U));
    add("--weights", plan.weights, "Format of all weights, e.g. q4_1 (default: the file's)",
        "FORMAT");
    add("--kv", plan.kv, "Format of keys and values: f16 (default) or f32", "FORMAT");
  }

  void AddKeys() {
    CLI::App* keys =
        app_.add_subcommand("keys", "Make keys for the wires between processes, and secrets");
    keys->require_subcommand(1);
    const auto add_out = [this](CLI::App* command, const char* meaning, const char* type) {
      command->add_option("-o,--out", line_.keys_prefix, meaning)->required()->type_name(type);
    };
    add_out(AddCommand(keys, "generate", "Write a new pair of keys, and print the public one",
                       Command::kKeysGenerate),
            "Writes PREFIX.key (secret, mode 0600) and PREFIX.pub; never over a file", "PREFIX");
    add_out(AddCommand(keys, "secret", "Write a new secret for all gateways of a cluster",
                       Command::kKeysSecret),
            "Writes this file, mode 0600, for security.secret_file; never over a file", "FILE");
  }

  // CLI11 leaves two empty lines between groups.
  std::string Help() {
    std::string help = app_.help();
    for (size_t at = help.find("\n\n\n"); at != std::string::npos; at = help.find("\n\n\n")) {
      help.erase(at, 1);
    }
    return help;
  }

  // The innermost command that was recognised.
  CLI::App* Active() {
    CLI::App* active = &app_;
    while (!active->get_subcommands().empty()) active = active->get_subcommands().front();
    return active;
  }

  static std::string NameOf(const CLI::App* command) {
    const CLI::App* parent = command->get_parent();
    return parent == nullptr ? command->get_name() : NameOf(parent) + " " + command->get_name();
  }

  std::string Explain(const CLI::ParseError& fault) {
    const std::string name = NameOf(Active());
    return name + ": " + Sentence(fault) + "\n" + name + " --help tells more\n";
  }

  // What is wrong, in our words. CLI11 tells the option by its text alone, in front.
  std::string Sentence(const CLI::ParseError& fault) {
    const std::string text = fault.what();
    const bool incomplete = dynamic_cast<const CLI::RequiredError*>(&fault) != nullptr;
    const std::vector<std::string> rest = app_.remaining(true);
    if (dynamic_cast<const CLI::ExtrasError*>(&fault) != nullptr || incomplete) {
      // A misspelt word leaves what it should have been missing.
      if (!rest.empty()) return UnknownWord(rest.front());
      return incomplete ? Missing(text.substr(0, text.find(" is required"))) : text;
    }
    if (dynamic_cast<const CLI::ArgumentMismatch*>(&fault) != nullptr) return WrongCount(text);
    if (dynamic_cast<const CLI::ConversionError*>(&fault) != nullptr) return WrongValue(text);
    if (dynamic_cast<const CLI::ExcludesError*>(&fault) != nullptr) {
      return Pair(text, " excludes ", " exclude each other: give one of them");
    }
    if (dynamic_cast<const CLI::RequiresError*>(&fault) != nullptr) {
      return Pair(text, " requires ", " go together: give both");
    }
    // The sentences of our own checks; the other kinds belong to CLI11's files, which are not used.
    if (dynamic_cast<const CLI::ValidationError*>(&fault) != nullptr) return text;
    return "the arguments cannot be understood";
  }

  static std::string Pair(const std::string& text, const std::string& verb,
                          const std::string& sentence) {
    const size_t at = text.find(verb);
    if (at == std::string::npos) return text;
    return text.substr(0, at) + " and " + text.substr(at + verb.size()) + sentence;
  }

  std::string Missing(const std::string& option_name) {
    std::string commands;
    for (const CLI::App* command : Active()->get_subcommands({})) {
      if (command->get_group().empty()) continue;  // not for people
      commands += (commands.empty() ? "" : ", ") + command->get_name();
    }
    if (!commands.empty()) return "a command is missing: one of " + commands;
    return option_name + " is required" + MeaningOf(option_name);
  }

  // ": its meaning", or nothing if the name is not known.
  std::string MeaningOf(const std::string& option_name) {
    const CLI::Option* option = Active()->get_option_no_throw(option_name);
    return option == nullptr ? "" : ": " + option->get_description();
  }

  std::string WrongCount(const std::string& text) {
    const std::string option_name = text.substr(0, text.find(": "));
    if (!text.ends_with(" missing")) return option_name + " is given more than once";
    const CLI::Option* option = Active()->get_option_no_throw(option_name);
    const std::string type = option == nullptr ? "" : option->get_type_name();
    return option_name + " needs a value" + (type.empty() ? "" : ": " + option_name + " " + type);
  }

  // Numbers have checks of their own, so this is a switch: "Could not convert: --json = maybe".
  static std::string WrongValue(const std::string& text) {
    const size_t begin = text.find("--");
    const size_t end = text.find(" = ");
    if (begin == std::string::npos || end == std::string::npos || begin > end) {
      return "a value cannot be understood";
    }
    return text.substr(begin, end - begin) + " takes true or false, found \"" +
           text.substr(end + 3) + "\"";
  }

  std::string UnknownWord(const std::string& word) {
    CLI::App* active = Active();
    std::vector<std::string> known;
    const char* what = "argument";
    if (word.size() > 1 && word.front() == '-') {
      what = "option";
      for (const CLI::Option* option : active->get_options()) {
        for (const std::string& flag : option->get_lnames()) known.push_back("--" + flag);
      }
    } else if (!active->get_subcommands({}).empty()) {
      what = "command";
      for (const CLI::App* command : active->get_subcommands({})) {
        if (!command->get_group().empty()) known.push_back(command->get_name());
      }
    }
    const std::string stem = word.substr(0, word.find('='));
    const std::string hint = DidYouMean(stem, known);
    return std::string("unknown ") + what + " " + stem + (hint.empty() ? "" : ": " + hint);
  }

  CLI::App app_;
  CommandLine line_;
  std::map<std::string, std::string> texts_;  // by key; one key may be a flag of several commands
  std::vector<std::pair<std::string, CLI::Option*>> config_options_;
};

}  // namespace

std::variant<CommandLine, CommandLineExit> ParseCommandLine(
    const std::vector<std::string>& arguments) {
  return Parser().Parse(arguments);
}

}  // namespace muselet
