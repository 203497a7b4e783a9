#include "tests/trainer/layouts.h"

#include <sstream>

#include "tests/trainer/step_fixture.h"
#include "trainer/config/config.h"

namespace jamba::test {

namespace {

std::vector<std::string> words(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::string> out;
  for (std::string word; in >> word;) {
    // Layers of chunks are listed with commas here, since settings are split at blanks.
    if (word.starts_with("parallel.pp_layers=")) {
      for (char& c : word) c = c == ',' ? ' ' : c;
    }
    out.push_back(word);
  }
  return out;
}

/// "tp=2 train.recompute=block" with "parallel." where no section is named.
std::string with_sections(const std::string& text) {
  std::istringstream in(text);
  std::string out;
  for (std::string word; in >> word;) {
    const bool has_section = word.find('.') < word.find('=');
    out += (has_section ? "" : "parallel.") + word + " ";
  }
  return out;
}

}  // namespace

RunConfig reference_config(const Layout& layout) {
  return with_overrides(small_run_config(), words(layout.model));
}

RunConfig layout_config(const Layout& layout) {
  return with_overrides(reference_config(layout), words(with_sections(layout.settings)));
}

const std::vector<Layout>& layouts() {
  static const std::string bf16 = "train.dtype=bfloat16";
  static const std::vector<Layout> all = {
      // Each axis alone.
      {"dp2", 2, "", ""},
      {"dp4", 4, "", ""},
      {"tp2", 2, "tp=2", ""},
      {"tp4", 4, "tp=4", ""},
      {"tp2_plain", 2, "tp=2 sequence_parallel=false", ""},
      {"tp4_plain", 4, "tp=4 sequence_parallel=false", ""},
      {"pp2", 2, "pp=2", ""},
      {"pp4", 4, "pp=4", ""},
      {"pp3_uneven", 3, "pp=3", ""},
      {"cp2", 2, "cp=2", ""},
      {"cp3", 3, "cp=3", ""},
      {"cp4", 4, "cp=4", ""},
      {"cp7_more_ranks_than_heads", 7, "cp=7", ""},
      {"ep2", 2, "ep=2", ""},
      {"ep4", 4, "ep=4", ""},
      {"zero1", 2, "zero=1", ""},
      {"zero2", 2, "zero=2", ""},
      {"zero3", 2, "zero=3", ""},
      {"zero1_dp4", 4, "zero=1", ""},
      {"zero2_dp4", 4, "zero=2", ""},
      {"zero3_dp4", 4, "zero=3", ""},
      {"tree_dp4", 4, "deterministic=tree", ""},
      // Orders of microbatches, and stages of any length.
      {"pp2_interleaved", 2, "pp=2 pp_chunks=2", ""},
      {"pp2_interleaved_4", 2, "pp=2 pp_chunks=4", ""},
      {"pp4_interleaved", 4, "pp=4 pp_chunks=2", ""},
      {"pp2_long_first", 2, "pp=2 pp_layers=7,1", ""},
      {"pp4_mamba_only_stages", 4, "pp=4 pp_layers=1,1,5,1", ""},
      {"pp2_one_microbatch", 2, "pp=2 train.micro_batch_size=8", "train.micro_batch_size=8"},
      {"pp2_small_microbatches", 2, "pp=2", "train.micro_batch_size=1"},
      // Pairs.
      {"dp2_tp2", 4, "tp=2", ""},
      {"dp2_pp2", 4, "pp=2", ""},
      {"dp2_cp2", 4, "cp=2", ""},
      {"tp2_pp2", 4, "tp=2 pp=2", ""},
      {"tp2_cp2", 4, "tp=2 cp=2", ""},
      {"pp2_cp2", 4, "pp=2 cp=2", ""},
      {"tp2_ep2", 4, "tp=2 ep=2", ""},
      {"pp2_ep2", 4, "pp=2 ep=2", ""},
      {"cp2_ep2", 2, "cp=2 ep=2", ""},
      {"cp2_ep4", 4, "cp=2 ep=4", ""},
      {"zero3_tp2", 4, "zero=3 tp=2", ""},
      {"zero2_pp2", 4, "zero=2 pp=2", ""},
      {"zero3_pp2_interleaved", 4, "zero=3 pp=2 pp_chunks=2", ""},
      {"zero3_cp2", 2, "zero=3 cp=2", ""},
      {"zero3_ep2_dp4", 4, "zero=3 ep=2", ""},
      {"zero1_ep2_dp4", 4, "zero=1 ep=2", ""},
      // Triples, and all together.
      {"dp2_tp2_pp2", 8, "tp=2 pp=2", ""},
      {"dp2_cp2_tp2", 8, "cp=2 tp=2", ""},
      {"tp2_pp2_ep2", 8, "tp=2 pp=2 ep=2", ""},
      {"tp2_cp2_pp2", 8, "tp=2 cp=2 pp=2", ""},
      {"tp2_cp2_ep4", 8, "tp=2 cp=2 ep=4", ""},
      {"all", 8, "tp=2 pp=2 cp=2 ep=2 zero=3", ""},
      {"all_plain_zero2", 8, "tp=2 pp=2 cp=2 ep=2 zero=2 sequence_parallel=false", ""},
      {"all_recompute", 8, "tp=2 pp=2 cp=2 ep=2 zero=3 train.recompute=block", ""},
      // Recomputation.
      {"recompute_tp2", 2, "tp=2 train.recompute=block", ""},
      {"recompute_cp2", 2, "cp=2 train.recompute=block", ""},
      {"recompute_ep2", 2, "ep=2 train.recompute=block", ""},
      {"recompute_pp2", 2, "pp=2 train.recompute=block", ""},
      {"recompute_zero3", 2, "zero=3 train.recompute=block", ""},
      // Switches of the model.
      {"tied_tp2", 2, "tp=2", "model.tie_word_embeddings=true"},
      {"tied_pp2", 2, "pp=2", "model.tie_word_embeddings=true"},
      {"tied_pp2_dp2_zero2", 4, "pp=2 zero=2", "model.tie_word_embeddings=true"},
      {"tied_zero3", 2, "zero=3", "model.tie_word_embeddings=true"},
      {"rope_cp2", 2, "cp=2", "model.rope=true"},
      {"rope_cp3_tp2", 6, "cp=3 tp=2", "model.rope=true"},
      {"per_layer_aux_pp2", 2, "pp=2", "model.aux_loss=per_layer model.router_z_loss_coef=0.01"},
      {"per_layer_aux_cp2_tp2", 4, "cp=2 tp=2",
       "model.aux_loss=per_layer model.router_z_loss_coef=0.01"},
      {"pooled_aux_z_loss_all", 8, "tp=2 pp=2 cp=2 ep=2", "model.router_z_loss_coef=0.01"},
      {"microbatch_scope_cp2_pp2", 4, "cp=2 pp=2", "model.aux_loss_scope=microbatch"},
      {"microbatch_scope_tp2_ep2", 4, "tp=2 ep=2", "model.aux_loss_scope=microbatch"},
      {"jitter_cp2_ep2_tp2", 4, "cp=2 ep=2 tp=2", "model.router_jitter=0.1"},
      {"activation_loss_tp2_pp2_cp2", 8, "tp=2 pp=2 cp=2", "model.activation_loss_coef=0.01"},
      {"renormalised_ep2", 2, "ep=2", "model.renormalize_topk=true model.num_experts_per_tok=3"},
      {"no_inner_norms_tp2_cp2", 4, "tp=2 cp=2",
       "model.mamba_inner_norms=false model.initializer_range=0.05"},
      {"projection_biases_tp2", 2, "tp=2",
       "model.mamba_proj_bias=true model.mamba_conv_bias=false"},
      {"projection_biases_tp4_plain", 4, "tp=4 sequence_parallel=false",
       "model.mamba_proj_bias=true"},
      {"attention_only_cp2_pp2", 4, "cp=2 pp=2", "model.layer_pattern=A"},
      {"mamba_only_dense_tp2_cp2", 4, "tp=2 cp=2", "model.layer_pattern=M"},
      // bfloat16 against bfloat16 on one rank.
      {"bf16_dp2", 2, "", bf16, 2e-2},
      {"bf16_zero1", 2, "zero=1", bf16, 2e-2},
      {"bf16_zero3", 2, "zero=3", bf16, 2e-2},
      {"bf16_pp2", 2, "pp=2", bf16, 2e-2},
      {"bf16_tp2", 2, "tp=2", bf16, 2e-2},
      {"bf16_ep2", 2, "ep=2", bf16, 2e-2},
      {"bf16_cp2", 2, "cp=2", bf16, 2e-2},
      {"bf16_all", 8, "tp=2 pp=2 cp=2 ep=2 zero=3", bf16, 2e-2},
  };
  return all;
}

}  // namespace jamba::test
