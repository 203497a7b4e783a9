#pragma once
// Streams documents out of text files.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace jamba {

struct Document {
  std::string text;    // UTF-8
  std::string source;  // "source" of the JSON line; may be empty
  std::string title;   // "title" of the JSON line, or the file's name; may be empty
};

/// Calls `visit` for every document of the files, in order. A .jsonl file has one JSON object a
/// line, {"text": "...", "source": "...", "title": "..."}, the latter two optional; blank lines are
/// passed over. A .txt file is one document.
/// Errors: NoInputError if a file is missing; DataError with file and line if a line is no such
/// object, or with file and offset if a .txt file is not UTF-8; DataError for other extensions.
void for_each_document(const std::vector<std::string>& paths,
                       const std::function<void(Document&&)>& visit);

}  // namespace jamba
