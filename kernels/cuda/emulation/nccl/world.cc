#include "kernels/cuda/emulation/nccl/world.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <random>

namespace dsm::emulation {

namespace {

// Where processes meet that do not see the same /dev/shm, as those of two pods.
std::string folder() {
  const char* said = std::getenv("DSM_EMULATED_NCCL");
  return said != nullptr ? said : "/dev/shm";
}

}  // namespace

std::string World::make() {
  std::random_device random;
  const std::string name =
      "/dsm-emulated-nccl-" + std::to_string(random()) + "-" + std::to_string(random());
  const int file = ::open((folder() + name).c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
  // Zeros, of which pages are taken as they are written.
  const bool made = file >= 0 && ftruncate(file, sizeof(Shared)) == 0;
  if (file >= 0) close(file);
  return made ? name : "";
}

std::shared_ptr<World> World::open(const std::string& name, int ranks) {
  const int file = ::open((folder() + name).c_str(), O_RDWR | O_CLOEXEC);
  if (file < 0) return nullptr;
  void* memory = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (memory == MAP_FAILED) return nullptr;
  auto* shared = static_cast<Shared*>(memory);
  if (++shared->came == ranks) unlink((folder() + name).c_str());
  return std::shared_ptr<World>(new World(shared, ranks));
}

World::~World() {
  munmap(shared_, sizeof(Shared));
}

void World::give(int rank, std::uint64_t operation, std::span<const float> part) {
  Place& place = shared_->places[rank][operation % 2];
  std::ranges::copy(part, place.values);
  place.given = operation + 1;
}

bool World::all_there(std::uint64_t operation) const {
  for (int rank = 0; rank < ranks_; ++rank) {
    if (place(rank, operation).given != operation + 1) return false;
  }
  return true;
}

bool World::ready(std::uint64_t operation) const {
  return shared_->aborted || all_there(operation);
}

std::span<const float> World::part(int rank, std::uint64_t operation, std::size_t count) const {
  return {place(rank, operation).values, count};
}

void World::abort() {
  shared_->aborted = true;
}

}  // namespace dsm::emulation
