#include "trainer/loaded_model.h"

#include "trainer/checkpoint/checkpoint.h"
#include "trainer/run_state.h"

namespace jamba {

LoadedModel::LoadedModel(Stream& stream, const std::string& path, DType compute_dtype)
    : LoadedModel(stream, find_checkpoint(path), compute_dtype) {}

LoadedModel::LoadedModel(Stream& stream, const FoundCheckpoint& found, DType compute_dtype)
    : path_(found.path),
      manifest_(found.manifest),
      parameters_(stream, manifest_.info.model, mesh_,
                  {.compute_dtype = compute_dtype, .zero = {.training = false}}),
      model_(manifest_.info.model, parameters_) {
  const Masters masters(parameters_, Masters::Access::write);
  load_checkpoint(path_, weight_slices(masters, Elements::owned));
}

std::unique_ptr<Tokenizer> LoadedModel::tokenizer() const {
  if (read_tokenizer_model(path_, manifest_).has_value()) {
    return load_tokenizer(path_ + "/" + kTokenizerName);
  }
  std::unique_ptr<Tokenizer> bytes = load_tokenizer("bytes");
  if (manifest_.info.tokenizer_hash != bytes->hash()) {
    throw DataError(fmt::format(
        "{}: the checkpoint carries no tokenizer, so it takes token ids only (\"ids\": [...])",
        path_));
  }
  return bytes;
}

}  // namespace jamba
