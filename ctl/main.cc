// dsmctl: reads the environment and the command line, connects, runs one command.
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <memory>

#include "ctl/commands.h"
#include "kube/config.h"

namespace dsm::ctl {
namespace {

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// What kubectl would take: the flag, $KUBECONFIG, ~/.kube/config, the pod's own account.
Result<kube::ClientConfig> client_config(const Connection& connection) {
  std::string path = connection.kubeconfig;
  if (path.empty()) path = environment("KUBECONFIG");
  if (path.find(':') != std::string::npos && !std::filesystem::exists(path)) {
    return fail(ErrorKind::kInvalid,
                "$KUBECONFIG names several files, which are not merged here: give one of them "
                "with --kubeconfig");
  }
  if (path.empty()) path = environment("HOME") + "/.kube/config";
  if (std::filesystem::exists(path) || !connection.kubeconfig.empty()) {
    return kube::kubeconfig_file(path, connection.context);
  }
  const std::string host = environment("KUBERNETES_SERVICE_HOST");
  if (host.empty()) {
    return fail(ErrorKind::kInvalid, "there is no kubeconfig: " + path +
                                         " does not exist; give --kubeconfig or set KUBECONFIG");
  }
  return kube::in_cluster_config(host, environment("KUBERNETES_SERVICE_PORT"));
}

Style style_of(int file) {
  Style style;
  if (isatty(file) == 0) return style;
  const std::string terminal = environment("TERM");
  style.colour = environment("NO_COLOR").empty() && !terminal.empty() && terminal != "dumb";
  std::string locale;
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    if (locale.empty()) locale = environment(name);
  }
  style.unicode =
      locale.find("UTF-8") != std::string::npos || locale.find("utf8") != std::string::npos;
  winsize size{};
  if (ioctl(file, TIOCGWINSZ, &size) == 0) style.width = size.ws_col;
  return style;
}

bool asks_the_cluster(const Command& command) {
  if (std::holds_alternative<PrintCommand>(command)) return false;
  if (std::holds_alternative<FitCommand>(command)) return false;
  if (const auto* plan = std::get_if<PlanCommand>(&command)) return !plan->offline;
  if (const auto* version = std::get_if<VersionCommand>(&command)) return !version->client;
  return true;
}

Result<int> dispatch(const Command& command, Cluster* cluster, Io& io) {
  return std::visit(
      [&](const auto& chosen) -> Result<int> {
        using Chosen = std::decay_t<decltype(chosen)>;
        if constexpr (std::is_same_v<Chosen, PrintCommand>) {
          io.out << chosen.text;
          return kExitDone;
        } else if constexpr (std::is_same_v<Chosen, FitCommand>) {
          return run(chosen, io);
        } else if constexpr (std::is_same_v<Chosen, PlanCommand> ||
                             std::is_same_v<Chosen, VersionCommand>) {
          return run(chosen, cluster, io);
        } else {
          return run(chosen, *cluster, io);
        }
      },
      command);
}

Result<int> execute(const Arguments& arguments, Io& io) {
  if (!asks_the_cluster(arguments.command)) {
    return dispatch(arguments.command, nullptr, io);
  }
  auto config = client_config(arguments.connection);
  if (!config) return std::unexpected(config.error());
  kube::initialize_transport_threads(3);
  const auto transport = kube::make_transport(*config);
  if (!transport) return std::unexpected(transport.error());
  SystemClock clock;
  kube::ClientOptions options;
  options.field_manager = "dsmctl";
  options.timeout = Seconds(30);
  kube::Client client(**transport, clock, std::move(options));
  const std::string& ns = arguments.connection.ns;
  Cluster cluster(client, ns.empty() ? config->ns : ns);
  return dispatch(arguments.command, &cluster, io);
}

int run_main(int argc, const char* const* argv) {
  const Result<Arguments> arguments = parse_arguments(argc, argv);
  if (!arguments) {
    std::cerr << "dsmctl: " << arguments.error().message << "\n";
    return kExitUsage;
  }
  Io io{std::cin, std::cout, style_of(STDOUT_FILENO), isatty(STDOUT_FILENO) != 0};
  const Result<int> code = execute(*arguments, io);
  std::cout << std::flush;
  if (!code) {
    std::cerr << "dsmctl: " << printable(code.error().message) << "\n";
    return kExitFailed;
  }
  if (!std::cout) {
    std::cerr << "dsmctl: the output could not be written\n";
    return kExitFailed;
  }
  return *code;
}

}  // namespace
}  // namespace dsm::ctl

int main(int argc, char** argv) {
  try {
    return dsm::ctl::run_main(argc, argv);
  } catch (const std::exception& e) {
    std::cerr << "dsmctl: " << e.what() << "\n";
    return dsm::ctl::kExitFailed;
  }
}
