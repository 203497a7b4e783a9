#include "trainer/model/losses.h"

#include <algorithm>

namespace jamba {

void LossSums::all_reduce(Stream& stream, Communicator& group) {
  std::vector<std::int64_t> words;
  ExactSum* const sums[] = {&nll, &aux, &z, &activation};
  for (ExactSum* sum : sums) words.insert(words.end(), sum->words().begin(), sum->words().end());
  words.push_back(targets);
  group.all_reduce(stream, Tensor(words.data(), DType::i64, {std::ssize(words)}));
  auto next = words.begin();
  for (ExactSum* sum : sums) {
    std::copy_n(next, sum->words().size(), sum->words().begin());
    next += std::ssize(sum->words());
  }
  targets = *next;
}

std::int64_t balance_groups(const ModelConfig& c, std::int64_t batch) {
  return c.aux_loss_scope == AuxLossScope::sequence ? batch : 1;
}

Losses mean_losses(const LossSums& sums, const LossScale& scale, const ModelConfig& c,
                   std::int64_t batch, std::int64_t seq) {
  const auto mixtures = static_cast<double>(num_mixtures(c));
  const auto tokens = static_cast<double>(seq);
  Losses out;
  out.lm = sums.nll.value() * scale.token;
  if (mixtures > 0) {
    const double products = c.aux_loss == AuxLossKind::per_layer ? mixtures : 1;
    const double sequences =
        static_cast<double>(batch) / static_cast<double>(balance_groups(c, batch));
    out.aux = sums.aux.value() * sequences / products * scale.sequence;
    out.z = sums.z.value() / (mixtures * tokens) * scale.sequence;
  }
  const auto width = static_cast<double>(c.num_hidden_layers * c.hidden_size);
  out.activation = sums.activation.value() / (width * tokens) * scale.sequence;
  out.total = out.lm + c.router_aux_loss_coef * out.aux + c.router_z_loss_coef * out.z +
              c.activation_loss_coef * out.activation;
  return out;
}

}  // namespace jamba
