// What it costs two processes of one host to hand each other tensors: shared memory and Gloo over
// loopback side by side in one run, and Gloo's own AllReduce, which promises no order of summation.
//
//   rank_group_bench [--rounds N] [--json FILE]
//   Medians over all rounds; the transports take turns in each round, so that what else the machine
//   does meets all of them. A figure is good on an idle machine with two cores only.
#include <gloo/allreduce.h>
#include <gloo/math.h>
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/file_store.h>
#include <gloo/transport/tcp/device.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/clock.h"
#include "base/json.h"
#include "comms/rank_group_makers.h"
#include "tests/support/shared_rendezvous.h"

namespace muselet::bench {
namespace {

constexpr const char* kUsage = "usage: rank_group_bench [--rounds N] [--json FILE]\n";
constexpr size_t kSizes[] = {2U << 10, 16U << 10, 64U << 10, 1U << 20};
constexpr int64_t kPatienceUs = 60'000'000;

double NowUs() {
  return std::chrono::duration<double, std::micro>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

int64_t Deadline() {
  return Clock::Real().NowUs() + kPatienceUs;
}

// Gloo's own AllReduce among two members.
class PlainGloo {
 public:
  PlainGloo(uint32_t rank, const std::string& folder)
      : store_(folder),
        context_(std::make_shared<gloo::rendezvous::Context>(static_cast<int>(rank), 2)) {
    gloo::transport::tcp::attr address;
    address.hostname = "127.0.0.1";
    auto device = gloo::transport::tcp::CreateDevice(address);
    context_->connectFullMesh(store_, device);
  }
  void AllReduce(std::vector<float>& values) {
    gloo::AllreduceOptions options(context_);
    options.setOutput(values.data(), values.size());
    void (*sum)(void*, const void*, const void*, size_t) = &gloo::sum<float>;
    options.setReduceFunction(sum);
    gloo::allreduce(options);
  }

 private:
  gloo::rendezvous::FileStore store_;
  std::shared_ptr<gloo::rendezvous::Context> context_;
};

struct Ranks {
  std::unique_ptr<RankGroup> shm, gloo;
  std::unique_ptr<PlainGloo> plain;
};

Ranks Join(uint32_t rank, RankRendezvous& rendezvous, const std::string& folder) {
  const RankGroupSpec spec = {.name = "bench",
                              .rank = rank,
                              .size = 2,
                              .message_bytes_max = 4U << 20,
                              .deadline_us = Deadline()};
  auto shm = MakeSharedMemoryGroup(spec, rendezvous);
  CHECK(shm.ok(), shm.status().ToString());
  auto gloo = MakeGlooGroup(spec, "127.0.0.1", rendezvous);
  CHECK(gloo.ok(), gloo.status().ToString());
  return {std::move(*shm), std::move(*gloo), std::make_unique<PlainGloo>(rank, folder)};
}

void Await(RankGroup& group, RankTicket ticket) {
  const Status status = group.Wait(ticket, Deadline());
  CHECK(status.ok(), status.ToString());
}

void SumOnce(RankGroup& group, std::vector<float>& values) {
  Await(group, group.AllReduce(values));
}

void RoundTripOnce(RankGroup& group, std::vector<float>& values) {
  const auto data = std::as_writable_bytes(std::span(values));
  if (group.rank() == 0) group.Send(data, 1);
  Await(group, group.Recv(data, 1 - group.rank()));
  if (group.rank() == 1) Await(group, group.Send(data, 0));
}

using Samples = std::map<std::string, std::vector<double>>;  // microseconds by "what/bytes/how"

void Measure(const std::string& name, size_t bytes, Samples& samples,
             const std::function<void(std::vector<float>&)>& once) {
  const uint32_t turns = bytes > (256U << 10) ? 40 : 200;
  std::vector<float> values(bytes / sizeof(float), 0.0F);
  for (uint32_t i = 0; i < turns / 10; ++i) once(values);
  for (uint32_t i = 0; i < turns; ++i) {
    const double begin = NowUs();
    once(values);
    samples[name].push_back(NowUs() - begin);
  }
}

void PlayRounds(uint32_t rounds, Ranks& ranks, Samples& samples) {
  for (uint32_t round = 0; round < rounds; ++round) {
    for (const size_t bytes : kSizes) {
      const std::string tail = "/" + std::to_string(bytes) + "/";
      for (RankGroup* group : {ranks.shm.get(), ranks.gloo.get()}) {
        const std::string how = tail + std::string(group->transport());
        Measure("all_reduce" + how, bytes, samples, [&](auto& v) { SumOnce(*group, v); });
        Measure("round_trip" + how, bytes, samples, [&](auto& v) { RoundTripOnce(*group, v); });
      }
      Measure("all_reduce" + tail + "gloo's own", bytes, samples,
              [&](auto& v) { ranks.plain->AllReduce(v); });
    }
  }
}

double Median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

void Report(const Samples& samples, const std::string& json) {
  Json report = Json::array();
  std::printf("%-12s %9s %10s %10s %12s %8s %12s\n", "operation", "bytes", "shm us", "gloo us",
              "gloo's own", "ratio", "to its own");
  for (const std::string what : {"all_reduce", "round_trip"}) {
    for (const size_t bytes : kSizes) {
      const std::string at = what + "/" + std::to_string(bytes) + "/";
      const double shm = Median(samples.at(at + "shm"));
      const double gloo = Median(samples.at(at + "gloo"));
      Json row = {{"operation", what},
                  {"bytes", bytes},
                  {"shm_us", shm},
                  {"gloo_us", gloo},
                  {"ratio", gloo / shm}};
      std::printf("%-12s %9zu %10.2f %10.2f ", what.c_str(), bytes, shm, gloo);
      if (samples.contains(at + "gloo's own")) {
        const double own = Median(samples.at(at + "gloo's own"));
        row["gloo_own_us"] = own;
        row["ratio_own"] = own / shm;
        std::printf("%12.2f %8.1f %12.1f\n", own, gloo / shm, own / shm);
      } else {
        std::printf("%12s %8.1f\n", "", gloo / shm);
      }
      report.push_back(row);
    }
  }
  if (!json.empty()) std::ofstream(json) << report.dump(1) << "\n";
}

int Main(int argc, char** argv) {
  uint32_t rounds = 5;
  std::string json;
  for (int i = 1; i < argc; i += 2) {
    const std::string word = argv[i];
    if (i + 1 == argc || (word != "--rounds" && word != "--json")) {
      std::fputs(kUsage, stderr);
      return 2;
    }
    if (word == "--json") json = argv[i + 1];
    if (word == "--rounds") {
      rounds = static_cast<uint32_t>(std::clamp(std::atoi(argv[i + 1]), 1, 1000));
    }
  }
  std::string folder = std::filesystem::temp_directory_path() / "rank_group_bench-XXXXXX";
  CHECK(mkdtemp(folder.data()) != nullptr, folder);
  testing::SharedRendezvous rendezvous;
  const pid_t child = fork();
  CHECK(child >= 0, "fork");
  Samples samples;
  {
    Ranks ranks = Join(child == 0 ? 1 : 0, rendezvous, folder);
    PlayRounds(rounds, ranks, samples);
  }
  if (child == 0) _exit(0);
  int ending = 0;
  waitpid(child, &ending, 0);
  std::filesystem::remove_all(folder);
  Report(samples, json);
  return ending == 0 ? 0 : 1;
}

}  // namespace
}  // namespace muselet::bench

int main(int argc, char** argv) {
  return muselet::bench::Main(argc, argv);
}
