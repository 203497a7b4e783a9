#include "trainer/app/demo_text.h"

#include <array>
#include <string_view>

#include "kernels/core/rng.h"

namespace jamba {

namespace {

using Words = std::array<std::string_view, 8>;

constexpr Words kNames = {"Mira", "Tomas", "Ada", "Ravi", "Lena", "Omar", "Ines", "Karl"};
constexpr Words kAnimals = {"cat", "heron", "fox", "mule", "otter", "crow", "hare", "snake"};
constexpr Words kPlaces = {"harbour", "old mill", "library", "north hill",
                           "market",  "orchard",  "station", "river"};
constexpr Words kThings = {"lantern", "brass key", "map",          "violin",
                           "compass", "red scarf", "jar of honey", "letter"};
constexpr Words kMoods = {"happy", "tired", "curious", "afraid", "proud", "calm", "lost", "brave"};

/// Draws words one after the other.
class Teller {
 public:
  explicit Teller(std::uint64_t index) : rng_(index, "demo_story") {}
  std::string pick(const Words& words) {
    return std::string(words[static_cast<std::size_t>(rng_.below(draw_++, 8))]);
  }
  std::int64_t number(std::int64_t n) { return rng_.below(draw_++, n); }

 private:
  CounterRng rng_;
  std::uint64_t draw_ = 0;
};

}  // namespace

std::string demo_story(std::uint64_t index) {
  Teller tell(index);
  const std::string name = tell.pick(kNames), friend_name = tell.pick(kNames);
  const std::string animal = tell.pick(kAnimals), place = tell.pick(kPlaces);
  const std::string thing = tell.pick(kThings);
  std::string story = "Once there was a " + animal + " who lived near the " + place + ". ";
  story += name + " came to the " + place + " to look for a " + thing + ". ";
  switch (tell.number(3)) {
    case 0:
      story += "The " + animal + " was " + tell.pick(kMoods) + ", and so was " + name + ". ";
      break;
    case 1:
      story += "\"Have you seen my " + thing + "?\" asked " + name + ". The " + animal +
               " only blinked. ";
      break;
    default:
      story += "It rained all day, and " + name + " was " + tell.pick(kMoods) + ". ";
  }
  if (tell.number(2) == 0) {
    story += friend_name + " had left the " + thing + " at the " + tell.pick(kPlaces) + ". ";
  }
  story += "In the end the " + animal + " found the " + thing + ", and " + name + " was " +
           tell.pick(kMoods) + " again.\n";
  return story;
}

}  // namespace jamba
