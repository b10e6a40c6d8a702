#include "node/rank/rank_worker.h"

#include <algorithm>
#include <span>
#include <utility>

#include "base/clock.h"

namespace muselet {
namespace {

// Faults of the groups: another rank is gone or late, and only a new epoch helps.
bool EndsEpoch(const Status& fault) {
  switch (fault.code()) {
    case StatusCode::kUnavailable:
    case StatusCode::kDeadlineExceeded:
    case StatusCode::kDataLoss:
    case StatusCode::kCancelled:
      return true;
    default:
      return false;
  }
}

}  // namespace

// All ranks of the stage learn which ids its first rank drew.
class RankWorker::Ids final : public TokenExchange {
 public:
  Ids(RankGroup* group, const int64_t* deadline_us, int64_t* waited_us)
      : group_(group), deadline_us_(deadline_us), waited_us_(waited_us) {}
  Status Exchange(std::span<TokenId> drawn) override {
    const int64_t begin_us = Clock::Real().NowUs();
    const Status done =
        group_->Wait(group_->Broadcast(std::as_writable_bytes(drawn), 0), *deadline_us_);
    *waited_us_ += Clock::Real().NowUs() - begin_us;
    return done;
  }

 private:
  RankGroup* group_;
  const int64_t* deadline_us_;
  int64_t* waited_us_;
};

RankWorker::RankWorker(std::shared_ptr<RankModel> model, const RankPosition& position,
                       uint32_t slot_count, RankWorkerHandlers handlers)
    : model_(std::move(model)),
      position_(position),
      slot_count_(slot_count),
      handlers_(std::move(handlers)) {}

void RankWorker::Run() {
  while (std::optional<Order> order = NextOrder()) {
    std::visit([this](auto& what) { Do(std::move(what)); }, *order);
  }
}

std::optional<RankWorker::Order> RankWorker::NextOrder() {
  std::unique_lock lock(mutex_);
  wake_.wait(lock, [this] { return stopping_ || !orders_.empty(); });
  if (stopping_) return std::nullopt;
  Order order = std::move(orders_.front());
  orders_.pop_front();
  return order;
}

void RankWorker::MakeGroups(RankForm form) {
  const uint64_t epoch = form.epoch;
  const std::lock_guard lock(mutex_);
  links_ =
      std::make_shared<EpochLinks>(epoch, [this, epoch](const std::string& key, std::string value) {
        handlers_.put(epoch, key, std::move(value));
      });
  steps_ = 0;
  orders_.emplace_back(std::move(form));
  wake_.notify_one();
}

void RankWorker::OnValue(uint64_t epoch, const std::string& key, std::string value) {
  const std::lock_guard lock(mutex_);
  if (links_ && links_->epoch() == epoch) links_->OnValue(key, std::move(value));
}

void RankWorker::Compute(RankStep step) {
  const std::lock_guard lock(mutex_);
  orders_.emplace_back(std::move(step));
  wake_.notify_one();
}

void RankWorker::End(uint64_t epoch, const std::string& reason, bool on_purpose) {
  std::shared_ptr<EpochLinks> links;
  {
    const std::lock_guard lock(mutex_);
    if (links_ && links_->epoch() == epoch) links = links_;
    orders_.clear();
    orders_.emplace_back(TearDown{epoch});
    wake_.notify_one();
  }
  if (links) links->Abort(reason, on_purpose);
}

void RankWorker::Stop() {
  const std::lock_guard lock(mutex_);
  stopping_ = true;
  wake_.notify_one();
}

RankProgressReport RankWorker::progress() const {
  const int64_t since_us = busy_since_us_.load();
  return {steps_.load(),
          since_us == 0 ? 0 : std::max<int64_t>(Clock::Real().NowUs() - since_us, 1)};
}

void RankWorker::Do(RankForm form) {
  std::shared_ptr<EpochLinks> links;
  {
    const std::lock_guard lock(mutex_);
    links = links_;
  }
  const Status made = links->Make(form, position_, Clock::Real().NowUs() + form.timeout_us);
  if (!made.ok()) return handlers_.failed(form.epoch, made.message());
  const RankLinks groups = links->links();
  model_->Connect(groups);
  // Where there are more stages than one, plans name every token.
  if (position_.pipeline == 1 && groups.tensor != nullptr) {
    exchange_ = std::make_unique<Ids>(groups.tensor, &deadline_us_, &waited_us_);
  }
  executor_ = std::make_unique<StepExecutor>(model_, slot_count_,
                                             ExecutorRole{position_.samples(), exchange_.get()});
  handlers_.groups_made(form.epoch);
}

void RankWorker::Do(RankStep step) {
  if (executor_ == nullptr || failed_epoch_ == step.epoch) return;
  const int64_t begin_us = Clock::Real().NowUs();
  busy_since_us_ = begin_us;
  deadline_us_ = begin_us + step.timeout_us;
  model_->SetDeadline(deadline_us_);
  StepWork work;
  work.plan = std::move(step.plan);
  work.starts = std::move(step.starts);
  waited_us_ = 0;
  const int64_t model_waited_us = model_->waited_us();
  executor_->Execute(&work);
  waited_us_ += model_->waited_us() - model_waited_us;
  busy_since_us_ = 0;
  if (EndsEpoch(work.fault) || (!work.fault.ok() && !position_.samples())) {
    failed_epoch_ = step.epoch;
    return handlers_.failed(step.epoch, work.fault.message());
  }
  ++steps_;
  RankDone done;
  done.step = step.step;
  done.step_us = std::max<int64_t>(Clock::Real().NowUs() - begin_us - waited_us_, 0);
  if (position_.samples()) {
    done.fault = std::move(work.fault);
    done.result = std::move(work.result);
  }
  handlers_.done(step.epoch, std::move(done));
}

void RankWorker::Do(const TearDown& tear_down) {
  std::shared_ptr<EpochLinks> links;
  {
    const std::lock_guard lock(mutex_);
    links = std::move(links_);
  }
  executor_.reset();
  exchange_.reset();
  links.reset();
  handlers_.torn_down(tear_down.epoch);
}

}  // namespace muselet
