#include "worker/comm/thread_comm.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <stop_token>
#include <thread>

namespace dsm::comm {
namespace {

// How often a rank looks before it parks: some tens of microseconds, the time that a neighbour with
// the same work is usually late. With more ranks than cores, spinning would take the core from the
// one that is waited for.
int spins_for(int ranks) {
  return ranks <= static_cast<int>(std::thread::hardware_concurrency()) ? 2000 : 0;
}

void relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#endif
}

class Shared {
 public:
  explicit Shared(int size)
      : size_(size),
        spins_(spins_for(size)),
        staging_{Parts(at(size)), Parts(at(size))},
        shared_(at(size)) {}

  int size() const { return size_; }

  // The part of `rank` in the operation with this parity. Written by the rank before the barrier,
  // read by the others after it.
  std::vector<std::byte>& part(unsigned parity, int rank) { return staging_[parity][at(rank)]; }

  // What a rank shares; written and read as a part is.
  std::shared_ptr<void>& shared(int rank) { return shared_[at(rank)]; }

  void barrier() {
    const std::uint32_t generation = generation_.load(std::memory_order_acquire);
    check();
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
      arrived_.store(0, std::memory_order_relaxed);
      generation_.fetch_add(1, std::memory_order_release);
      generation_.notify_all();
    } else {
      for (int i = 0; i < spins_ && generation_.load(std::memory_order_acquire) == generation;
           ++i) {
        relax();
      }
      while (generation_.load(std::memory_order_acquire) == generation) {
        generation_.wait(generation, std::memory_order_acquire);
      }
    }
    check();
  }

  std::stop_token aborted() const { return stop_.get_token(); }

  void abort() noexcept {
    aborted_.store(true, std::memory_order_release);
    stop_.request_stop();
    generation_.fetch_add(1, std::memory_order_release);
    generation_.notify_all();
  }

  void check() const {
    if (aborted_.load(std::memory_order_acquire)) {
      throw CommError("the communicator was aborted");
    }
  }

 private:
  using Parts = std::vector<std::vector<std::byte>>;
  static std::size_t at(int i) { return static_cast<std::size_t>(i); }

  const int size_;
  const int spins_;
  std::array<Parts, 2> staging_;
  std::vector<std::shared_ptr<void>> shared_;
  std::stop_source stop_;
  std::atomic<std::uint32_t> generation_{0};  // barriers passed; also moved on by abort()
  std::atomic<int> arrived_{0};
  std::atomic<bool> aborted_{false};
};

class ThreadCommunicator final : public Communicator {
 public:
  ThreadCommunicator(std::shared_ptr<Shared> shared, int rank)
      : shared_(std::move(shared)), rank_(rank) {}

  int rank() const override { return rank_; }
  int size() const override { return shared_->size(); }

  void all_gather(std::span<const float> send, std::span<float> recv) override {
    meet(std::as_bytes(send));
    collect(send.size_bytes(), std::as_writable_bytes(recv));
  }

  void gather(std::span<const float> send, std::span<float> recv, int root) override {
    meet(std::as_bytes(send));
    if (rank_ == root) {
      collect(send.size_bytes(), std::as_writable_bytes(recv));
    }
  }

  void broadcast(std::span<std::byte> data, int root) override {
    meet(rank_ == root ? std::span<const std::byte>(data) : std::span<const std::byte>());
    if (rank_ != root && !data.empty()) {
      std::memcpy(data.data(), shared_->part(parity_, root).data(), data.size());
    }
  }

  void barrier() override { meet({}); }
  void abort() noexcept override { shared_->abort(); }
  std::stop_token aborted() const override { return shared_->aborted(); }

  std::vector<std::shared_ptr<void>> share(const std::shared_ptr<void>& mine) override {
    shared_->shared(rank_) = mine;
    barrier();
    std::vector<std::shared_ptr<void>> all;
    all.reserve(static_cast<std::size_t>(size()));
    for (int r = 0; r < size(); ++r) all.push_back(shared_->shared(r));
    barrier();  // everybody has them: they may be let go
    shared_->shared(rank_).reset();
    return all;
  }

 private:
  void meet(std::span<const std::byte> mine) {
    shared_->check();
    parity_ ^= 1U;
    std::vector<std::byte>& part = shared_->part(parity_, rank_);
    part.assign(mine.begin(), mine.end());
    shared_->barrier();
  }

  void collect(std::size_t part_size, std::span<std::byte> recv) {
    if (part_size == 0) {
      return;
    }
    for (int r = 0; r < size(); ++r) {
      std::memcpy(recv.data() + static_cast<std::size_t>(r) * part_size,
                  shared_->part(parity_, r).data(), part_size);
    }
  }

  std::shared_ptr<Shared> shared_;
  const int rank_;
  unsigned parity_ = 0;
};

}  // namespace

std::vector<std::unique_ptr<Communicator>> make_thread_communicators(int size) {
  const auto shared = std::make_shared<Shared>(size);
  std::vector<std::unique_ptr<Communicator>> communicators;
  communicators.reserve(static_cast<std::size_t>(size));
  for (int rank = 0; rank < size; ++rank) {
    communicators.push_back(std::make_unique<ThreadCommunicator>(shared, rank));
  }
  return communicators;
}

}  // namespace dsm::comm
