#include "node/cli/chat.h"

#include <cstdio>
#include <istream>
#include <memory>
#include <ostream>

#include "base/clock.h"
#include "node/cli/openai_client.h"

namespace muselet {
namespace {

constexpr int64_t kAnswerTimeoutUs = 3'600'000'000;

class Conversation {
 public:
  Conversation(const ChatOptions& options, const CommandStreams& streams, HttpClient& client,
               std::string api_base, std::string model)
      : options_(options), streams_(streams), client_(client), api_base_(std::move(api_base)) {
    params_.model = std::move(model);
    params_.max_tokens = options.max_tokens;
    params_.temperature = options.temperature;
    params_.seed = options.seed;
    Reset();
  }

  void Reset() {
    params_.messages.clear();
    if (!options_.system.empty()) params_.messages.push_back({"system", options_.system});
  }

  // Asks and prints the answer. A question without an answer is forgotten.
  bool Ask(const std::string& question) {
    params_.messages.push_back({"user", question});
    std::string answer;
    const int64_t start_us = Clock::Real().NowUs();
    int64_t first_us = 0;
    CompletionReader reader([&](std::string_view text) {
      if (first_us == 0) first_us = Clock::Real().NowUs();
      answer += text;
      streams_.out << text << std::flush;
    });
    const Status status = Stream(reader);
    const int64_t end_us = Clock::Real().NowUs();
    if (!answer.empty()) streams_.out << "\n" << std::flush;
    if (!status.ok()) streams_.err << "muselet: " << status.message() << "\n";
    if (first_us != 0) PrintSpeed(reader, first_us - start_us, end_us - first_us);
    if (answer.empty() && !status.ok()) {
      params_.messages.pop_back();
    } else {
      params_.messages.push_back({"assistant", answer});
    }
    return status.ok() || status.code() == StatusCode::kCancelled;
  }

 private:
  Status Stream(CompletionReader& reader) {
    Status outcome = Cancelled("stopped");
    HttpEvents events;
    events.on_head = [&](int status_code) { reader.OnHead(status_code); };
    events.on_body = [&](std::string_view bytes) { reader.OnBody(bytes); };
    events.on_done = [&](const Status& status) {
      outcome = status.ok() ? reader.Outcome() : status;
      client_.Finish();
    };
    client_.Send(MakeCompletionRequest(api_base_, options_.api_key, params_), std::move(events),
                 kAnswerTimeoutUs);
    client_.OnInterrupt([this] { client_.Finish(); });
    client_.Run();
    return outcome;
  }

  void PrintSpeed(const CompletionReader& reader, int64_t first_us, int64_t rest_us) {
    const uint32_t tokens = reader.output_tokens();
    char line[160];
    const double speed =
        rest_us > 0 && tokens > 1 ? (tokens - 1) * 1e6 / static_cast<double>(rest_us) : 0;
    std::snprintf(line, sizeof(line), "[%u tokens, %.1f tokens/s, first after %.0f ms%s%s]\n",
                  tokens, speed, static_cast<double>(first_us) / 1e3,
                  reader.finish_reason() == "length" ? ", cut at the length limit" : "",
                  reader.has_usage() ? "" : ", counted by chunks");
    streams_.err << line << std::flush;
  }

  const ChatOptions& options_;
  const CommandStreams& streams_;
  HttpClient& client_;
  std::string api_base_;
  CompletionParams params_;
};

int Converse(Conversation& conversation, const CommandStreams& streams) {
  bool answered = true;
  std::string line;
  for (;;) {
    if (streams.in_terminal) streams.err << "> " << std::flush;
    if (!std::getline(streams.in, line)) break;
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (line == "/exit" || line == "/quit") break;
    if (line.find_first_not_of(" \t") == std::string::npos) continue;
    if (line == "/reset") {
      conversation.Reset();
      streams.err << "[forgotten]\n";
    } else if (line.front() == '/' && line.find(' ') == std::string::npos) {
      streams.err << "[" << line << " is unknown: /reset, /exit]\n";
    } else {
      answered = conversation.Ask(line);
    }
  }
  if (streams.in_terminal) streams.err << "\n";
  return answered ? 0 : 1;
}

}  // namespace

int RunChat(const ChatOptions& options, const CommandStreams& streams) {
  const auto fail = [&](const Status& status) {
    streams.err << "muselet chat: " << options.url << ": " << status.message() << "\n";
    return 2;
  };
  const Result<HttpUrl> url = ParseHttpUrl(options.url);
  if (!url.ok()) return fail(url.status());
  Result<std::unique_ptr<HttpClient>> client = HttpClient::Open(*url, options.trust);
  if (!client.ok()) return fail(client.status());
  const std::string api_base = ApiBase(*url);
  const Result<std::string> model = ChooseModel(**client, api_base, options.api_key, options.model);
  if (!model.ok()) return fail(model.status());
  Conversation conversation(options, streams, **client, api_base, *model);
  if (options.has_once) return conversation.Ask(options.once) ? 0 : 1;
  if (streams.in_terminal) {
    streams.err << *model << " at " << options.url << "; /reset forgets, /exit ends\n";
  }
  return Converse(conversation, streams);
}

}  // namespace muselet
