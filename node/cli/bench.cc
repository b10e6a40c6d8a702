#include "node/cli/bench.h"

#include <cstdio>
#include <fstream>
#include <memory>
#include <ostream>

#include "node/cli/bench_load.h"
#include "node/cli/bench_prompts.h"
#include "node/cli/bench_report.h"
#include "node/cli/openai_client.h"

namespace muselet {
namespace {

constexpr int kWrongInput = 2;

BenchOptions WithDefaults(BenchOptions options) {
  constexpr uint32_t kConcurrency = 8;
  constexpr uint32_t kRequests = 100;
  if (options.concurrency == 0 && options.rate <= 0) options.concurrency = kConcurrency;
  if (options.requests == 0 && options.duration_s <= 0) options.requests = kRequests;
  return options;
}

std::string ProgressLine(const BenchProgress& progress) {
  char line[160];
  const std::string total = progress.requests > 0 ? "/" + std::to_string(progress.requests) : "";
  std::snprintf(line, sizeof(line),
                "\r\033[K%6.1f s  %u%s done, %u in flight, %u failed, %.0f chunks/s",
                progress.elapsed_s, progress.done, total.c_str(), progress.in_flight,
                progress.failed, progress.pieces_per_s);
  return line;
}

void WarmUp(HttpClient& client, BenchOptions options, const BenchTarget& target) {
  if (options.warmup == 0) return;
  options.rate = 0;
  options.concurrency = 1;
  options.requests = options.warmup;
  options.duration_s = 0;
  RunLoad(client, options, target, {});
}

// False if the file cannot be written.
bool WriteJsonReport(const std::string& path, const std::string& json,
                     const CommandStreams& streams) {
  if (path == "-") {
    streams.out << json;
    return true;
  }
  std::ofstream file(path);
  file << json << std::flush;
  if (file.good()) return true;
  streams.err << "muselet bench: " << path << " cannot be written\n";
  return false;
}

}  // namespace

int RunBench(const BenchOptions& given, const CommandStreams& streams) {
  const BenchOptions options = WithDefaults(given);
  const auto fail = [&](const std::string& what, const Status& status) {
    streams.err << "muselet bench: " << what << status.message() << "\n";
    return kWrongInput;
  };
  BenchTarget target;
  Result<std::vector<std::string>> prompts = LoadPrompts(options.prompts);
  if (!prompts.ok()) return fail("", prompts.status());
  target.prompts = std::move(*prompts);
  const Result<HttpUrl> url = ParseHttpUrl(options.url);
  if (!url.ok()) return fail("", url.status());
  Result<std::unique_ptr<HttpClient>> client = HttpClient::Open(*url, options.trust);
  if (!client.ok()) return fail("", client.status());
  target.api_base = ApiBase(*url);
  const Result<std::string> model =
      ChooseModel(**client, target.api_base, options.api_key, options.model);
  if (!model.ok()) return fail(options.url + ": ", model.status());
  target.model = *model;

  WarmUp(**client, options, target);
  std::function<void(const BenchProgress&)> on_progress;
  if (streams.err_terminal && !options.quiet) {
    on_progress = [&](const BenchProgress& progress) {
      streams.err << ProgressLine(progress) << std::flush;
    };
  }
  const std::vector<RequestRecord> records = RunLoad(**client, options, target, on_progress);
  if (on_progress) streams.err << "\n";
  const BenchSummary summary = Summarise(records);
  if (options.json != "-") streams.out << BenchTable(summary, options, *model);
  if (!options.json.empty() &&
      !WriteJsonReport(options.json, BenchJson(summary, options, *model), streams)) {
    return kWrongInput;
  }
  return summary.succeeded > 0 ? 0 : 1;
}

}  // namespace muselet
