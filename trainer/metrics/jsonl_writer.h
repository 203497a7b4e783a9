#pragma once
// metrics.jsonl: one JSON object a line, for scripts.

#include <cstdint>
#include <string>

#include "trainer/metrics/append_file.h"
#include "trainer/metrics/step_record.h"

namespace jamba {

/// Appends records to a file, each one complete on disk's side of the process when write()
/// returns. Keys are the records' field names, after "kind": "step" or "eval"; `seconds` is an
/// object with a key for each Part (absent where it was not timed), `sources` an array of objects.
/// Numbers: doubles carry the digits that read back to the same bits. JSON has no NaN or infinity:
/// such a number is null, and the object that holds it gains "non_finite": {key: "nan" | "inf" |
/// "-inf"}.
/// Errors: as AppendFile.
class JsonlWriter {
 public:
  explicit JsonlWriter(std::string path);

  void write(const StepRecord&);
  void write(const EvalRecord&);

  /// Makes the file end with the last record of `step`, for a run that resumes after it. Steps of
  /// a file never decrease, so everything from the first record of a later step goes, and so does
  /// a last line that a crash left incomplete.
  /// Errors: DataError with the line's number if a complete line is not one of our records.
  void truncate_after(std::int64_t step);

  const std::string& path() const { return file_.path(); }

 private:
  AppendFile file_;
};

}  // namespace jamba
