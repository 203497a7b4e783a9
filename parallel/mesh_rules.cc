// Which degrees make a mesh, and which ones nearby would.

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>

#include "kernels/core/errors.h"
#include "parallel/mesh_shape.h"

namespace jamba {
namespace {

constexpr std::array kKeys = {"parallel.tp", "parallel.pp", "parallel.cp", "parallel.ep"};
using Degrees = std::array<std::int64_t, kKeys.size()>;  // in the order of kKeys
constexpr std::size_t kEp = 3;

/// What is left of `ranks` after division by the first `count` degrees, or 0 if they do not divide.
std::int64_t quotient(std::int64_t ranks, const Degrees& degrees, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    if (ranks % degrees[i] != 0) return 0;
    ranks /= degrees[i];
  }
  return ranks;
}

/// Of degrees whose tp, pp and cp divide the world.
std::int64_t data_size(std::int64_t world_size, const Degrees& d) {
  return world_size / d[0] / d[1];
}

/// All sound meshes that differ from the degrees asked for in a given number of degrees.
struct SoundMeshes {
  std::int64_t world_size;
  Degrees asked;
  std::vector<std::int64_t> divisors;  // of world_size
  std::vector<Degrees> found = {};

  /// The degrees before `at` are decided; `num_changes` of the others must change.
  void find(Degrees degrees, std::size_t at, int num_changes) {
    if (quotient(world_size, degrees, std::min(at, kEp)) == 0) return;
    if (at == degrees.size()) {
      const bool sound = data_size(world_size, degrees) % degrees[kEp] == 0;
      if (num_changes == 0 && sound) found.push_back(degrees);
      return;
    }
    find(degrees, at + 1, num_changes);
    if (num_changes == 0) return;
    for (const std::int64_t divisor : divisors) {
      degrees[at] = divisor;
      if (divisor != asked[at]) find(degrees, at + 1, num_changes - 1);
    }
  }
};

/// Whether `a` differs from `b` and every degree of it lies from the one asked for to that of `b`.
bool lies_before(const Degrees& asked, const Degrees& a, const Degrees& b) {
  for (std::size_t i = 0; i < asked.size(); ++i) {
    if (a[i] < std::min(asked[i], b[i]) || a[i] > std::max(asked[i], b[i])) return false;
  }
  return a != b;
}

/// Sum over the degrees of the logarithm of the factor of change.
double distance(const Degrees& asked, const Degrees& degrees) {
  double sum = 0;
  for (std::size_t i = 0; i < asked.size(); ++i) {
    const double ratio = static_cast<double>(degrees[i]) / static_cast<double>(asked[i]);
    sum += std::abs(std::log(ratio));
  }
  return sum;
}

/// The one or two sound meshes that change the fewest degrees by the smallest factors, in
/// ascending order.
std::vector<Degrees> nearest_sound(std::int64_t world_size, const Degrees& asked) {
  SoundMeshes meshes{world_size, asked, {}};
  for (std::int64_t d = 1; d <= world_size; ++d) {
    if (world_size % d == 0) meshes.divisors.push_back(d);
  }
  for (int num_changes = 1; meshes.found.empty(); ++num_changes) meshes.find(asked, 0, num_changes);
  const std::vector<Degrees>& found = meshes.found;
  std::vector<Degrees> nearest;
  for (const Degrees& b : found) {
    const auto hides_b = [&](const Degrees& a) { return lies_before(asked, a, b); };
    if (std::none_of(found.begin(), found.end(), hides_b)) nearest.push_back(b);
  }
  std::stable_sort(nearest.begin(), nearest.end(), [&](const Degrees& a, const Degrees& b) {
    return distance(asked, a) < distance(asked, b);
  });
  nearest.resize(std::min<std::size_t>(nearest.size(), 2));
  std::sort(nearest.begin(), nearest.end());
  return nearest;
}

/// "parallel.tp=2 parallel.pp=2 or parallel.tp=4": what to change for each mesh.
std::string describe(const Degrees& asked, const std::vector<Degrees>& meshes) {
  std::string text;
  for (const Degrees& mesh : meshes) {
    if (!text.empty()) text += " or";
    for (std::size_t i = 0; i < mesh.size(); ++i) {
      if (mesh[i] == asked[i]) continue;
      text += fmt::format("{}{}={}", text.empty() ? "" : " ", kKeys[i], mesh[i]);
    }
  }
  return text;
}

/// The product of tp, pp and cp as a formula; its value only if 64 bits hold it.
std::string product_text(const Degrees& d) {
  std::string text = fmt::format("tp x pp x cp = {} x {} x {}", d[0], d[1], d[2]);
  std::int64_t product = 0;
  if (!__builtin_mul_overflow(d[0], d[1], &product) &&
      !__builtin_mul_overflow(product, d[2], &product)) {
    text += fmt::format(" = {}", product);
  }
  return text;
}

}  // namespace

std::vector<MeshFault> check_mesh(int world_size, const MeshDegrees& degrees) {
  JAMBA_CHECK(world_size >= 1, "{} ranks", world_size);
  const Degrees asked = {degrees.tp, degrees.pp, degrees.cp, degrees.ep};
  std::vector<MeshFault> faults;
  for (std::size_t i = 0; i < asked.size(); ++i) {
    if (asked[i] >= 1) continue;
    faults.push_back({kKeys[i], fmt::format("must be at least 1, got {}", asked[i])});
  }
  if (!faults.empty()) return faults;

  const std::int64_t dp = quotient(world_size, asked, kEp);
  if (dp > 0 && dp * asked[2] % asked[kEp] == 0) return faults;
  const std::vector<Degrees> nearest = nearest_sound(world_size, asked);
  const std::string hint = describe(asked, nearest);
  if (dp > 0) {
    faults.push_back({kKeys[kEp], fmt::format("{} does not divide dp x cp = {} x {} = {}; "
                                              "nearest: {}",
                                              asked[kEp], dp, asked[2], dp * asked[2], hint)});
    return faults;
  }
  std::size_t changed = 0;
  while (nearest[0][changed] == asked[changed]) ++changed;
  faults.push_back({kKeys[changed], fmt::format("{} ranks are no multiple of {}; nearest: {}",
                                                world_size, product_text(asked), hint)});
  return faults;
}

MeshShape resolve_mesh(int world_size, const MeshDegrees& degrees) {
  const std::vector<MeshFault> faults = check_mesh(world_size, degrees);
  JAMBA_CHECK(faults.empty(), "{}: {}", faults[0].key, faults[0].message);
  const auto as_int = [](std::int64_t degree) { return static_cast<int>(degree); };
  MeshShape mesh{.pp = as_int(degrees.pp),
                 .cp = as_int(degrees.cp),
                 .tp = as_int(degrees.tp),
                 .ep = as_int(degrees.ep)};
  mesh.dp = world_size / mesh.world_size();
  return mesh;
}

}  // namespace jamba
