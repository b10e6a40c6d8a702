// Runs tests/scheduler/batch/transcripts/*.txt: commands, "----", the expected output. A transcript
// is a conversation with one Batcher; what it says is written so that people can judge it.
//
//   options KEY=VALUE ...     makes the batcher (see MakeBatcher)
//   admit NAME prompt=A..B max=N [class= surface= end= timeout= attempt= generated=A..B ...]
//   cancel NAME [attempt=N]
//   plan [t=US]               "plan K", then a line a slice: NAME [first,end) blocks, * if it
//                             samples
//   commit K [us=US tokens=A,B,...]  tokens of the sampling slices in order (default 50, 51, ...)
//   fail K
//   reset                     all KV is lost
//   state                     counts
// Updates follow as "NAME #index: tokens, finish".
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include "scheduler/batch/batcher.h"

namespace muselet {
namespace {

using Arguments = std::map<std::string, std::string>;

class Conversation {
 public:
  std::string Do(const std::string& line) {
    std::istringstream in(line);
    std::string verb;
    std::string name;
    in >> verb;
    Arguments arguments;
    for (std::string word; in >> word;) {
      const size_t equals = word.find('=');
      if (equals == std::string::npos) {
        name = word;
      } else {
        arguments[word.substr(0, equals)] = word.substr(equals + 1);
      }
    }
    arguments_ = std::move(arguments);
    if (arguments_.contains("t")) now_us_ = Number("t", 0);
    out_.str("");
    Run(verb, name);
    SayUpdates();
    return out_.str();
  }

 private:
  int64_t Number(const std::string& key, int64_t otherwise) const {
    const auto found = arguments_.find(key);
    return found == arguments_.end() ? otherwise : std::stoll(found->second);
  }
  std::string Word(const std::string& key, const std::string& otherwise) const {
    const auto found = arguments_.find(key);
    return found == arguments_.end() ? otherwise : found->second;
  }
  // "3..6,9" = 3 4 5 6 9
  std::vector<TokenId> Tokens(const std::string& key) const {
    std::vector<TokenId> tokens;
    std::istringstream in(Word(key, ""));
    for (std::string part; std::getline(in, part, ',');) {
      const size_t dots = part.find("..");
      const int first = std::stoi(part);
      const int last = dots == std::string::npos ? first : std::stoi(part.substr(dots + 2));
      for (int token = first; token <= last; ++token) tokens.push_back(token);
    }
    return tokens;
  }

  void Run(const std::string& verb, const std::string& name) {
    if (verb == "options") return MakeBatcher();
    if (verb == "admit") return Admit(name);
    if (verb == "cancel")
      return batcher_->Cancel(ids_[name], static_cast<uint32_t>(Number("attempt", 0)));
    if (verb == "plan") return Plan();
    if (verb == "commit") return Commit(std::stoull(name));
    if (verb == "fail") return batcher_->Fail(std::stoull(name), Internal("device lost"));
    if (verb == "reset") return batcher_->Reset();
    if (verb == "state") return State();
    out_ << "unknown command " << verb << "\n";
  }

  void MakeBatcher() {
    BatchOptions options;
    options.sequences_max = static_cast<uint32_t>(Number("sequences", 8));
    options.waiting_max = static_cast<uint32_t>(Number("waiting", 8));
    options.step_tokens_max = static_cast<uint32_t>(Number("step_tokens", 64));
    options.prefill_chunk_max = static_cast<uint32_t>(Number("chunk", 32));
    options.step_target_us = Number("target_us", 60'000);
    options.step_max_us = Number("max_us", 250'000);
    options.step_stretch = static_cast<double>(Number("stretch", 100));
    options.resume_tokens_min = static_cast<uint32_t>(Number("resume", 16));
    options.prefix_cache = Number("cache", 1) != 0;
    BatchModel model;
    model.vocab_size = 1000;
    model.context_tokens = static_cast<uint32_t>(Number("context", 256));
    model.kv.groups.push_back({static_cast<uint32_t>(Number("blocks", 16)), 0});
    if (arguments_.contains("window")) {
      model.kv.groups.push_back({static_cast<uint32_t>(Number("window_blocks", 16)),
                                 static_cast<uint32_t>(Number("window", 16))});
    }
    model.sequence_groups = static_cast<uint32_t>(Number("groups", 1));
    batcher_ = std::make_unique<Batcher>(options, model);
    samples_.clear();
  }

  void Admit(const std::string& name) {
    const auto [id, fresh] = ids_.emplace(name, SequenceId{{0, ids_.size() + 1}, 0});
    if (fresh) names_[id->second] = name;
    Submit submit;
    submit.sequence = id->second;
    submit.attempt = static_cast<uint32_t>(Number("attempt", 0));
    submit.surface = Word("surface", "default");
    const std::string request_class = Word("class", "interactive");
    for (const auto value :
         {RequestClass::kRealtime, RequestClass::kInteractive, RequestClass::kBatch}) {
      if (RequestClassName(value) == request_class) submit.request_class = value;
    }
    submit.cache_salt = static_cast<uint64_t>(Number("salt", 0));
    submit.timeout_us = Number("timeout", 0);
    submit.prompt = Tokens("prompt");
    submit.generated = Tokens("generated");
    submit.stop.max_tokens = static_cast<uint32_t>(Number("max", 4));
    submit.stop.min_tokens = static_cast<uint32_t>(Number("min", 0));
    submit.stop.end_tokens = Tokens("end");
    const Status status = batcher_->Admit(std::move(submit), now_us_);
    if (!status.ok()) out_ << status.ToString() << "\n";
  }

  void Plan() {
    const StepPlan plan = batcher_->Plan(now_us_);
    if (plan.empty()) {
      out_ << "nothing to compute\n";
      return;
    }
    out_ << "plan " << plan.number << "\n";
    auto& samples = samples_[plan.number];
    for (const SequenceSlice& slice : plan.slices) {
      out_ << "  " << names_[batcher_->InSlot(slice.slot).record.sequence] << " ["
           << slice.first_position << "," << slice.first_position + slice.row_count << ")";
      for (size_t group = 0; group < slice.table_begin.size(); ++group) {
        out_ << " blocks";
        for (uint32_t i = 0; i < slice.table_count[group]; ++i)
          out_ << " " << plan.block_tables[slice.table_begin[group] + i];
      }
      if (plan.tokens[slice.row_begin] == kTokenFromEarlierPlan) out_ << " ahead";
      out_ << (slice.samples ? " *\n" : "\n");
      samples.push_back(slice.samples);
    }
  }

  void Commit(uint64_t number) {
    if (!samples_.contains(number)) {
      out_ << "there is no plan " << number << "\n";
      return;
    }
    const std::vector<TokenId> tokens = Tokens("tokens");
    StepResult result;
    size_t next = 0;
    for (const bool samples : samples_.at(number)) {
      SliceResult& slice = result.slices.emplace_back();
      if (!samples) continue;
      slice.sampled = true;
      slice.token.id = next < tokens.size() ? tokens[next] : static_cast<TokenId>(50 + next);
      ++next;
    }
    batcher_->Commit(number, result, Number("us", 0), now_us_);
  }

  void State() {
    out_ << "running " << batcher_->running_count() << " waiting " << batcher_->waiting_count()
         << " blocks " << batcher_->cache().held_count() << " pauses "
         << batcher_->counters().pauses << " hit " << batcher_->counters().prefix_hit_tokens << "/"
         << batcher_->counters().prefix_query_tokens << "\n";
  }

  void SayUpdates() {
    if (batcher_ == nullptr) return;
    for (const TokenUpdate& update : batcher_->TakeUpdates()) {
      out_ << names_[update.sequence] << " #" << update.first_index << ":";
      for (const SampledToken& token : update.tokens) out_ << " " << token.id;
      if (update.cached_prompt_tokens > 0) out_ << " cached " << update.cached_prompt_tokens;
      if (update.finish != FinishReason::kNone) out_ << " " << FinishReasonName(update.finish);
      if (!update.error.empty()) out_ << " (" << update.error << ")";
      out_ << "\n";
    }
  }

  std::unique_ptr<Batcher> batcher_;
  Arguments arguments_;
  int64_t now_us_ = 0;
  std::map<std::string, SequenceId> ids_;
  std::map<SequenceId, std::string> names_;
  std::map<uint64_t, std::vector<bool>> samples_;
  std::ostringstream out_;
};

// The transcript with every output replaced by what the batcher says now.
std::string Replay(std::istream& in) {
  Conversation conversation;
  std::string result;
  bool in_output = false;
  std::string output;
  for (std::string line; std::getline(in, line);) {
    if (line.empty()) {
      in_output = false;
      result += "\n";
    } else if (line == "----") {
      in_output = true;
      result += "----\n" + (output.empty() ? "ok\n" : output);
      output.clear();
    } else if (!in_output) {
      result += line + "\n";
      if (line[0] != '#') output += conversation.Do(line);
    }
  }
  return result;
}

TEST(BatcherTranscript, EveryTranscriptReadsAsItDid) {
  int count = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator("tests/scheduler/batch/transcripts")) {
    SCOPED_TRACE(entry.path().string());
    std::ifstream file(entry.path());
    std::stringstream expected;
    expected << file.rdbuf();
    const std::string actual = Replay(expected);
    const std::string kept = ::testing::TempDir() + entry.path().filename().string();
    if (actual != expected.str()) std::ofstream(kept) << actual;
    EXPECT_EQ(actual, expected.str()) << "the new transcript is in " << kept;
    ++count;
  }
  EXPECT_GE(count, 7);
}

}  // namespace
}  // namespace muselet
