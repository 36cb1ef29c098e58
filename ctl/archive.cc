#include "ctl/archive.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

namespace dsm::ctl {
namespace {

using Writer = std::unique_ptr<archive, int (*)(archive*)>;
using Entry = std::unique_ptr<archive_entry, void (*)(archive_entry*)>;

std::unexpected<Error> failed(archive* writer, const std::string& path) {
  const char* why = archive_error_string(writer);
  return fail(ErrorKind::kInternal, path + ": " + (why == nullptr ? "cannot be written" : why));
}

Status write_to(int file, const std::string& path, const std::vector<BundleFile>& files,
                WallTime time) {
  const Writer writer(archive_write_new(), archive_write_free);
  archive_write_add_filter_gzip(writer.get());
  archive_write_set_format_pax_restricted(writer.get());
  if (archive_write_open_fd(writer.get(), file) != ARCHIVE_OK) return failed(writer.get(), path);
  for (const BundleFile& one : files) {
    const Entry entry(archive_entry_new(), archive_entry_free);
    archive_entry_set_pathname(entry.get(), one.path.c_str());
    archive_entry_set_size(entry.get(), static_cast<la_int64_t>(one.content.size()));
    archive_entry_set_filetype(entry.get(), AE_IFREG);
    archive_entry_set_perm(entry.get(), 0600);
    archive_entry_set_mtime(entry.get(), std::chrono::system_clock::to_time_t(time), 0);
    if (archive_write_header(writer.get(), entry.get()) != ARCHIVE_OK) {
      return failed(writer.get(), path);
    }
    const auto written = archive_write_data(writer.get(), one.content.data(), one.content.size());
    if (written != static_cast<la_ssize_t>(one.content.size())) return failed(writer.get(), path);
  }
  if (archive_write_close(writer.get()) != ARCHIVE_OK) return failed(writer.get(), path);
  return {};
}

}  // namespace

Status write_tar_gz(const std::string& path, const std::vector<BundleFile>& files, WallTime time) {
  const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (file < 0 && errno == EEXIST) {
    return fail(ErrorKind::kConflict, path + " is there already; remove it, or give another name");
  }
  if (file < 0) {
    return fail(ErrorKind::kInvalid, path + " cannot be made: " + std::strerror(errno));
  }
  Status written = write_to(file, path, files, time);
  if (close(file) != 0 && written) {
    written = fail(ErrorKind::kInternal, path + ": " + std::strerror(errno));
  }
  if (!written) unlink(path.c_str());
  return written;
}

}  // namespace dsm::ctl
