#include "worker/group/adapters.h"

#include <algorithm>
#include <utility>

namespace dsm::group {

void SharedAdapters::add(const AdapterPointer& adapter, std::string path, std::string digest) {
  const std::lock_guard lock(mutex_);
  std::erase_if(entries_, [&](const Entry& entry) { return entry.adapter.id == adapter->id; });
  entries_.push_back({.adapter = {.id = adapter->id,
                                  .name = adapter->name,
                                  .path = std::move(path),
                                  .digest = std::move(digest)},
                      .alive = adapter});
}

Status SharedAdapters::share(const AdapterPointer& adapter, std::string path, std::string digest) {
  add(adapter, std::move(path), std::move(digest));
  std::unique_lock lock(mutex_);
  if (!news_) {
    return fail(ErrorKind::kTransient, "the group is not there");
  }
  const auto mine = waiting_.emplace(adapter->id, std::nullopt).first;
  news_();
  answered_.wait(lock, [&] { return mine->second.has_value(); });
  Status answer = mine->second.value_or(Status());  // it has one
  waiting_.erase(mine);
  return answer;
}

void SharedAdapters::listen(std::function<void()> news) {
  const std::lock_guard lock(mutex_);
  news_ = std::move(news);
  if (news_) {
    return;
  }
  for (auto& [id, answer] : waiting_) {
    if (!answer) {
      answer = fail(ErrorKind::kTransient, "the worker is shutting down");
    }
  }
  answered_.notify_all();
}

std::vector<SharedAdapter> SharedAdapters::wanted() {
  const std::lock_guard lock(mutex_);
  std::erase_if(entries_, [](const Entry& entry) { return entry.alive.expired(); });
  std::vector<SharedAdapter> all;
  all.reserve(entries_.size());
  for (const Entry& entry : entries_) {
    all.push_back(entry.adapter);
  }
  std::ranges::sort(all, {}, &SharedAdapter::id);
  return all;
}

std::vector<engine::AdapterId> SharedAdapters::waiting() const {
  const std::lock_guard lock(mutex_);
  std::vector<engine::AdapterId> ids;
  for (const auto& [id, answer] : waiting_) {
    if (!answer) {
      ids.push_back(id);
    }
  }
  return ids;
}

void SharedAdapters::answer(engine::AdapterId id, Status answer) {
  {
    const std::lock_guard lock(mutex_);
    const auto found = waiting_.find(id);
    if (found == waiting_.end() || found->second) {
      return;
    }
    found->second = std::move(answer);
  }
  answered_.notify_all();
}

void HeldAdapters::add(SharedAdapter adapter, AdapterPointer held) {
  held_[adapter.id] = {.digest = std::move(adapter.digest), .adapter = std::move(held)};
}

std::vector<AdapterFailure> HeldAdapters::keep(const std::vector<SharedAdapter>& wanted) {
  // First: there may be no room for both.
  std::erase_if(held_, [&](const auto& held) {
    return std::ranges::none_of(wanted, [&](const SharedAdapter& w) {
      return w.id == held.first && w.digest == held.second.digest;
    });
  });
  std::vector<AdapterFailure> failures;
  for (const SharedAdapter& adapter : wanted) {
    if (held_.contains(adapter.id)) {
      continue;
    }
    if (auto loaded = load_(adapter)) {
      add(adapter, std::move(*loaded));
    } else {
      failures.push_back({.id = adapter.id, .message = loaded.error().message});
    }
  }
  return failures;
}

}  // namespace dsm::group
