#pragma once
// From a Hugging Face directory to a checkpoint.

#include <string>

namespace jamba {

/// Reads config.json, the safetensors files and, if present, tokenizer.model of a Jamba directory
/// and writes to_dir/step-00000000: float32 weights only. One parameter is in memory at a time.
/// Errors: NoInputError; DataError for files that break their formats or hold other tensors than
/// the config asks for, with all differences listed; CannotCreateError, also if to_dir holds
/// checkpoints already; IoError. Then nothing is left of the attempt.
void import_hugging_face(const std::string& from_dir, const std::string& to_dir);

}  // namespace jamba
