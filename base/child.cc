#include "base/child.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <utility>

extern char** environ;

namespace dsm {
namespace {

constexpr Millis kLook{100};          // how often the caller is asked
constexpr Millis kAfterKill{10'000};  // that a killed process may take, as in a device's driver

using Time = std::chrono::steady_clock;

class File {
 public:
  explicit File(int number = -1) : number_(number) {}
  File(File&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() { close(); }
  int number() const { return number_; }
  void close() {
    if (number_ >= 0) ::close(std::exchange(number_, -1));
  }

 private:
  int number_;
};

std::string failed(const char* what, int error) {
  return std::string("cannot ") + what + ": " + std::strerror(error);
}

// posix_spawn()'s descriptions.
class Start {
 public:
  explicit Start(int output) {
    posix_spawn_file_actions_init(&files_);
    posix_spawn_file_actions_addopen(&files_, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&files_, output, STDOUT_FILENO);
    posix_spawn_file_actions_addclosefrom_np(&files_, STDERR_FILENO + 1);
    posix_spawnattr_init(&attributes_);
    posix_spawnattr_setflags(
        &attributes_, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setpgroup(&attributes_, 0);  // a group of its own, which can be killed
    sigset_t set;
    sigemptyset(&set);
    posix_spawnattr_setsigmask(&attributes_, &set);
    sigaddset(&set, SIGPIPE);
    posix_spawnattr_setsigdefault(&attributes_, &set);
  }
  Start(const Start&) = delete;
  Start& operator=(const Start&) = delete;
  ~Start() {
    posix_spawnattr_destroy(&attributes_);
    posix_spawn_file_actions_destroy(&files_);
  }

  // An error number, or 0.
  int run(const std::vector<std::string>& arguments, pid_t& child) const {
    std::vector<char*> all;
    all.reserve(arguments.size() + 1);
    for (const std::string& argument : arguments)
      all.push_back(const_cast<char*>(argument.c_str()));
    all.push_back(nullptr);
    return posix_spawn(&child, all[0], &files_, &attributes_, all.data(), environ);
  }

 private:
  posix_spawn_file_actions_t files_;
  posix_spawnattr_t attributes_;
};

// Waits until one of the two can be read, at most until `limit`; false: neither can.
bool wait_for(int one, int other, Time::time_point limit) {
  std::array<pollfd, 2> files{pollfd{one, POLLIN, 0}, pollfd{other, POLLIN, 0}};
  const auto left = std::chrono::duration_cast<Millis>(limit - Time::now()).count();
  return ::poll(files.data(), files.size(), static_cast<int>(std::max<Millis::rep>(left, 0))) > 0;
}

bool has_ended(int child) {
  pollfd file{child, POLLIN, 0};
  return ::poll(&file, 1, 0) > 0;
}

// Whether there may be more.
bool read_some(int from, std::string& output) {
  std::array<char, 4096> part{};
  const ssize_t count = ::read(from, part.data(), part.size());
  if (count > 0) output.append(part.data(), static_cast<std::size_t>(count));
  return count > 0 || (count < 0 && (errno == EINTR || errno == EAGAIN));
}

// Reads until the child has ended; else says why it has to be ended.
std::string follow(int child, File& pipe, const ChildLimits& limits,
                   const std::function<bool()>& given_up, std::string& output) {
  const auto deadline = Time::now() + limits.time;
  while (!has_ended(child)) {
    if (given_up()) return "was given up";
    if (Time::now() >= deadline) {
      return "was not done after " + std::to_string(limits.time.count()) + " ms";
    }
    if (output.size() > limits.output) {
      return "wrote more than " + std::to_string(limits.output) + " bytes";
    }
    if (!wait_for(pipe.number(), child, std::min(deadline, Time::now() + kLook))) continue;
    pollfd file{pipe.number(), POLLIN, 0};
    if (pipe.number() >= 0 && ::poll(&file, 1, 0) > 0 && !read_some(pipe.number(), output)) {
      pipe.close();  // nobody writes any more; poll() leaves out what has no number
    }
  }
  return "";
}

// What it had written, of which no more comes from those that it has started: they are killed.
void read_rest(const File& pipe, std::size_t most, std::string& output) {
  if (pipe.number() < 0) return;
  ::fcntl(pipe.number(), F_SETFL, O_NONBLOCK);
  while (output.size() <= most) {
    pollfd file{pipe.number(), POLLIN, 0};
    if (::poll(&file, 1, 0) <= 0 || !read_some(pipe.number(), output)) return;
  }
}

std::string how(int status) {
  if (WIFSIGNALED(status)) {
    const char* name = sigabbrev_np(WTERMSIG(status));
    return std::string("was ended by SIG") + (name != nullptr ? name : "nal");
  }
  const int code = WEXITSTATUS(status);
  return code == 0 ? "" : "ended with status " + std::to_string(code);
}

}  // namespace

ChildEnd run_child(const std::vector<std::string>& arguments, const ChildLimits& limits,
                   const std::function<bool()>& given_up) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return {"", failed("make a pipe", errno)};
  File pipe(ends[0]);
  File written(ends[1]);
  pid_t child = 0;
  if (const int error = Start(written.number()).run(arguments, child); error != 0) {
    return {"", failed("start it", error)};
  }
  written.close();
  ChildEnd end;
  const File watched(static_cast<int>(::syscall(SYS_pidfd_open, child, 0)));
  if (watched.number() < 0) {
    end.problem = failed("watch it", errno);
    ::kill(-child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    return end;
  }
  end.problem = follow(watched.number(), pipe, limits, given_up, end.output);
  // While it is not waited for, its number and its group's are nobody else's.
  ::kill(-child, SIGKILL);
  if (!wait_for(-1, watched.number(), Time::now() + kAfterKill)) {
    end.problem += ", and does not end though it is killed";
    return end;
  }
  read_rest(pipe, limits.output, end.output);
  int status = 0;
  ::waitpid(child, &status, 0);
  if (end.problem.empty()) end.problem = how(status);
  if (end.problem.empty() && end.output.size() > limits.output) {
    end.problem = "wrote more than " + std::to_string(limits.output) + " bytes";
  }
  return end;
}

}  // namespace dsm
