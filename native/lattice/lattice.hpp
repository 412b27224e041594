// Gaussian filters of any features on the permutohedral lattice (Adams, Baek and Davis 2010), and mean-field steps on them.
//
// A point's features lie in a simplex of the lattice; its value is spread over the simplex's vertices (splat), the vertices are
// blurred along each of the lattice's axes in turn, and the point reads its own vertices (slice): K = scale * S B S'.
#pragma once
#include <cstddef>
#include <cstdint>

namespace ninefold {

constexpr int kMostFeatures = 12;  // dimensions that the build is compiled for
constexpr int kMostLabels = 64;    // of a mean field in one pass
constexpr int kMostTerms = 16;
constexpr int32_t kWhole = 65535;  // weights are whole numbers, and a point's add up to this exactly: the last is what is left
constexpr float kWeightUnit = 1.0f / kWhole;

// What a build leaves. Vertices are numbered as points first touch them; number `vertices` stands for one that is not there.
struct LatticeView {
    int64_t points = 0, vertices = 0;
    int64_t corners = 0;                // of a simplex, and axes of the blur: one more than features
    const int32_t* ids = nullptr;       // (points, corners)
    const uint16_t* weights = nullptr;  // (points, corners - 1): barycentric, but for the last corner's
    const int32_t* near = nullptr;      // (corners, vertices, 2): the two neighbours along each axis
    float scale = 1;                    // makes the kernel's integral that of exp(-|f|^2 / 2)
};

// The order of the blur's axes: first to last is K, reversed K'; `both` is their mean, which is symmetric.
enum class Order { forward, reversed, both };

// One pairwise term of a mean-field step: energies matrix * (after (K - self) before q).
struct PairwiseView {
    LatticeView lattice;
    Order order = Order::forward;
    const float* before = nullptr;  // (points), null for ones
    const float* after = nullptr;
    const float* self = nullptr;    // (points): the kernel's diagonal, taken off; null where it stays
    const float* matrix = nullptr;  // (labels, labels) row by row; null where `diagonal` is the matrix's
    const float* diagonal = nullptr;
};

struct MeanField {
    int64_t points = 0, labels = 0, steps = 0, threads = 1;
    const float* unary = nullptr;  // energies (labels, points)
    float* q = nullptr;            // (labels, points): the start, then the result; it is the softmax of -unary where `begun` is 0
    int64_t begun = 0;
    const PairwiseView* terms = nullptr;
    int64_t count = 0;
};

// One filter: out = K in, of (points, channels) each.
struct Filtering {
    LatticeView lattice;
    Order order = Order::forward;
    int64_t channels = 0, threads = 1;
    const float* in = nullptr;
    float* out = nullptr;
};

class Barrier;
void wait_at(Barrier& barrier, int64_t threads);  // Barrier::wait, for kernels, which compile nothing of a library

// One thread among those that make one call.
struct Team {
    int64_t me, size;
    Barrier& barrier;
};

struct LatticeKernels {
    size_t (*filter_scratch)(const Filtering&);
    void (*filter)(const Filtering&, char* scratch, const Team&);
    size_t (*field_scratch)(const MeanField&);
    void (*field)(const MeanField&, char* scratch, const Team&);
};

}  // namespace ninefold

#ifdef NINEFOLD_ISA  // where kernels are compiled
namespace ninefold::NINEFOLD_ISA {
extern const LatticeKernels lattice;
}  // namespace ninefold::NINEFOLD_ISA
#endif
