#include "ctl/commands.h"
#include "ctl/objects.h"
#include "operator/api/names.h"

namespace dsm::ctl {

std::string program_version() {
  return DSM_VERSION;
}

Result<int> run(const VersionCommand& command, Cluster* cluster, Io& io) {
  io.out << "dsmctl " << program_version() << "\n";
  if (command.client || cluster == nullptr) return kExitDone;
  const Result<nlohmann::json> server = cluster->version();
  if (!server) return std::unexpected(server.error());
  io.out << "Kubernetes " << printable(text_at(*server, "/gitVersion")) << "\n";
  const auto versions = cluster->api_versions();
  if (!versions) return std::unexpected(versions.error());
  io.out << api::kGroup << ":";
  for (const std::string& version : *versions) io.out << " " << printable(version);
  io.out << "\n";
  return kExitDone;
}

}  // namespace dsm::ctl
