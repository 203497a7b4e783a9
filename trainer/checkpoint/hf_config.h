#pragma once
// Hugging Face's config.json as our ModelConfig.

#include <string>

#include "trainer/model/model_config.h"

namespace jamba {

/// Reads the config.json of a Jamba model. Absent keys take Jamba-v0.1's values, as in Hugging
/// Face's JambaConfig; keys that do not change the model are ignored.
/// The balancing loss is pooled over the layers and tokens of a microbatch with
/// router_aux_loss_coef if output_router_logits is true, and none otherwise, as there.
/// Legacy `mamba_inner_layernorms: false` turns inner norms off.
/// Errors: NoInputError; DataError naming file and key for another model_type or hidden_act, for a
/// value of the wrong type, or for sizes that make no model.
ModelConfig read_hf_config(const std::string& path);

}  // namespace jamba
