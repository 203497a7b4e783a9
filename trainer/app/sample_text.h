#pragma once
#include <string>

#include "data/tokenizer.h"
#include "trainer/generate.h"

namespace jamba {

/// Text that continues the prompt: [bos] prompt, then sampled tokens until eos or the limit.
std::string sample_text(Workspace&, const JambaModel&, DType compute_dtype, const Tokenizer&,
                        const std::string& prompt, const SamplingConfig&);

}  // namespace jamba
