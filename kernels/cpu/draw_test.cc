// The numbers that choices are made of, against the C library's.
#include "kernels/draw.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

namespace dsm::kernels {
namespace {

constexpr double kEpsilon = std::numeric_limits<double>::epsilon();

TEST(Draw, LogarithmsAreThoseOfTheLibraryInAllButTheLastBits) {
  std::mt19937_64 random(1);
  std::uniform_real_distribution<double> exponents(-60, 6);
  for (int i = 0; i < 100000; ++i) {
    const double x = std::exp2(exponents(random));
    ASSERT_NEAR(log_of(x), std::log(x), 3 * kEpsilon * std::abs(std::log(x))) << x;
  }
  // Near one what is relative counts: of these the noise takes another logarithm.
  for (int bits = 1; bits <= 53; ++bits) {
    const double x = 1 - std::exp2(-bits);
    ASSERT_NEAR(log_of(x), std::log(x), 3 * kEpsilon * std::abs(std::log(x))) << bits;
  }
  EXPECT_EQ(log_of(1.0), 0.0);
  EXPECT_EQ(log_of(2.0), std::log(2.0));
}

TEST(Draw, ExponentialsAreThoseOfTheLibraryInAllButTheLastBits) {
  std::mt19937_64 random(2);
  std::uniform_real_distribution<double> numbers(-40, 0);
  for (int i = 0; i < 100000; ++i) {
    const double x = numbers(random);
    ASSERT_NEAR(exp_of(x), std::exp(x), 4 * kEpsilon * std::exp(x)) << x;
  }
  EXPECT_EQ(exp_of(0.0), 1.0);
}

TEST(Draw, NoiseIsGumbelsAndNeverMoreThanItsBound) {
  std::mt19937_64 random(3);
  double sum = 0;
  constexpr int kTimes = 100000;
  for (int i = 0; i < kTimes; ++i) {
    const std::uint64_t bits = random() | (i % 2 == 0 ? ~std::uint64_t{0} << (random() % 64) : 0);
    ASSERT_LE(noise_of(bits), most_noise(bits)) << bits;
    sum += noise_of(random());
  }
  EXPECT_NEAR(sum / kTimes, 0.5772, 0.02) << "Euler's constant is its mean";
  // The ends of the uniform numbers.
  EXPECT_NEAR(noise_of(0), -std::log(std::log(2.0) * 54), 1e-12);
  EXPECT_NEAR(noise_of(~std::uint64_t{0}), std::log(2.0) * 53, 1e-12);
  EXPECT_LE(noise_of(~std::uint64_t{0}), most_noise(~std::uint64_t{0}));
}

TEST(Draw, MassesAreProbabilitiesAgainstTheBest) {
  EXPECT_EQ(mass_of(3.0F, 3.0F, 0.7), static_cast<std::uint64_t>(kMassOfBest));
  EXPECT_NEAR(static_cast<double>(mass_of(1.0F, 3.0F, 0.5)), std::exp(-4.0) * kMassOfBest, 1);
  EXPECT_EQ(mass_of(-100.0F, 3.0F, 1.0), 0U);
  EXPECT_EQ(mass_of(-INFINITY, 3.0F, 1.0), 0U);
  EXPECT_EQ(least_mass(1.0F), mass_of(0.0F, 0.0F, 1.0)) << "min_p 1 keeps the best";
  EXPECT_EQ(least_mass(0.0F), 0U);
  EXPECT_EQ(nucleus_mass(1e-30F, 1000), 1U);
  EXPECT_EQ(nucleus_mass(0.5F, 1001), 501U);
}

TEST(Draw, TheLeaderIsTheHighestAndOfEqualOnesTheLowestToken) {
  Leader<float> leader;
  EXPECT_EQ(leader.token, kNoToken);
  leader.meet(1.0F, 7);
  leader.meet(1.0F, 9);
  EXPECT_EQ(leader.token, 7);
  leader.meet(1.0F, 3);
  EXPECT_EQ(leader.token, 3);
  leader.meet(NAN, 0);
  leader.meet(0.5F, 1);
  EXPECT_EQ(leader.token, 3);
}

}  // namespace
}  // namespace dsm::kernels
