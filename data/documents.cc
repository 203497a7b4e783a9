#include "data/documents.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "data/utf8.h"
#include "kernels/core/errors.h"

namespace jamba {
namespace {

using Json = nlohmann::json;

std::ifstream open_input(const std::string& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) {
    throw DataError(fmt::format("{}: is a directory, expected a .jsonl or .txt file", path));
  }
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    const std::string message =
        fmt::format("{}: cannot open: {} (errno {})", path, std::strerror(errno), errno);
    if (errno == ENOENT || errno == ENOTDIR) throw NoInputError(message);
    throw IoError(message);
  }
  return file;
}

[[noreturn]] void refuse_line(const std::string& path, std::int64_t line, const std::string& why) {
  throw DataError(fmt::format("{}:{}: {}; expected {{\"text\": \"...\"}}", path, line, why));
}

Document parse_line(const std::string& path, std::int64_t line, const std::string& content) {
  Json json;
  try {
    json = Json::parse(content);
  } catch (const Json::parse_error& error) {
    refuse_line(path, line, fmt::format("not a JSON object (byte {})", error.byte));
  }
  if (!json.is_object()) refuse_line(path, line, "not a JSON object");
  Document document;
  const auto take = [&](const char* key, std::string& value) {
    const auto it = json.find(key);
    if (it == json.end()) return false;
    if (!it->is_string()) refuse_line(path, line, fmt::format("\"{}\" is not a string", key));
    value = std::move(it->get_ref<std::string&>());
    return true;
  };
  if (!take("text", document.text)) refuse_line(path, line, "has no \"text\"");
  take("source", document.source);
  take("title", document.title);
  return document;
}

void visit_json_lines(const std::string& path, const std::function<void(Document&&)>& visit) {
  std::ifstream file = open_input(path);
  std::string content;
  for (std::int64_t line = 1; std::getline(file, content); ++line) {
    if (content.find_first_not_of(" \t\r") == std::string::npos) continue;
    visit(parse_line(path, line, content));
  }
  if (file.bad()) throw IoError(fmt::format("{}: cannot read", path));
}

void visit_text(const std::string& path, const std::function<void(Document&&)>& visit) {
  std::ifstream file = open_input(path);
  std::ostringstream content;
  content << file.rdbuf();
  if (file.bad() || content.bad()) throw IoError(fmt::format("{}: cannot read", path));
  Document document{.text = std::move(content).str(),
                    .source = "",
                    .title = std::filesystem::path(path).stem().string()};
  if (const std::size_t end = valid_utf8_prefix(document.text); end < document.text.size()) {
    throw DataError(fmt::format("{}: not UTF-8 text at byte {}", path, end));
  }
  visit(std::move(document));
}

}  // namespace

void for_each_document(const std::vector<std::string>& paths,
                       const std::function<void(Document&&)>& visit) {
  for (const std::string& path : paths) {
    const std::string extension = std::filesystem::path(path).extension().string();
    if (extension == ".jsonl") {
      visit_json_lines(path, visit);
    } else if (extension == ".txt") {
      visit_text(path, visit);
    } else {
      throw DataError(fmt::format("{}: expected a .jsonl or .txt file", path));
    }
  }
}

}  // namespace jamba
