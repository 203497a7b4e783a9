#pragma once
// The directory that holds a run's checkpoints: how one appears, is found, and goes.
//
// A checkpoint is written in .tmp-step-N and renamed to step-N when all of it is on the disk, so a
// name without .tmp- is a promise. There is no pointer to the latest one that could go stale.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "trainer/checkpoint/manifest.h"

namespace jamba {

/// "root/step-00001200"
std::string checkpoint_path(const std::string& root, std::int64_t step);

/// "root/.tmp-step-00001200"
std::string staging_path(const std::string& root, std::int64_t step);

/// Makes an empty staging directory, and root if need be, and returns its path. What an earlier
/// attempt left there is removed. Errors: CannotCreateError.
std::string begin_checkpoint(const std::string& root, std::int64_t step);

/// Turns root/.tmp-step-N, which holds the shards, into root/step-N: tokenizer file, manifest,
/// fsync, rename, fsync of root. A checkpoint of the same step is replaced.
/// Errors: CannotCreateError, IoError; CheckpointError if the shards leave an element out or hold
/// it twice.
void commit_checkpoint(const std::string& root, const CheckpointInfo& info, int world_size,
                       std::span<const Shard> shards);

/// Removes root/.tmp-step-N. Does not throw: the caller has an error to report already.
void discard_checkpoint(const std::string& root, std::int64_t step);

/// Reads and checks the manifest of a checkpoint's directory, and that the step in the directory's
/// name, if it has one, is the manifest's.
/// Errors: NoInputError if there is no such directory; CheckpointError.
Manifest read_manifest(const std::string& path);

struct FoundCheckpoint {
  std::string path;
  Manifest manifest;
  std::vector<std::string> skipped;  // newer ones, each with the reason
};

/// The newest checkpoint under root whose manifest is sound and whose files have their sizes;
/// nothing if root is missing or holds no checkpoint at all. Content is verified by
/// load_checkpoint: after its error, ask again with that path in `skip` to fall back to the one
/// before. Errors: CheckpointError if there are checkpoints but none is sound: never a silent fresh
/// start.
std::optional<FoundCheckpoint> find_latest(const std::string& root,
                                           std::span<const std::string> skip = {});

/// A path given by a person: a checkpoint's own directory, or a root, whose newest one is meant.
/// Errors: NoInputError if there is neither; CheckpointError.
FoundCheckpoint resolve_checkpoint(const std::string& path);

/// Content of the checkpoint's tokenizer.model, or nothing if it has none.
/// Errors: CheckpointError.
std::optional<std::string> read_tokenizer_model(const std::string& path, const Manifest&);

/// Removes what killed runs left behind and returns its names. For one rank, before any save.
/// Errors: IoError.
std::vector<std::string> remove_leftovers(const std::string& root);

/// Keeps the newest `keep` sound checkpoints and deletes all older ones. Broken ones that are newer
/// stay, for a look at them, and do not count. Returns the paths that are gone.
/// Errors: IoError.
std::vector<std::string> prune(const std::string& root, std::int64_t keep);

/// Errors: CheckpointError naming the file unless it is a regular file of the recorded size (and,
/// for verify_file, of the recorded hash).
void verify_size(const std::string& path, const FileRecord& file);
void verify_file(const std::string& path, const FileRecord& file);

}  // namespace jamba
