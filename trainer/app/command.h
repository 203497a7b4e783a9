#pragma once
// A subcommand of the jamba program: its options, and what it does.

#include <CLI/CLI.hpp>

#include <functional>
#include <span>

namespace jamba {

/// What main runs after parsing; returns the exit code. Errors leave as exceptions.
using Action = std::function<int()>;

struct Command {
  const char* name;
  const char* help;
  /// Declares the options on `app`; when the subcommand is chosen, its callback sets `action`.
  void (*declare)(CLI::App& app, Action& action);
};

void declare_bench(CLI::App&, Action&);
void declare_data(CLI::App&, Action&);
void declare_demo(CLI::App&, Action&);
void declare_doctor(CLI::App&, Action&);
void declare_eval(CLI::App&, Action&);
void declare_generate(CLI::App&, Action&);
void declare_import(CLI::App&, Action&);
void declare_inspect(CLI::App&, Action&);
void declare_score(CLI::App&, Action&);
void declare_train(CLI::App&, Action&);
void declare_verify(CLI::App&, Action&);

}  // namespace jamba
