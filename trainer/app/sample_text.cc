#include "trainer/app/sample_text.h"

namespace jamba {

std::string sample_text(Workspace& workspace, const JambaModel& model, DType compute_dtype,
                        const Tokenizer& tokenizer, const std::string& prompt,
                        const SamplingConfig& sampling) {
  std::vector<std::int32_t> ids = tokenizer.encode(prompt);
  if (tokenizer.bos_id() >= 0) ids.insert(ids.begin(), tokenizer.bos_id());
  if (ids.empty()) ids.push_back(tokenizer.eos_id());
  const auto prompt_size = static_cast<std::int64_t>(ids.size());
  Generator generator(workspace, model, compute_dtype, prompt_size + sampling.max_new_tokens);
  std::vector<std::int32_t> sampled;
  generate(
      generator, ids, sampling, [&](std::int64_t token) { return token == tokenizer.eos_id(); },
      [&](std::int64_t token) { sampled.push_back(static_cast<std::int32_t>(token)); });
  return tokenizer.decode(sampled);
}

}  // namespace jamba
