#include "trainer/run_log.h"

#include <cerrno>
#include <cstring>
#include <fstream>

#include "kernels/core/errors.h"
#include "trainer/config/config.h"

namespace jamba {

namespace {

void write_text(const std::string& path, const std::string& text) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out << text;
  out.close();
  if (!out) throw IoError(fmt::format("{}: cannot write: {}", path, std::strerror(errno)));
}

}  // namespace

RunLog::RunLog(const RunConfig& config, std::optional<std::int64_t> resumed_step)
    : console_(std::make_unique<Console>(stdout)) {
  write_text(config.run_dir + "/config.yaml", to_yaml(config));
  write_text(config.run_dir + "/config.json", to_json(config));
  jsonl_ = std::make_unique<JsonlWriter>(config.run_dir + "/metrics.jsonl");
  jsonl_->truncate_after(resumed_step.value_or(0));
  if (config.log.tensorboard) {
    tensorboard_ =
        std::make_unique<TensorboardWriter>(config.run_dir + "/tensorboard", resumed_step);
    tensorboard_->write_text("run/config", "```\n" + to_yaml(config) + "```\n",
                             resumed_step.value_or(0));
  }
}

void RunLog::write(const StepRecord& record, bool to_console) {
  if (jsonl_) jsonl_->write(record);
  if (tensorboard_) tensorboard_->write(record);
  if (console_ && to_console) console_->step(record);
}

void RunLog::write(const EvalRecord& record) {
  if (jsonl_) jsonl_->write(record);
  if (tensorboard_) tensorboard_->write(record);
  if (console_) console_->eval(record);
}

void RunLog::message(const std::string& line) {
  if (console_) console_->message(line);
}

void RunLog::finish() {
  if (console_) console_->finish();
}

}  // namespace jamba
