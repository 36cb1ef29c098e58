#include "worker/comm/gloo_comm.h"

#include <gloo/transport/buffer.h>
#include <gloo/transport/context.h>
#include <gloo/transport/device.h>
#include <gloo/transport/pair.h>
#include <gloo/transport/tcp/device.h>
#include <gloo/transport/unbound_buffer.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <string>
#include <vector>

namespace dsm::comm {
namespace {

// Bytes of one message; larger operations go in pieces. Per peer, four times as much is registered
// at most, and a decode step's messages (1 to 32 KiB) fit into one.
constexpr std::size_t kCapacity = 256 * 1024;

// Gloo writes to sockets without MSG_NOSIGNAL: a peer that is gone must give an error, not end the
// process. Its event thread inherits the mask of the thread that makes the device.
void block_sigpipe() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
}

// Says in words what is wrong with an address; Gloo itself tells little and leaks the look-up's
// result.
void check_is_ours(const std::string& host) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int rc = getaddrinfo(host.c_str(), nullptr, &hints, &found); rc != 0) {
    throw CommError("cannot look up this process's address " + host + ": " + gai_strerror(rc));
  }
  bool bound = false;
  for (const addrinfo* a = found; a != nullptr && !bound; a = a->ai_next) {
    const int fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);
    if (fd >= 0) {
      bound = bind(fd, a->ai_addr, a->ai_addrlen) == 0;
      close(fd);
    }
  }
  freeaddrinfo(found);
  if (!bound) {
    throw CommError(host + " is not an address of this machine");
  }
}

std::string address_key(int from, int to) {
  return "gloo/" + std::to_string(from) + "/" + std::to_string(to);
}

// What Gloo throws is told on as CommError.
template <typename F>
auto guarded(const char* what, F&& f) {
  try {
    return f();
  } catch (const CommError&) {
    throw;
  } catch (const std::exception& e) {
    throw CommError(std::string(what) + ": " + e.what());
  }
}

}  // namespace

struct GlooCommunicator::Impl {
  using SendBuffers = std::vector<std::unique_ptr<gloo::transport::Buffer>>;

  explicit Impl(const GlooOptions& o) : options(o) {
    block_sigpipe();
    check_is_ours(options.host);
    gloo::transport::tcp::attr attr;
    attr.hostname = options.host;
    device = gloo::transport::tcp::CreateDevice(attr);
    context = device->createContext(options.rank, options.size);
    context->setTimeout(options.timeout);
    for (int peer = 0; peer < options.size; ++peer) {
      if (peer != options.rank) {
        context->createPair(peer);
      }
    }
    for (unsigned half = 0; half < 2; ++half) {
      outgoing[half].resize(kCapacity);
      incoming[half].resize(kCapacity * static_cast<std::size_t>(options.size));
      senders[half].resize(static_cast<std::size_t>(options.size));
      receivers[half].resize(static_cast<std::size_t>(options.size));
    }
  }

  void connect(Rendezvous& rendezvous) {
    // Before a peer can know the address: Gloo does not look again at an empty message that came
    // before there was a buffer for it, and a peer that is connected may send at once.
    for_each_peer([&](int peer) {
      for (unsigned half = 0; half < 2; ++half) {
        receivers[half][at(peer)] = context->getPair(peer)->createRecvBuffer(
            static_cast<int>(half), received(half, peer), kCapacity);
      }
    });
    for_each_peer([&](int peer) {
      const std::vector<char> address = context->getPair(peer)->address().bytes();
      rendezvous.set(address_key(options.rank, peer), {address.begin(), address.end()});
    });
    // In the order of the rank's number on all ranks: each waits for the pair that it connects, and
    // the lowest unconnected pair of ranks is always at its turn on both sides.
    for (int peer = 0; peer < options.size; ++peer) {
      if (peer == options.rank) {
        continue;
      }
      const std::string address = rendezvous.get(address_key(peer, options.rank));
      gloo::transport::Pair& pair = *context->getPair(peer);
      pair.connect({address.begin(), address.end()});
      for (unsigned half = 0; half < 2; ++half) {
        senders[half][at(peer)] =
            pair.createSendBuffer(static_cast<int>(half), outgoing[half].data(), kCapacity);
      }
    }
  }

  // One message from each to each: `mine` to all peers or to `only_to`, an empty one to the rest.
  // What the peers sent is then in received(current, peer).
  void exchange(std::span<const std::byte> mine, int only_to = -1) {
    if (aborted.load(std::memory_order_relaxed)) {
      throw CommError("the communicator was aborted");
    }
    current ^= 1U;
    if (!mine.empty()) {
      std::memcpy(outgoing[current].data(), mine.data(), mine.size());
    }
    for_each_peer([&](int peer) {
      senders[current][at(peer)]->send(0, only_to < 0 || only_to == peer ? mine.size() : 0);
    });
    for_each_peer([&](int peer) { receivers[current][at(peer)]->waitRecv(); });
    for_each_peer([&](int peer) { senders[current][at(peer)]->waitSend(); });
  }

  // Sends `mine` in pieces; after each, `take(peer, bytes, offset)` is called for each rank's
  // piece.
  template <typename Take>
  void exchange_pieces(std::span<const std::byte> mine, int only_to, Take&& take) {
    std::size_t offset = 0;
    do {
      const auto piece = mine.subspan(offset, std::min(kCapacity, mine.size() - offset));
      exchange(piece, only_to);
      if (only_to < 0 || only_to == options.rank) {
        for (int r = 0; r < options.size; ++r) {
          take(r, r == options.rank ? piece : std::span(received(current, r), piece.size()),
               offset);
        }
      }
      offset += piece.size();
    } while (offset < mine.size());
  }

  void collect(std::span<const std::byte> mine, std::span<std::byte> recv, int only_to) {
    exchange_pieces(
        mine, only_to, [&](int from, std::span<const std::byte> bytes, std::size_t offset) {
          std::ranges::copy(
              bytes, recv.begin() + static_cast<std::ptrdiff_t>(at(from) * mine.size() + offset));
        });
  }

  void broadcast(std::span<std::byte> data, int root) {
    std::size_t offset = 0;
    do {
      const auto piece = data.subspan(offset, std::min(kCapacity, data.size() - offset));
      if (options.rank == root) {
        exchange(piece);
      } else {
        exchange({});
        std::ranges::copy(std::span(received(current, root), piece.size()), piece.begin());
      }
      offset += piece.size();
    } while (offset < data.size());
  }

  void abort() noexcept {
    if (aborted.exchange(true)) {
      return;
    }
    stop.request_stop();
    // Gloo closes all pairs of a context and wakes all of its waiters when one operation times out;
    // that is its only door for this. So: an operation that nobody answers.
    try {
      char nothing = 0;
      context->createUnboundBuffer(&nothing, 1)->waitRecv(nullptr, std::chrono::milliseconds(1));
    } catch (const std::exception&) {  // the time-out
      return;
    }
  }

  template <typename F>
  void for_each_peer(F&& f) {
    for (int d = 1; d < options.size; ++d) {
      f((options.rank + d) % options.size);
    }
  }
  static std::size_t at(int i) { return static_cast<std::size_t>(i); }
  std::byte* received(unsigned h, int peer) { return incoming[h].data() + at(peer) * kCapacity; }

  GlooOptions options;
  std::atomic<bool> aborted{false};
  std::stop_source stop;
  unsigned current = 0;  // the half that the operation under way uses
  std::array<std::vector<std::byte>, 2> outgoing;
  std::array<std::vector<std::byte>, 2> incoming;
  // Gloo's objects, in the order in which they depend on each other.
  std::shared_ptr<gloo::transport::Device> device;
  std::shared_ptr<gloo::transport::Context> context;
  std::array<SendBuffers, 2> senders;
  std::array<SendBuffers, 2> receivers;
};

GlooCommunicator::GlooCommunicator(const GlooOptions& options)
    : impl_(guarded("opening ports for the ranks",
                    [&] { return std::make_unique<Impl>(options); })) {}

GlooCommunicator::~GlooCommunicator() = default;

void GlooCommunicator::connect(Rendezvous& rendezvous) {
  guarded("connecting the ranks", [&] { impl_->connect(rendezvous); });
}

int GlooCommunicator::rank() const {
  return impl_->options.rank;
}
int GlooCommunicator::size() const {
  return impl_->options.size;
}

void GlooCommunicator::all_gather(std::span<const float> send, std::span<float> recv) {
  guarded("all_gather",
          [&] { impl_->collect(std::as_bytes(send), std::as_writable_bytes(recv), -1); });
}

void GlooCommunicator::gather(std::span<const float> send, std::span<float> recv, int root) {
  guarded("gather",
          [&] { impl_->collect(std::as_bytes(send), std::as_writable_bytes(recv), root); });
}

void GlooCommunicator::broadcast(std::span<std::byte> data, int root) {
  guarded("broadcast", [&] { impl_->broadcast(data, root); });
}

void GlooCommunicator::barrier() {
  guarded("barrier", [&] { impl_->exchange({}); });
}

void GlooCommunicator::abort() noexcept {
  impl_->abort();
}
std::stop_token GlooCommunicator::aborted() const {
  return impl_->stop.get_token();
}

}  // namespace dsm::comm
