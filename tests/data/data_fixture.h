#pragma once
// Scratch directories, small token stores and checks of errors for the tests of data/.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "data/token_store.h"
#include "kernels/core/errors.h"

namespace jamba::test {

/// A directory that lives as long as the test.
class ScratchDir {
 public:
  ScratchDir() {
    std::string name = (std::filesystem::temp_directory_path() / "jamba_data_XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw IoError("cannot make a scratch directory");
    path_ = name;
  }
  ~ScratchDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  ScratchDir(const ScratchDir&) = delete;
  ScratchDir& operator=(const ScratchDir&) = delete;

  std::string file(const std::string& name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

/// A file size limit stands for a full disk: writes fail in the same places.
class WriteLimit {
 public:
  explicit WriteLimit(rlim_t bytes) {
    std::signal(SIGXFSZ, SIG_IGN);
    ::getrlimit(RLIMIT_FSIZE, &before_);
    rlimit now = before_;
    now.rlim_cur = bytes;
    ::setrlimit(RLIMIT_FSIZE, &now);
  }
  ~WriteLimit() { ::setrlimit(RLIMIT_FSIZE, &before_); }
  WriteLimit(const WriteLimit&) = delete;
  WriteLimit& operator=(const WriteLimit&) = delete;

 private:
  rlimit before_{};
};

inline std::string read_bytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline void write_bytes(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

/// Runs `body`, which must throw an error of type E whose message holds `part`.
template <class E, class F>
void expect_error(const std::string& part, F&& body) {
  try {
    body();
    ADD_FAILURE() << "nothing was thrown, expected: " << part;
  } catch (const E& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr(part));
  } catch (const std::exception& error) {
    ADD_FAILURE() << "an error of another type: " << error.what() << ", expected: " << part;
  }
}

/// Writes documents of the given tokens; the writer adds bos and eos.
inline void write_store(const std::string& path, const TokenStoreInfo& info,
                        const std::vector<std::vector<std::int32_t>>& documents) {
  TokenStoreWriter writer(path, info);
  for (const auto& document : documents) writer.add_document(document);
  writer.close();
}

inline TokenStoreInfo small_info() {
  return {.source = "test", .tokenizer_hash = "abc", .vocab_size = 50, .bos_id = 1, .eos_id = 2};
}

}  // namespace jamba::test
