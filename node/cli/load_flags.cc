#include "node/cli/load_flags.h"

#include <cstdint>
#include <string>

#include "node/cli/number_checks.h"

namespace muselet {
namespace {

constexpr uint64_t kTokensMax = 16'777'216;

}  // namespace

void AddBenchLoad(CLI::App* command, BenchOptions& bench) {
  const char* load = "Load";
  command
      ->add_option("--concurrency", bench.concurrency,
                   "Requests in flight (default 8; with --rate the most that may be, default none)")
      ->type_name("N")
      ->check(Whole(1, 65536))
      ->group(load);
  command
      ->add_option("--rate", bench.rate, "Open loop: mean arrivals a second, as a Poisson process")
      ->type_name("R")
      ->check(Number(0.001, 100'000))
      ->group(load);
  command
      ->add_option("--requests", bench.requests,
                   "Stop after N requests (default 100 without --duration)")
      ->type_name("N")
      ->check(Whole(1, 10'000'000))
      ->group(load);
  command->add_option("--duration", bench.duration_s, "Start no request after this many seconds")
      ->type_name("SECONDS")
      ->check(Number(0.001, 1e7))
      ->group(load);
  command->add_option("--seed", bench.seed, "Of the arrival times (default 0)")
      ->type_name("N")
      ->check(Whole(0, UINT64_MAX))
      ->group(load);
  command->add_option("--warmup", bench.warmup, "Requests before the measurement (default 0)")
      ->type_name("N")
      ->check(Whole(0, 100000))
      ->group(load);
}

void AddBenchRequests(CLI::App* command, BenchOptions& bench) {
  const char* requests = "Requests";
  command
      ->add_option("--prompts", bench.prompts,
                   "File of prompts, taken in turn: JSON lines with turns (as MT-bench) or prompt, "
                   "or one prompt a line (default: eight short questions)")
      ->type_name("FILE")
      ->group(requests);
  command->add_option("--max-tokens", bench.max_tokens, "Tokens of an answer (default 128)")
      ->type_name("N")
      ->check(Whole(1, kTokensMax))
      ->group(requests);
  command->add_option("--temperature", bench.temperature, "Of the sampling (default 0)")
      ->type_name("T")
      ->check(Number(0, 10))
      ->group(requests);
  command->add_flag("--ignore-eos", bench.ignore_eos, "Answers go on to --max-tokens")
      ->group(requests);
  const std::string chat_meaning = "Ask /v1/chat/completions (default)";
  CLI::Option* chat = command->add_flag("--chat", chat_meaning);
  chat->group(requests);
  command->add_flag("--completions", bench.completions, "Ask /v1/completions")
      ->excludes(chat)
      ->group(requests);
  command->add_option("--timeout", bench.timeout_s, "Time for one request (default 600)")
      ->type_name("SECONDS")
      ->check(Number(0.001, 1e6))
      ->group(requests);
}

void AddSimulateFlags(CLI::App* command, SimulateArguments& arguments) {
  command
      ->add_option("--trace", arguments.trace,
                   "The requests: CSV of Azure's traces, or JSON lines of Mooncake's")
      ->type_name("FILE");
  command->add_option("--replicas", arguments.replicas, "How many (default: as in the config)")
      ->type_name("N")
      ->check(Whole(1, 1000));
  command->add_option("--speed", arguments.speed, "Play the trace this many times as fast")
      ->type_name("X")
      ->check(Number(1e-6, 1e6));
  command
      ->add_option("--length-scale", arguments.length_scale,
                   "Make prompts and answers this many times as long")
      ->type_name("X")
      ->check(Number(1e-6, 1000));
  command->add_option("--requests", arguments.requests_max, "Only the first N of the trace")
      ->type_name("N")
      ->check(Whole(1, 10'000'000));
  command
      ->add_option("--kv-tokens", arguments.kv_tokens,
                   "Tokens in the KV cache of a replica (default: the calibration's)")
      ->type_name("N")
      ->check(Whole(16, 4'000'000'000));
  command
      ->add_option("--calibration", arguments.calibration,
                   "How long steps take, as --measure wrote it")
      ->type_name("FILE");
  command
      ->add_option("--measure", arguments.measure_to,
                   "Measure the steps of the config's first model on this machine, write them to "
                   "FILE, and end")
      ->type_name("FILE");
  command->add_option("--seed", arguments.seed, "Of all that is drawn")
      ->type_name("N")
      ->check(Whole(0, UINT64_MAX));
  command->add_flag("--json", arguments.json, "Print JSON");
  command->footer(
      "Schedulers, gateways and batchers are the real ones, on virtual time; steps take what the "
      "calibration says.\nRequests are dealt to the config's surfaces by their shares; goodput "
      "counts answers within ttft and tpot.");
}

}  // namespace muselet
