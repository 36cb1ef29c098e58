#include "kernels/cuda/emulation/races.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <limits>
#include <string_view>

#include "kernels/cuda/emulation/memory.h"
#include "kernels/cuda/emulation/raw_memory.h"

extern "C" {
[[gnu::weak]] extern char __start_dsm_shared[];
[[gnu::weak]] extern char __stop_dsm_shared[];
}

namespace dsm::emulation {
namespace {

constexpr std::size_t kNobody = std::numeric_limits<std::size_t>::max();
constexpr std::size_t kLanes = 32;

std::atomic<std::uint32_t> next_group = 1;

void lower(std::vector<std::uint32_t>& clocks, const std::vector<std::uint32_t>& others) {
  clocks.resize(std::min(clocks.size(), others.size()));
  for (std::size_t i = 0; i < clocks.size(); ++i) clocks[i] = std::min(clocks[i], others[i]);
}

// Places are kept as distances from here.
std::uint32_t place_of(const void* pc) {
  return static_cast<std::uint32_t>(reinterpret_cast<std::uintptr_t>(pc) -
                                    reinterpret_cast<std::uintptr_t>(&kernels_are_watched));
}
const void* pc_of(std::uint32_t place) {
  return reinterpret_cast<const char*>(&kernels_are_watched) + static_cast<std::int32_t>(place);
}
// The line, and those into which it is inlined; the emulator's own are not told of.
std::string line_of(const void* pc) {
  char lines[4096] = "";  // one after the other, each with its end
  if (__sanitizer_symbolize_pc != nullptr) {
    __sanitizer_symbolize_pc(const_cast<void*>(pc), "%s:%l", lines, sizeof lines);
  }
  std::string all;
  for (std::string_view left(lines, sizeof lines); left.front() != '\0';) {
    const std::string_view line = left.substr(0, left.find('\0'));
    left.remove_prefix(line.size() + 1);
    if (line.find("/emulation/order.h") != line.npos) continue;
    if (line.find("/emulation/include/") != line.npos) continue;
    all += all.empty() ? "at " : " in ";
    all += line.substr(line.rfind('/') + 1);
  }
  if (all.empty()) all = "at an unknown place";
  return all;
}

}  // namespace

void Races::begin_kernel(Kernel kernel) {
  kernel_ = std::move(kernel);
  first_group_ = next_group.fetch_add(kernel_.groups);
  published_.clear();
  shadow_.begin_kernel([](std::uintptr_t page) { return is_of_device(page, kPageBytes); });
}

void Races::begin_group(std::uint32_t number) {
  group_ = first_group_ + number;
  gates_.clear();
  actors_.clear();
  auto nothing = std::make_shared<Clocks>();
  nothing->group = group_;
  threads_.assign(kernel_.threads * kernel_.blocks, {});
  for (Thread& t : threads_) t.known = nothing;
}

std::uint16_t Races::actor(Engine engine, std::uintptr_t of) {
  return actors_
      .try_emplace({engine, of}, static_cast<std::uint16_t>(threads_.size() + actors_.size()))
      .first->second;
}

// What it knows beside `known`.
void Races::note_all(Clocks& clocks, const Thread& thread, std::size_t self) const {
  for (const auto& [actor, clock] : thread.own) clocks.note(actor, clock);
  clocks.note(self, thread.clock);
}

Known Races::all_of(const Thread& thread, std::size_t self) const {
  auto all = std::make_shared<Clocks>(*thread.known);
  note_all(*all, thread, self);
  return all;
}

void Races::learn(std::size_t actor, std::uint32_t clock) {
  auto& own = thread().own;
  const auto at = std::ranges::find(own, actor, &std::pair<std::size_t, std::uint32_t>::first);
  if (at != own.end()) {
    at->second = std::max(at->second, clock);
  } else if (clock > 0) {
    own.emplace_back(actor, clock);
  }
}

// each(f) calls f for all who meet.
template <class Each>
void Races::meet_all(const Each& each) {
  auto joined = std::make_shared<Clocks>();
  joined->group = group_;
  const Clocks* last = nullptr;
  each([&](std::size_t t) {
    if (threads_[t].known.get() != last) joined->join(threads_[t].known);
    last = threads_[t].known.get();
  });
  each([&](std::size_t t) { note_all(*joined, threads_[t], t); });
  const Known known = std::move(joined);
  each([&](std::size_t t) {
    threads_[t].known = known;
    threads_[t].own.clear();
    ++threads_[t].clock;
  });
}

void Races::meet(std::size_t first, std::size_t count) {
  meet_all([&](const auto& come) {
    for (std::size_t t = first; t < first + count; ++t) come(t);
  });
}

void Races::meet_lanes(std::size_t first, std::uint32_t lanes) {
  meet_all([&](const auto& come) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      if ((lanes >> lane & 1U) != 0) come(first + lane);
    }
  });
}

void Races::fence(Scope scope) {
  Thread& t = thread();
  t.known = both(t.known, std::exchange(t.seen_block, nullptr));
  if (scope == Scope::kDevice) t.known = both(t.known, std::exchange(t.seen_device, nullptr));
  t.told_block = all_of(t, current_);
  if (scope == Scope::kDevice) t.told_device = t.told_block;
  ++t.clock;
}

void Races::acquire() {
  Thread& t = thread();
  t.known = both(t.known, std::exchange(t.seen_block, nullptr));
  t.known = both(t.known, std::exchange(t.seen_device, nullptr));
}

void Races::proxy_fence() {
  Thread& t = thread();
  t.proxy_fences.push_back(t.clock++);
}

void Races::strong(const void* at, std::size_t bytes, Strong what, const void* place) {
  access(at, bytes, what == Strong::kRead ? kStrong : kStrong | kWrites, place);
  Thread& t = thread();
  Published& all = published_[at];
  const bool of_mine = all.of_group == group_ && all.of_block == block_of(current_);
  if (what != Strong::kWrite) {
    if (of_mine) t.seen_block = both(t.seen_block, all.block);
    t.seen_device = both(t.seen_device, all.device);
  }
  if (what == Strong::kRead) return;
  // An update hands on what was there before it.
  const bool hands_on = what == Strong::kUpdate;
  all.block = hands_on && of_mine ? both(all.block, t.told_block) : t.told_block;
  all.of_group = group_;
  all.of_block = block_of(current_);
  all.device = hands_on ? both(all.device, t.told_device) : t.told_device;
}

void Races::begin_arrivals(const void* barrier, const void* place) {
  access(barrier, sizeof(std::uint64_t), kWrites, place);
  Gate gate;
  gate.came.group = gate.came_far.group = group_;
  gates_[barrier] = std::move(gate);
  proxy_fence();
}

void Races::arrive(const void* barrier, bool here, Reach reach, bool ended, const void* place) {
  access(barrier, sizeof(std::uint64_t), kWrites | kStrong, place);
  Gate& gate = gates_[barrier];
  Thread& t = thread();
  if (here) {
    gate.came.join(t.known);
    note_all(gate.came, t, current_);
  } else if (reach == Reach::kCluster) {
    gate.came_far.join(t.known);
    note_all(gate.came_far, t, current_);
  } else {
    const Known all = all_of(t, current_);
    gate.came.join_reads(*all);
    gate.came_far.join_reads(*all);
  }
  ++t.clock;
  if (ended) end_arrivals(barrier);
}

void Races::end_arrivals(const void* barrier) {
  Gate& gate = gates_[barrier];
  gate.ended = std::make_shared<Clocks>(gate.came);
  gate.ended_far = std::make_shared<Clocks>(gate.came_far);
}

void Races::waited(const void* barrier, Reach reach, const void* place) {
  access(barrier, sizeof(std::uint64_t), kStrong, place);
  const Gate& gate = gates_[barrier];
  Thread& t = thread();
  t.known = both(t.known, gate.ended);
  if (reach == Reach::kCluster) t.known = both(t.known, gate.ended_far);
}

void Races::copy(void* to, const void* from, std::size_t bytes, const void* barrier, unsigned ended,
                 const void* place) {
  const auto of = reinterpret_cast<std::uintptr_t>(barrier);
  touch(from, bytes, by_engine(Engine::kBulk, of, ended + 1, kAsync, place));
  touch(to, bytes, by_engine(Engine::kBulk, of, ended + 1, kAsync | kWrites, place));
}

void Races::waited_for_copies(const void* barrier, unsigned ended, const void* place) {
  waited(barrier, Reach::kBlock, place);
  learn(actor(Engine::kBulk, reinterpret_cast<std::uintptr_t>(barrier)), ended);
}

void Races::late_copy(void* to, const void* from, const void* place) {
  const std::uint32_t clock = thread().copies + 1;
  if (from != nullptr) touch(from, 16, by_engine(Engine::kCopies, current_, clock, 0, place));
  touch(to, 16, by_engine(Engine::kCopies, current_, clock, kWrites, place));
}

void Races::end_group_of_copies() {
  ++thread().copies;
}

void Races::waited_for_groups(unsigned left) {
  const unsigned all = thread().copies;
  learn(actor(Engine::kCopies, current_), all > left ? all - left : 0);
}

void Races::store(void* to, const void* from, std::size_t bytes, const void* place) {
  const std::uint32_t clock = ++thread().stores;
  touch(from, bytes, by_engine(Engine::kStoreReads, current_, clock, kAsync, place));
  touch(to, bytes, by_engine(Engine::kStoreWrites, current_, clock, kAsync | kWrites, place));
}

void Races::waited_for_stores(bool done) {
  const std::uint32_t all = thread().stores;
  learn(actor(Engine::kStoreReads, current_), all);
  if (done) learn(actor(Engine::kStoreWrites, current_), all);
}

void Races::multiply(std::span<const void* const> from, std::size_t bytes, const void* place) {
  const std::size_t first = current_ / kLanes * kLanes;
  // What every lane knows; of one, in the same memory each time.
  Clocks& common = common_;
  for (std::size_t lane = 0; lane < kLanes; ++lane) {
    Clocks& its = lane == 0 ? common : lanes_;
    its = *threads_[first + lane].known;
    note_all(its, threads_[first + lane], first + lane);
    if (lane > 0) lower(common.done, its.done);
    if (lane > 0) lower(common.read, its.read);
  }
  Access access = by_engine(Engine::kProducts, first, thread().products + 1, kAsync, place);
  access.known = &common;
  access.self = kNobody;
  for (const void* each : from) touch(each, bytes, access);
}

void Races::end_group_of_products() {
  ++thread().products;
}

void Races::waited_for_products(unsigned left) {
  const unsigned all = thread().products;
  learn(actor(Engine::kProducts, current_ / kLanes * kLanes), all > left ? all - left : 0);
}

Races::Access Races::by_thread(unsigned kind, const void* place) {
  const Thread& t = thread();
  return {t.known.get(), &t, current_, static_cast<std::uint16_t>(current_), t.clock, kind, place};
}

Races::Access Races::by_engine(Engine engine, std::uintptr_t of, std::uint32_t clock, unsigned kind,
                               const void* place) {
  Access access = by_thread(kind, place);
  access.actor = actor(engine, of);
  access.clock = clock;
  return access;
}

// How far the other one has come of which the access can be sure.
std::uint32_t Races::known_clock(const Access& access, const Touch& touch, bool read) const {
  const Clocks* clocks = access.known;
  if (touch.group == group_) {
    if (touch.actor == access.self) return access.thread->clock;
    if (access.self != kNobody) {
      for (const auto& [actor, clock] : access.thread->own) {
        if (actor == touch.actor && clock >= touch.clock) return clock;
      }
    }
  } else {
    const auto at = clocks->before.find(touch.group);
    if (at == clocks->before.end()) return 0;
    clocks = at->second.get();
  }
  return clock_of(read ? clocks->read : clocks->done, touch.actor);
}

// Whether who has written has put a proxy fence behind it, of which the access can be sure.
bool Races::fenced(const Access& access, const Touch& touch) const {
  if (touch.group != group_) return false;
  const auto& fences = threads_[touch.actor].proxy_fences;
  const auto fence = std::ranges::lower_bound(fences, touch.clock);
  return fence != fences.end() && *fence <= known_clock(access, touch, false);
}

bool Races::is_shared(std::uintptr_t address) const {
  return address - kernel_.shared < kernel_.shared_bytes ||
         (address >= reinterpret_cast<std::uintptr_t>(__start_dsm_shared) &&
          address < reinterpret_cast<std::uintptr_t>(__stop_dsm_shared));
}

std::unique_ptr<Page> Races::watch(std::uintptr_t page) const {
  bool shared = false;
  for (const std::uintptr_t at : {page, page + kPageBytes - 1}) shared = shared || is_shared(at);
  // A section that is shorter than a page.
  const auto variables = reinterpret_cast<std::uintptr_t>(__start_dsm_shared);
  shared = shared || (variables >= page && variables < page + kPageBytes);
  if (!shared && !is_of_device(page, kPageBytes)) return nullptr;
  return std::make_unique<Page>(shared);
}

void Races::access(const void* at, std::size_t bytes, unsigned kind, const void* place) {
  touch(at, bytes, by_thread(kind, place));
}

void Races::touch(const void* at, std::size_t bytes, const Access& access) {
  auto address = reinterpret_cast<std::uintptr_t>(at);
  while (bytes > 0) {
    const std::size_t here = std::min(bytes, kPageBytes - address % kPageBytes);
    Page* const page = shadow_.page(address, [this](std::uintptr_t its) { return watch(its); });
    if (page != nullptr) {
      unsigned shift = page->shift;
      while (((address | here) & ((1U << shift) - 1U)) != 0) --shift;
      if (shift != page->shift) page->split_to(shift);
      Cell* cell = page->cells.data() + (address % kPageBytes >> shift);
      for (std::size_t i = 0; i < here >> shift; ++i) {
        touch_cell(cell[i], page->shared, address + (i << shift), here, access);
      }
    }
    address += here;
    bytes -= here;
  }
}

void Races::touch_cell(Cell& cell, bool shared, std::uintptr_t at, std::size_t bytes,
                       const Access& access) {
  const auto is_last = [&](const Touch& touch) {
    return touch.actor == access.actor && touch.group == group_ && touch.clock == access.clock &&
           touch.kind == access.kind;
  };
  const bool writes = (access.kind & kWrites) != 0;
  const bool strong = (access.kind & kStrong) != 0;
  if (is_last(writes ? cell.write : cell.reads[0]) && !strong) {
    if (!writes || !of_kernel(cell.reads[0], shared)) return;
  }
  const Touch now{group_, access.clock, place_of(access.place), access.actor,
                  static_cast<std::uint16_t>(access.kind)};
  const Touch& write = cell.write;
  if (of_kernel(write, shared) && !(strong && (write.kind & kStrong) != 0)) {
    // A copy that somebody has waited for is there, whoever hears of it in whatever way.
    const bool there = writes && (write.kind & kAsync) != 0;
    const bool known = known_clock(access, write, there) >= write.clock;
    if (!known) {
      report(at, bytes, shared, access, write, "nothing orders them");
    } else if ((access.kind & kAsync) != 0 && (write.kind & kAsync) == 0 &&
               !fenced(access, write)) {
      report(at, bytes, shared, access, write,
             "no proxy fence of the thread that wrote is between them");
    } else if ((access.kind & kConstant) != 0) {
      report(at, bytes, shared, access, write, "it is read as if the kernel did not write it");
    }
  }
  if (writes) {
    for (const Touch& read : cell.reads) {
      if (!of_kernel(read, shared) || (strong && (read.kind & kStrong) != 0)) continue;
      if (known_clock(access, read, true) < read.clock) {
        report(at, bytes, shared, access, read, "nothing orders them");
      } else if ((read.kind & kConstant) != 0) {
        report(at, bytes, shared, access, read, "it was read as if the kernel did not write it");
      }
    }
    cell.write = now;
    cell.reads = {};
    return;
  }
  // In the place of its own last one or of one that is in order before it, or of any.
  std::size_t slot = turn_++ % Cell::kReads;
  for (std::size_t i = 0; i < Cell::kReads; ++i) {
    const Touch& read = cell.reads[i];
    if (!of_kernel(read, shared) ||
        (known_clock(access, read, false) >= read.clock && (read.kind & ~access.kind) == 0)) {
      slot = i;
      break;
    }
  }
  cell.reads[slot] = now;
  if (slot > 0) std::swap(cell.reads[0], cell.reads[slot]);
}

std::string Races::actor_name(const Touch& touch) const {
  if (touch.actor < threads_.size()) return kernel_.name(touch.group - first_group_, touch.actor);
  if (touch.group != group_)
    return "what copies for " + kernel_.name(touch.group - first_group_, 0);
  for (const auto& [engine, actor] : actors_) {
    if (actor != touch.actor) continue;
    switch (engine.first) {
      case Engine::kBulk:
        return "a bulk copy to shared memory";
      case Engine::kCopies:
        return "a copy (cp.async) for " + kernel_.name(0, engine.second);
      case Engine::kStoreReads:
      case Engine::kStoreWrites:
        return "a bulk copy from shared memory";
      case Engine::kProducts:
        return "a warpgroup's product";
    }
  }
  return "somebody";
}

void Races::report(std::uintptr_t at, std::size_t bytes, bool shared, const Access& access,
                   const Touch& other, const char* why) const {
  const auto verb = [](unsigned kind) {
    const bool writes = (kind & kWrites) != 0;
    if ((kind & kStrong) != 0) return writes ? "updates" : "reads as a whole";
    return writes ? "writes" : "reads";
  };
  Touch mine;
  mine.group = group_;
  mine.actor = access.actor;
  char where[96];
  if (shared && at - kernel_.shared < kernel_.shared_bytes) {
    const std::size_t each = kernel_.shared_bytes / kernel_.blocks;
    std::snprintf(where, sizeof where, "shared memory at byte %zu",
                  static_cast<std::size_t>(at - kernel_.shared) % each);
  } else {
    std::snprintf(where, sizeof where, "%s at %#zx", shared ? "a shared variable" : "memory", at);
  }
  kernel_.fail("a race: " + actor_name(mine) + " " + verb(access.kind) + " " +
               std::to_string(bytes) + " bytes of " + where + " " + line_of(access.place) +
               ", and " + actor_name(other) + " " + verb(other.kind) + " it " +
               line_of(pc_of(other.place)) + ": " + why);
}

}  // namespace dsm::emulation
