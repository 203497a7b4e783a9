// jamba import --from HF_DIR --to CHECKPOINT_DIR

#include <cstdio>
#include <memory>
#include <string>

#include "trainer/app/command.h"
#include "trainer/checkpoint/checkpoint_directory.h"
#include "trainer/checkpoint/import.h"

namespace jamba {

void declare_import(CLI::App& app, Action& action) {
  struct Options {
    std::string from, to;
  };
  const auto options = std::make_shared<Options>();
  app.add_option("--from", options->from, "Hugging Face directory")->required();
  app.add_option("--to", options->to, "Directory for the checkpoint")->required();
  app.callback([options, &action] {
    action = [options] {
      import_hugging_face(options->from, options->to);
      const ParameterCount count =
          count_parameters(resolve_checkpoint(options->to).manifest.info.model);
      std::printf("imported %lld parameters (%lld active) to %s\n",
                  static_cast<long long>(count.total), static_cast<long long>(count.active),
                  checkpoint_path(options->to, 0).c_str());
      return 0;
    };
  });
}

}  // namespace jamba
