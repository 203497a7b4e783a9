#include "trainer/checkpoint/checkpoint_directory.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "kernels/core/errors.h"
#include "trainer/checkpoint/hash.h"
#include "trainer/checkpoint/posix_file.h"

namespace jamba {

namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kMaxManifestBytes = std::int64_t{1} << 30;
constexpr std::string_view kStepPrefix = "step-";
constexpr std::string_view kTemporaryPrefix = ".tmp-";

std::string step_name(std::int64_t step) { return fmt::format("step-{:08d}", step); }

/// The step of a directory named step-N; nothing for any other name.
std::optional<std::int64_t> step_of(const std::string& name) {
  if (!name.starts_with(kStepPrefix)) return std::nullopt;
  const std::string digits = name.substr(kStepPrefix.size());
  if (digits.size() < 8 || digits.size() > 18) return std::nullopt;
  if (digits.find_first_not_of("0123456789") != std::string::npos) return std::nullopt;
  return std::stoll(digits);
}

/// Names in a directory; none if there is no such directory.
std::vector<std::string> list(const std::string& root) {
  std::error_code error;
  fs::directory_iterator it(root, error);
  if (error == std::errc::no_such_file_or_directory || error == std::errc::not_a_directory) {
    return {};
  }
  std::vector<std::string> names;
  while (!error && it != fs::directory_iterator()) {
    names.push_back(it->path().filename().string());
    it.increment(error);
  }
  if (error) throw IoError(fmt::format("{}: cannot list: {}", root, error.message()));
  return names;
}

/// Paths of all checkpoints, the newest first.
std::vector<std::string> checkpoints(const std::string& root) {
  std::vector<std::pair<std::int64_t, std::string>> found;
  for (const std::string& name : list(root)) {
    if (const auto step = step_of(name)) found.emplace_back(-*step, root + "/" + name);
  }
  std::sort(found.begin(), found.end());
  std::vector<std::string> paths;
  for (auto& [step, path] : found) paths.push_back(std::move(path));
  return paths;
}

void remove_tree(const std::string& path) {
  std::error_code error;
  fs::remove_all(path, error);  // does not follow links
  if (error) throw IoError(fmt::format("{}: cannot remove: {}", path, error.message()));
}

/// Runs f; what it finds wrong with the files is the checkpoint's fault.
template <class F>
auto as_checkpoint_error(F&& f) {
  try {
    return f();
  } catch (const DataError& e) {
    throw CheckpointError(e.what());
  } catch (const NoInputError& e) {
    throw CheckpointError(e.what());
  }
}

/// Errors: CheckpointError unless all files but the manifest have their sizes.
Manifest read_sound_manifest(const std::string& path) {
  Manifest manifest = read_manifest(path);
  for (const FileRecord& file : manifest.files) verify_size(path, file);
  return manifest;
}

}  // namespace

std::string checkpoint_path(const std::string& root, std::int64_t step) {
  return root + "/" + step_name(step);
}

std::string staging_path(const std::string& root, std::int64_t step) {
  return fmt::format("{}/{}{}", root, kTemporaryPrefix, step_name(step));
}

std::string begin_checkpoint(const std::string& root, std::int64_t step) {
  std::error_code error;
  fs::create_directories(root, error);
  if (error) {
    throw CannotCreateError(
        fmt::format("{}: cannot create: {} (errno {})", root, error.message(), error.value()));
  }
  const std::string path = staging_path(root, step);
  discard_checkpoint(root, step);
  if (::mkdir(path.c_str(), 0755) != 0) {
    throw CannotCreateError(system_message(path, "cannot create"));
  }
  return path;
}

void commit_checkpoint(const std::string& root, const CheckpointInfo& info, int world_size,
                       std::span<const Shard> shards) {
  const std::string staging = staging_path(root, info.step);
  Manifest manifest{info, world_size, {}, {}};
  for (const Shard& shard : shards) {
    manifest.files.insert(manifest.files.end(), shard.files.begin(), shard.files.end());
    manifest.slices.insert(manifest.slices.end(), shard.slices.begin(), shard.slices.end());
  }
  check_slices(manifest.slices, checkpoint_path(root, info.step));
  const std::string& tokenizer = info.tokenizer_model;
  if (!tokenizer.empty()) {
    write_new_file(staging + "/" + kTokenizerName, tokenizer);
    const auto bytes = static_cast<std::int64_t>(tokenizer.size());
    manifest.files.push_back({kTokenizerName, bytes, hash_bytes(tokenizer.data(), bytes)});
  }
  write_new_file(staging + "/" + kManifestName, manifest_to_text(manifest));
  sync_path(staging);
  const std::string final_path = checkpoint_path(root, info.step);
  const std::string replaced =
      fmt::format("{}/{}old-{}", root, kTemporaryPrefix, step_name(info.step));
  struct stat existing {};
  if (::lstat(final_path.c_str(), &existing) == 0) {
    replace_path(staging, final_path, replaced);
  } else {
    rename_path(staging, final_path);
  }
  sync_path(root);
  // The new checkpoint is safe. What it replaced goes now, or with the leftovers of the next start.
  std::error_code ignored;
  fs::remove_all(staging, ignored);
  fs::remove_all(replaced, ignored);
}

void discard_checkpoint(const std::string& root, std::int64_t step) {
  std::error_code ignored;
  fs::remove_all(staging_path(root, step), ignored);
}

Manifest read_manifest(const std::string& path) {
  std::error_code error;
  if (!fs::is_directory(path, error)) throw NoInputError(path + ": no such checkpoint directory");
  const std::string where = path + "/" + kManifestName;
  const std::string text =
      as_checkpoint_error([&] { return read_file(where, Links::refuse, kMaxManifestBytes); });
  Manifest manifest = manifest_from_text(text, where);
  const auto step = step_of(fs::path(path).lexically_normal().filename().string());
  if (step && *step != manifest.info.step) {
    throw CheckpointError(fmt::format("{}: is of step {}, but its directory is named for {}", where,
                                      manifest.info.step, *step));
  }
  return manifest;
}

std::optional<FoundCheckpoint> find_latest(const std::string& root,
                                           std::span<const std::string> skip) {
  std::vector<std::string> skipped;
  for (const std::string& path : checkpoints(root)) {
    if (std::find(skip.begin(), skip.end(), path) != skip.end()) {
      skipped.push_back(path + ": skipped on request");
      continue;
    }
    try {
      return FoundCheckpoint{path, read_sound_manifest(path), std::move(skipped)};
    } catch (const Error& e) {
      skipped.emplace_back(e.what());
    }
  }
  if (skipped.empty()) return std::nullopt;
  throw CheckpointError(
      fmt::format("{}: no sound checkpoint; move the directory away to start anew\n{}", root,
                  fmt::join(skipped, "\n")));
}

FoundCheckpoint resolve_checkpoint(const std::string& path) {
  std::error_code error;
  if (fs::exists(path + "/" + kManifestName, error)) return {path, read_sound_manifest(path), {}};
  auto found = find_latest(path);
  if (!found) {
    throw NoInputError(
        fmt::format("{}: no checkpoint; expected a directory with {} or with step-N directories",
                    path, kManifestName));
  }
  return std::move(*found);
}

std::optional<std::string> read_tokenizer_model(const std::string& path, const Manifest& manifest) {
  for (const FileRecord& file : manifest.files) {
    if (file.name != kTokenizerName) continue;
    verify_size(path, file);
    const std::string full = path + "/" + file.name;
    std::string text =
        as_checkpoint_error([&] { return read_file(full, Links::refuse, file.bytes); });
    if (hash_bytes(text.data(), static_cast<std::int64_t>(text.size())) != file.hash) {
      throw CheckpointError(full + ": damaged: its content does not match the manifest's hash");
    }
    return text;
  }
  return std::nullopt;
}

std::vector<std::string> remove_leftovers(const std::string& root) {
  std::vector<std::string> removed;
  for (const std::string& name : list(root)) {
    if (!name.starts_with(kTemporaryPrefix)) continue;
    remove_tree(root + "/" + name);
    removed.push_back(name);
  }
  return removed;
}

std::vector<std::string> prune(const std::string& root, std::int64_t keep) {
  JAMBA_CHECK(keep >= 1, "keep {}", keep);
  std::int64_t kept = 0;
  std::vector<std::string> gone;
  for (const std::string& path : checkpoints(root)) {
    if (kept < keep) {
      try {
        read_sound_manifest(path);
        ++kept;
      } catch (const Error&) {
        // Damaged: it stays, and does not count.
      }
      continue;
    }
    // Out of sight in one move: a kill in between leaves no half of a checkpoint.
    const std::string name = fs::path(path).filename().string();
    const std::string doomed = fmt::format("{}/{}old-{}", root, kTemporaryPrefix, name);
    remove_tree(doomed);
    rename_path(path, doomed);
    remove_tree(doomed);
    gone.push_back(path);
  }
  return gone;
}

namespace {

UniqueFd open_of_size(const std::string& full, const FileRecord& file) {
  return as_checkpoint_error([&] {
    UniqueFd fd = open_for_reading(full, Links::refuse);
    const std::int64_t size = file_size(fd.get(), full);
    if (size != file.bytes) {
      throw CheckpointError(
          fmt::format("{}: {} bytes, but the manifest says {}", full, size, file.bytes));
    }
    return fd;
  });
}

}  // namespace

void verify_size(const std::string& path, const FileRecord& file) {
  open_of_size(path + "/" + file.name, file);
}

void verify_file(const std::string& path, const FileRecord& file) {
  const std::string full = path + "/" + file.name;
  const UniqueFd fd = open_of_size(full, file);
  if (hash_file(fd.get(), full) != file.hash) {
    throw CheckpointError(full + ": damaged: its content does not match the manifest's hash");
  }
}

}  // namespace jamba
