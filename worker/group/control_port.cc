#include "worker/group/control_port.h"

#include <cstddef>
#include <utility>
#include <variant>

#include "base/random.h"

namespace dsm::group {
namespace {

constexpr Millis kGreetingTimeout{5000};
constexpr Millis kAcceptRound{200};
constexpr std::size_t kMaxConnections = 64;  // greeted or not

}  // namespace

std::string refusal(const GroupOptions& options, const Hello& hello, const std::string& nonce) {
  if (!same_proof(hello.proof, hello_proof(options.token, nonce, hello))) {
    return "wrong token";
  }
  if (hello.pod_index < 1 || hello.pod_index >= options.pods() ||
      hello.tensor_parallel != options.tensor_parallel ||
      hello.ranks_per_pod != options.ranks_per_pod) {
    return "pod " + std::to_string(hello.pod_index) + " with " +
           std::to_string(hello.ranks_per_pod) + " of " + std::to_string(hello.tensor_parallel) +
           " ranks does not fit into a group of " + std::to_string(options.pods()) + " pods with " +
           std::to_string(options.ranks_per_pod) + " of " +
           std::to_string(options.tensor_parallel) + " ranks";
  }
  if (hello.revision != options.revision) {
    return "it is of revision \"" + hello.revision + "\", the group of \"" + options.revision +
           "\"";
  }
  if (hello.model_digest != options.model_digest) {
    return "its model or its settings differ from the leader's";
  }
  return "";
}

ControlPort::ControlPort(const GroupOptions& options, Logger log, Events events)
    : options_(options), log_(std::move(log)), events_(std::move(events)) {}

ControlPort::~ControlPort() {
  stopping_ = true;
  if (acceptor_.joinable()) {
    acceptor_.join();
  }
  for (Connection& c : connections_) {
    c.channel->shutdown();
  }
  for (Connection& c : connections_) {
    c.thread.join();
  }
}

Status ControlPort::open() {
  auto listener = Listener::open(options_.bind_host, options_.control_port);
  if (!listener) {
    return std::unexpected(listener.error());
  }
  number_ = listener->port();
  acceptor_ = std::thread([this, l = std::move(*listener)] { accept(l); });
  return {};
}

void ControlPort::accept(const Listener& listener) {
  while (!stopping_) {
    std::erase_if(connections_, [](Connection& c) {
      if (!c.done) {
        return false;
      }
      c.thread.join();
      return true;
    });
    auto socket = listener.accept(kAcceptRound);
    if (!socket || connections_.size() >= kMaxConnections) {
      continue;  // one connection too many is closed here
    }
    Connection& c = connections_.emplace_back();
    c.channel = std::make_shared<Channel>(std::move(*socket));
    c.thread = std::thread([this, &c] {
      serve(c.channel);
      c.done = true;
    });
  }
}

// A connection's thread, from the first byte to the last.
void ControlPort::serve(const std::shared_ptr<Channel>& channel) {
  const std::string nonce = random_hex(16);
  if (!channel->send(Challenge{.nonce = nonce})) {
    return;
  }
  const auto first = channel->receive(kGreetingTimeout, kMaxGreeting);
  const Hello* hello = first && *first ? std::get_if<Hello>(&**first) : nullptr;
  if (hello == nullptr) {
    log_.info("control connection without a greeting closed", {{"peer", channel->peer()}});
    channel->shutdown();
    return;
  }
  if (const std::string why = refusal(options_, *hello, nonce); !why.empty()) {
    log_.info("pod refused", {{"pod", hello->pod_index}, {"peer", channel->peer()}, {"why", why}});
    (void)channel->send(Refused{.message = why});  // it is gone either way
    channel->shutdown();
    return;
  }
  if (!channel->send(Welcome{.proof = welcome_proof(options_.token, nonce, hello->nonce)})) {
    return;
  }
  events_.admitted(*hello, channel);
  const Error why = read(hello->pod_index, *channel);
  channel->shutdown();
  events_.ended(hello->pod_index, channel.get(), why);
}

// Returns why the connection ended.
Error ControlPort::read(int pod, Channel& channel) {
  for (;;) {
    auto message = channel.receive(options_.heartbeat_timeout);
    if (!message) {
      return message.error();
    }
    if (!*message) {
      return {.kind = ErrorKind::kTransient,
              .message = "it was silent for " + std::to_string(options_.heartbeat_timeout.count()) +
                         " ms"};
    }
    if (!events_.received(pod, **message)) {
      return {.kind = ErrorKind::kInvalid, .message = "it sent what a follower does not send"};
    }
  }
}

}  // namespace dsm::group
