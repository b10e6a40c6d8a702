#include "node/cli/bench_load.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <memory>

#include "base/clock.h"
#include "node/cli/openai_client.h"

namespace muselet {
namespace {

constexpr int64_t kProgressIntervalUs = 250'000;

// The kind under which a fault is counted.
std::string ErrorKind(const Status& status, int status_code) {
  if (status_code != 0 && status_code != 200) return "http " + std::to_string(status_code);
  switch (status.code()) {
    case StatusCode::kDeadlineExceeded:
      return "timeout";
    case StatusCode::kDataLoss:
      return "cut off";
    case StatusCode::kUnavailable:
      return status_code == 0 ? "connect" : "error event";
    default:
      return std::string(StatusCodeName(status.code()));
  }
}

class Load {
 public:
  Load(HttpClient& client, const BenchOptions& options, const BenchTarget& target,
       const std::function<void(const BenchProgress&)>& on_progress)
      : client_(client),
        options_(options),
        target_(target),
        on_progress_(on_progress),
        arrivals_(options.rate, options.seed) {}

  std::vector<RequestRecord> Run() {
    start_us_ = progress_us_ = Clock::Real().NowUs();
    client_.OnInterrupt([this] { client_.Finish(); });
    if (on_progress_) ReportLater();
    if (options_.rate > 0) {
      ArriveLater();
    } else {
      for (uint32_t i = 0; i < options_.concurrency && MayStart(); ++i) Start();
      FinishIfIdle();
    }
    client_.Run();
    if (on_progress_) Report();
    return std::move(records_);
  }

 private:
  struct Flight {
    explicit Flight(Load& load)
        : reader([this, &load](std::string_view) { load.OnText(record); }) {}
    RequestRecord record;
    CompletionReader reader;
  };

  bool MayStart() const {
    if (options_.requests > 0 && started_ >= options_.requests) return false;
    const int64_t elapsed_us = Clock::Real().NowUs() - start_us_;
    return options_.duration_s <= 0 || static_cast<double>(elapsed_us) < options_.duration_s * 1e6;
  }

  // Arrivals that find the cap reached wait in line, and their wait counts.
  void ArriveLater() {
    next_arrival_us_ = std::max(next_arrival_us_, start_us_) + arrivals_.NextGapUs();
    const int64_t delay_us = std::max<int64_t>(0, next_arrival_us_ - Clock::Real().NowUs());
    client_.After(delay_us, [this] {
      if (!MayStart()) return FinishIfIdle();
      if (options_.concurrency == 0 || in_flight_ < options_.concurrency) {
        Start();
      } else {
        waiting_.push_back(Clock::Real().NowUs());
        ++started_;
      }
      ArriveLater();
    });
  }

  void Start() {
    ++started_;
    Send(Clock::Real().NowUs());
  }

  void Send(int64_t start_us) {
    ++in_flight_;
    const std::string& prompt = target_.prompts[sent_++ % target_.prompts.size()];
    const auto flight = std::make_shared<Flight>(*this);
    flight->record.start_us = start_us;
    HttpEvents events;
    events.on_head = [flight](int status_code) { flight->reader.OnHead(status_code); };
    events.on_body = [flight](std::string_view bytes) { flight->reader.OnBody(bytes); };
    events.on_done = [this, flight](const Status& status) { Done(*flight, status); };
    client_.Send(MakeCompletionRequest(target_.api_base, options_.api_key, Params(prompt)),
                 std::move(events), static_cast<int64_t>(options_.timeout_s * 1e6));
  }

  CompletionParams Params(const std::string& prompt) const {
    CompletionParams params;
    params.model = target_.model;
    if (options_.completions) {
      params.prompt = prompt;
    } else {
      params.messages = {{"user", prompt}};
    }
    params.max_tokens = options_.max_tokens;
    params.temperature = options_.temperature;
    params.ignore_eos = options_.ignore_eos;
    return params;
  }

  void OnText(RequestRecord& record) {
    const int64_t now_us = Clock::Real().NowUs();
    ++pieces_;
    if (record.first_us == 0) {
      record.first_us = now_us;
    } else {
      record.gaps_us.push_back(now_us - record.last_us);
    }
    record.last_us = now_us;
  }

  void Done(Flight& flight, const Status& status) {
    RequestRecord& record = flight.record;
    record.end_us = Clock::Real().NowUs();
    record.prompt_tokens = flight.reader.prompt_tokens();
    record.output_tokens = flight.reader.output_tokens();
    record.has_usage = flight.reader.has_usage();
    const Status outcome = status.ok() ? flight.reader.Outcome() : status;
    if (!outcome.ok()) {
      ++failed_;
      record.error = ErrorKind(outcome, flight.reader.status_code());
      record.error_message = outcome.message();
    }
    records_.push_back(std::move(record));
    --in_flight_;
    if (!waiting_.empty()) {
      const int64_t start_us = waiting_.front();
      waiting_.pop_front();
      Send(start_us);
    } else if (options_.rate <= 0 && MayStart()) {
      Start();
    }
    FinishIfIdle();
  }

  void FinishIfIdle() {
    if (in_flight_ == 0 && !MayStart()) client_.Finish();
  }

  void ReportLater() {
    client_.After(kProgressIntervalUs, [this] {
      Report();
      ReportLater();
    });
  }

  void Report() {
    const int64_t now_us = Clock::Real().NowUs();
    BenchProgress progress;
    progress.elapsed_s = static_cast<double>(now_us - start_us_) / 1e6;
    progress.done = static_cast<uint32_t>(records_.size());
    progress.in_flight = in_flight_;
    progress.failed = failed_;
    progress.requests = options_.requests;
    const int64_t interval_us = std::max<int64_t>(1, now_us - progress_us_);
    progress.pieces_per_s = static_cast<double>(pieces_) * 1e6 / static_cast<double>(interval_us);
    progress_us_ = now_us;
    pieces_ = 0;
    on_progress_(progress);
  }

  HttpClient& client_;
  const BenchOptions& options_;
  const BenchTarget& target_;
  const std::function<void(const BenchProgress&)>& on_progress_;
  PoissonArrivals arrivals_;
  int64_t start_us_ = 0;
  int64_t next_arrival_us_ = 0;
  int64_t progress_us_ = 0;
  uint64_t pieces_ = 0;
  uint32_t started_ = 0;
  uint32_t in_flight_ = 0;
  uint32_t failed_ = 0;
  size_t sent_ = 0;
  std::deque<int64_t> waiting_;
  std::vector<RequestRecord> records_;
};

}  // namespace

int64_t PoissonArrivals::NextGapUs() {
  // SplitMix64, then the inverse of the exponential distribution.
  state_ += 0x9E3779B97F4A7C15ULL;
  uint64_t bits = state_;
  bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9ULL;
  bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EBULL;
  bits ^= bits >> 31;
  const double uniform = static_cast<double>((bits >> 11) + 1) * 0x1.0p-53;  // (0, 1]
  return static_cast<int64_t>(-std::log(uniform) / rate_ * 1e6);
}

std::vector<RequestRecord> RunLoad(HttpClient& client, const BenchOptions& options,
                                   const BenchTarget& target,
                                   const std::function<void(const BenchProgress&)>& on_progress) {
  return Load(client, options, target, on_progress).Run();
}

}  // namespace muselet
