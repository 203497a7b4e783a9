// jamba: one program, a subcommand for each task.

#include <cstdio>
#include <exception>
#include <new>

#include "kernels/core/errors.h"
#include "trainer/app/command.h"

namespace {

constexpr jamba::Command kCommands[] = {
    {"data", "Train a tokenizer, write token stores, look into them", jamba::declare_data},
    {"train", "Train a model from a config; resumes by itself", jamba::declare_train},
    {"demo", "Train a small model on built-in text for a minute: no data, no network",
     jamba::declare_demo},
    {"doctor", "Show what this machine offers and what is missing", jamba::declare_doctor},
    {"eval", "Loss and perplexity of a checkpoint on a token store", jamba::declare_eval},
    {"generate", "Sample text from a checkpoint", jamba::declare_generate},
    {"score", "Log-probabilities of given tokens or text", jamba::declare_score},
    {"import", "Turn a Hugging Face directory into a checkpoint", jamba::declare_import},
    {"inspect", "Show a config, checkpoint or run", jamba::declare_inspect},
    {"verify", "Compare with a reference's losses and gradients", jamba::declare_verify},
    {"bench", "Time training steps on made-up tokens", jamba::declare_bench},
};

int report(const char* what, jamba::ExitCode code) {
  std::fprintf(stderr, "jamba: %s\n", what);
  return static_cast<int>(code);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Pretrains hybrid Transformer-Mamba mixture-of-experts models.", "jamba"};
  app.require_subcommand(1);
  app.set_version_flag("--version", JAMBA_VERSION);
  jamba::Action action;
  for (const jamba::Command& command : kCommands) {
    command.declare(*app.add_subcommand(command.name, command.help), action);
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : static_cast<int>(jamba::ExitCode::usage);
  }
  try {
    return action();
  } catch (const jamba::Error& e) {
    return report(e.what(), e.exit_code());
  } catch (const std::bad_alloc& e) {
    return report(e.what(), jamba::ExitCode::check_failed);
  } catch (const std::exception& e) {
    return report(e.what(), jamba::ExitCode::bug);
  }
}
