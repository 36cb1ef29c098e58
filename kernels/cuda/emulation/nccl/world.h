// What the ranks of a communicator share, threads of a process or processes of a machine: for each
// rank two places, into which it writes what it gives to operations in turn. A rank that has all
// parts of an operation knows that the others are through with the one before.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace dsm::emulation {

class World {
 public:
  static constexpr int kMostRanks = 8;
  static constexpr std::size_t kMostValues = std::size_t{1} << 20;  // of a part

  // A new one, gone when `ranks` have come to it; and its name, shorter than 100 characters.
  static std::string make();
  // Null: there is none of this name.
  static std::shared_ptr<World> open(const std::string& name, int ranks);
  World(const World&) = delete;
  World& operator=(const World&) = delete;
  ~World();

  void give(int rank, std::uint64_t operation, std::span<const float> part);
  // All parts are there, or there will be no more.
  bool ready(std::uint64_t operation) const;
  bool all_there(std::uint64_t operation) const;
  std::span<const float> part(int rank, std::uint64_t operation, std::size_t count) const;
  void abort();

 private:
  struct Place {
    std::atomic<std::uint64_t> given;  // operations, the last of which stands here; 0: none
    float values[kMostValues];
  };
  struct Shared {
    std::atomic<int> came;
    std::atomic<bool> aborted;
    Place places[kMostRanks][2];
  };

  World(Shared* shared, int ranks) : shared_(shared), ranks_(ranks) {}
  const Place& place(int rank, std::uint64_t operation) const {
    return shared_->places[rank][operation % 2];
  }

  Shared* const shared_;
  const int ranks_;
};

}  // namespace dsm::emulation
