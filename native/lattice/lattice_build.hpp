// The lattice of a set of features: who is in which simplex, which vertices there are, who is whose neighbour.
#pragma once
#include <memory>
#include <vector>

#include "lattice/lattice.hpp"

namespace ninefold {

class LatticePlan {
public:
    // features (points, dims); throws std::length_error where more than `most` vertices would be needed, std::out_of_range where
    // a feature lies so far out that its place in a simplex would be rounded.
    LatticePlan(const float* features, int64_t points, int64_t dims, int64_t most, int64_t threads);
    LatticePlan(const LatticePlan&) = delete;

    const LatticeView& view() const { return view_; }
    int64_t bytes() const;
    // The kernel of every point with itself, as the filter computes it: along the ways by vertices that are there.
    void diagonal(float* out, int64_t threads) const;

private:
    template <int D> void build(const float* features, int64_t most, int64_t threads);

    LatticeView view_;
    std::unique_ptr<int32_t[]> ids_;
    std::unique_ptr<uint16_t[]> weights_;
    std::unique_ptr<int32_t[]> near_;
};

}  // namespace ninefold
