#pragma once
// Config files for tests: written into a directory of their own, loaded, and their faults seen.

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "kernels/core/errors.h"
#include "trainer/config/config.h"

namespace jamba::test {

/// The shortest sound run config. Lines: run_dir 1, model 2-7, data 8-11, train 12-13.
inline const std::string kSoundRun =
    "run_dir: runs/x\n"
    "model:\n"
    "  vocab_size: 64\n"
    "  hidden_size: 32\n"
    "  intermediate_size: 48\n"
    "  num_hidden_layers: 8\n"
    "  num_attention_heads: 4\n"
    "  num_key_value_heads: 2\n"
    "data:\n"
    "  tokenizer: bytes\n"
    "  seq_len: 16\n"
    "  sources: [{name: a, train: a.h5}]\n"
    "train:\n"
    "  steps: 100\n";

class ConfigFiles : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
    std::string name = std::string(info->test_suite_name()) + "_" + info->name();
    for (char& c : name) c = c == '/' ? '_' : c;
    directory_ = std::filesystem::path(::testing::TempDir()) / name;
    std::filesystem::remove_all(directory_);
    std::filesystem::create_directories(directory_);
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  std::filesystem::path write(const std::string& name, const std::string& text) const {
    const std::filesystem::path path = directory_ / name;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << text;
    return path;
  }

  RunConfig load(const std::string& text, const std::vector<std::string>& overrides = {},
                 int world_size = 0) const {
    return load_run_config(write("run.yaml", text), overrides, world_size);
  }

  /// The message of the ConfigError that loading ends with, without the directory; "" if it is
  /// sound.
  std::string faults(const std::string& text, const std::vector<std::string>& overrides = {},
                     int world_size = 0) const {
    return faults_of(write("run.yaml", text), overrides, world_size);
  }

  std::string faults_of(const std::filesystem::path& path,
                        const std::vector<std::string>& overrides = {}, int world_size = 0) const {
    try {
      load_run_config(path, overrides, world_size);
    } catch (const ConfigError& error) {
      EXPECT_EQ(error.exit_code(), ExitCode::usage);
      return without_directory(error.what());
    }
    return {};
  }

  std::string without_directory(std::string text) const {
    const std::string prefix = directory_.string() + "/";
    for (std::size_t at = text.find(prefix); at != std::string::npos; at = text.find(prefix)) {
      text.erase(at, prefix.size());
    }
    return text;
  }

  std::filesystem::path directory_;
};

}  // namespace jamba::test
