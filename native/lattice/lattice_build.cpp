#include "lattice/lattice_build.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <stdexcept>

#include "lattice/barrier.hpp"

namespace ninefold {
namespace {

constexpr double kFarthest = double(1 << 22);  // coordinates up to here keep 2^-30 of a simplex in the arithmetic below

// To the nearest whole number, without a call: what is added leaves no bits behind the point.
inline double nearest(double x) { return (x + 6755399441055744.0) - 6755399441055744.0; }

template <int D> using Key = std::array<int32_t, D>;  // the last of D + 1 coordinates is minus the sum of the others

template <int D> uint64_t mixed(const Key<D>& key) {
    uint64_t h = 0;
    for (int k = 0; k < D; ++k) h = (h + uint64_t(uint32_t(key[k]))) * 0x9E3779B97F4A7C15u, h ^= h >> 29;
    return h ^ (h >> 32);
}

// Keys in the order in which they came, found by open addressing.
template <int D> class Table {
public:
    explicit Table(int64_t room = 1024) : slots_(size_t(room), Slot{0, -1}) {}

    int32_t find(const Key<D>& key) const {
        const uint64_t h = mixed<D>(key), mask = slots_.size() - 1;
        for (uint64_t at = h & mask;; at = (at + 1) & mask) {
            const Slot& slot = slots_[at];
            if (slot.id < 0 || (slot.tag == uint32_t(h >> 32) && keys_[slot.id] == key)) return slot.id;
        }
    }
    int32_t insert(const Key<D>& key) {
        const uint64_t h = mixed<D>(key), mask = slots_.size() - 1;
        for (uint64_t at = h & mask;; at = (at + 1) & mask) {
            Slot& slot = slots_[at];
            if (slot.id >= 0 && slot.tag == uint32_t(h >> 32) && keys_[slot.id] == key) return slot.id;
            if (slot.id >= 0) continue;
            const int32_t id = int32_t(keys_.size());
            slot = {uint32_t(h >> 32), id};
            keys_.push_back(key);
            if (2 * keys_.size() > slots_.size()) grow();
            return id;
        }
    }
    const std::vector<Key<D>>& keys() const { return keys_; }

private:
    struct Slot {
        uint32_t tag;
        int32_t id;
    };
    void grow() {
        slots_.assign(slots_.size() * 2, Slot{0, -1});
        const uint64_t mask = slots_.size() - 1;
        for (size_t k = 0; k < keys_.size(); ++k) {
            const uint64_t h = mixed<D>(keys_[k]);
            uint64_t at = h & mask;
            while (slots_[at].id >= 0) at = (at + 1) & mask;
            slots_[at] = {uint32_t(h >> 32), int32_t(k)};
        }
    }
    std::vector<Slot> slots_;
    std::vector<Key<D>> keys_;
};

// Where a point lies: the vertex whose coordinates are multiples of D + 1, the order in which coordinates come down from the
// others, and the weight of each vertex.
template <int D> struct Place {
    int32_t zero[D + 1];
    int32_t rank[D + 1];
    uint16_t weight[D + 1];

    bool same(const Place& o) const { return std::equal(zero, zero + D + 1, o.zero) && std::equal(rank, rank + D + 1, o.rank); }
};

// Features on the hyperplane of coordinates that sum to zero, stretched so that spread, blur and reading have variance one; false
// where one is too far out, or no number.
template <int D> bool lift(const float* f, const double* stretch, double* y) {
    double sum = 0;
    bool near = true;
    for (int k = D; k > 0; --k) {
        const double c = double(f[k - 1]) * stretch[k - 1];
        y[k] = sum - k * c;
        sum += c;
    }
    y[0] = sum;
    for (int k = 0; k <= D; ++k) near &= std::abs(y[k]) < kFarthest;
    return near;
}

// The weights as whole numbers that add up to kWhole: what rounding leaves goes to the largest.
template <int D> void round_weights(const double* barycentric, uint16_t* weight) {
    int32_t left = kWhole, best = 0, w[D + 1];
    for (int k = 0; k <= D; ++k) {
        w[k] = int32_t(std::max(0.0, barycentric[k]) * kWhole + 0.5);
        left -= w[k];
        if (w[k] > w[best]) best = k;
    }
    w[best] += left;
    for (int k = 0; k <= D; ++k) weight[k] = uint16_t(w[k]);
}

template <int D> void locate(const double* y, Place<D>& p) {
    constexpr int n = D + 1;
    double rest[n], barycentric[n + 1] = {};
    int32_t sum = 0;
    for (int k = 0; k < n; ++k) {
        const double whole = nearest(y[k] * (1.0 / n));
        p.zero[k] = int32_t(whole) * n, rest[k] = y[k] - whole * n, p.rank[k] = 0;
        sum += int32_t(whole);
    }
    for (int a = 0; a < n; ++a)
        for (int b = a + 1; b < n; ++b) {
            const int32_t less = rest[a] < rest[b];
            p.rank[a] += less, p.rank[b] += 1 - less;
        }
    for (int k = 0; k < n; ++k) {  // back onto the hyperplane: those that were rounded farthest go one step back
        p.rank[k] += sum;
        const int32_t move = p.rank[k] < 0 ? n : p.rank[k] >= n ? -n : 0;
        p.rank[k] += move, p.zero[k] += move, rest[k] -= move;
    }
    for (int k = 0; k < n; ++k) {
        const double part = rest[k] * (1.0 / n);
        barycentric[D - p.rank[k]] += part, barycentric[n - p.rank[k]] -= part;
    }
    barycentric[0] += 1 + barycentric[n];
    round_weights<D>(barycentric, p.weight);
}

template <int D> Key<D> corner(const Place<D>& p, int k) {
    Key<D> key;
    for (int j = 0; j < D; ++j) key[j] = p.zero[j] + (p.rank[j] <= D - k ? k : k - D - 1);
    return key;
}

// The neighbour one step up along an axis.
template <int D> Key<D> beside(Key<D> key, int axis) {
    for (int j = 0; j < D; ++j) key[j] -= j == axis ? -D : 1;
    return key;
}

enum Trouble { none = 0, many = 1, far = 2, memory = 3 };

// What one band of points touches, numbered by itself.
template <int D> Trouble walk(const float* features, int64_t first, int64_t last, int64_t most, int32_t* ids, uint16_t* weights,
                              Table<D>& table) {
    double stretch[D], y[D + 1];
    for (int k = 0; k < D; ++k) stretch[k] = (D + 1) * std::sqrt(2.0 / 3) / std::sqrt((k + 1.0) * (k + 2.0));
    Place<D> place[2] = {};
    for (int64_t i = first; i < last; ++i) {
        Place<D>&now = place[i & 1], &before = place[1 - (i & 1)];
        if (!lift<D>(features + i * D, stretch, y)) return far;
        locate<D>(y, now);
        int32_t* to = ids + i * (D + 1);
        std::copy(now.weight, now.weight + D, weights + i * D);  // the last is what is left
        if (i > first && now.same(before)) {
            std::copy(to - (D + 1), to, to);
            continue;
        }
        for (int k = 0; k <= D; ++k) to[k] = table.insert(corner<D>(now, k));
        if (int64_t(table.keys().size()) > most) return many;
    }
    return none;
}

// Neighbours of some of the vertices.
template <int D> void join(const Table<D>& table, int64_t first, int64_t last, int32_t* near) {
    const int64_t vertices = int64_t(table.keys().size());
    for (int64_t v = first; v < last; ++v)
        for (int axis = 0; axis <= D; ++axis) {
            const int32_t up = table.find(beside<D>(table.keys()[v], axis));
            if (up < 0) continue;
            int32_t* at = near + axis * vertices * 2;  // each cell is written once: a step up has one way back
            at[2 * v] = up, at[2 * up + 1] = int32_t(v);
        }
}

void fail(int trouble, int64_t most) {
    if (trouble == many) throw std::length_error("more than " + std::to_string(most) + " vertices");
    if (trouble == far) throw std::out_of_range("features too far out");
    if (trouble == memory) throw std::bad_alloc();
}

}  // namespace

template <int D> void LatticePlan::build(const float* features, int64_t most, int64_t threads) {
    constexpr int n = D + 1;
    const int64_t points = view_.points, bands = std::max<int64_t>(1, std::min(threads, points / 4096));
    ids_.reset(new int32_t[points * n]), weights_.reset(new uint16_t[points * D]);
    std::vector<Table<D>> tables(bands);
    std::atomic<int> trouble{none};
    const auto share = [&](int64_t b, int64_t items) { return items * b / bands; };
    run_on_threads(bands, [&](int64_t me, int64_t size, Barrier&) {
        for (int64_t b = me; b < bands; b += size) {
            int found = memory;
            try {
                found = walk<D>(features, share(b, points), share(b + 1, points), most, ids_.get(), weights_.get(), tables[b]);
            } catch (const std::bad_alloc&) {}
            if (found != none) trouble = found;
        }
    });
    fail(trouble, most);
    Table<D>& all = tables[0];  // bands in their order, so that vertices have the numbers that one band would give them
    std::vector<std::vector<int32_t>> numbers(bands);
    for (int64_t b = 1; b < bands; ++b) {
        numbers[b].reserve(tables[b].keys().size());
        for (const Key<D>& key : tables[b].keys()) numbers[b].push_back(all.insert(key));
        if (int64_t(all.keys().size()) > most) fail(many, most);
        tables[b] = Table<D>(2);
    }
    const int64_t vertices = int64_t(all.keys().size());
    near_.reset(new int32_t[vertices * n * 2]);
    std::fill_n(near_.get(), vertices * n * 2, int32_t(vertices));
    run_on_threads(bands, [&](int64_t me, int64_t size, Barrier&) {
        for (int64_t b = me; b < bands; b += size) {
            for (int64_t k = share(b, points) * n; b && k < share(b + 1, points) * n; ++k) ids_[k] = numbers[b][ids_[k]];
            join<D>(all, share(b, vertices), share(b + 1, vertices), near_.get());
        }
    });
    view_.vertices = vertices;
}

LatticePlan::LatticePlan(const float* features, int64_t points, int64_t dims, int64_t most, int64_t threads) {
    view_.points = points, view_.corners = dims + 1;
    // (2 pi)^(d/2) over what one unit of value becomes: 2^(d+1) by the blur, times the volume of a vertex, (3/2)^(d/2) / sqrt(d +
    // 1)
    view_.scale = float(std::pow(4 * 3.14159265358979 / 3, 0.5 * double(dims)) * std::sqrt(double(dims + 1)) /
                        std::ldexp(1.0, int(dims) + 1));
    switch (dims) {
        case 1: build<1>(features, most, threads); break;
        case 2: build<2>(features, most, threads); break;
        case 3: build<3>(features, most, threads); break;
        case 4: build<4>(features, most, threads); break;
        case 5: build<5>(features, most, threads); break;
        case 6: build<6>(features, most, threads); break;
        case 7: build<7>(features, most, threads); break;
        case 8: build<8>(features, most, threads); break;
        case 9: build<9>(features, most, threads); break;
        case 10: build<10>(features, most, threads); break;
        case 11: build<11>(features, most, threads); break;
        case 12: build<12>(features, most, threads); break;
        default: throw std::invalid_argument("dimensions");
    }
    view_.ids = ids_.get(), view_.weights = weights_.get(), view_.near = near_.get();
}

int64_t LatticePlan::bytes() const { return view_.points * (view_.corners * 6 - 2) + view_.corners * view_.vertices * 8; }

// Whether the blur, axis after axis, leads from one vertex to another by a step along each axis that is `taken`, by vertices that
// are there.
static bool leads(const LatticeView& l, int32_t from, int32_t to, const bool* taken, int side) {
    for (int64_t axis = 0; axis < l.corners && from < l.vertices; ++axis)
        if (taken[axis]) from = l.near[2 * (axis * l.vertices + from) + side];
    return from == to;
}

static double with_itself(const LatticeView& l, const int32_t* ids, const uint16_t* all_but_one) {
    const int64_t n = l.corners;
    int32_t weights[kMostFeatures + 1], left = kWhole;
    for (int64_t k = 0; k < n; ++k) weights[k] = k + 1 < n ? all_but_one[k] : left, left -= weights[k];
    int64_t axes[kMostFeatures +
                 1];  // along which corner k + 1 lies beside corner k; the way on from the last leads back to the first
    for (int64_t k = 0; k < n; ++k)
        for (int64_t axis = 0; axis < n; ++axis)
            if (l.near[2 * (axis * l.vertices + ids[k]) + 1] == ids[(k + 1) % n]) axes[k] = axis;
    double sum = 0;
    for (int64_t from = 0; from < n; ++from)
        for (int64_t steps = 0; steps <= n; ++steps) {  // down along so many axes in their order, or up along all others
            bool down[kMostFeatures + 1] = {}, up[kMostFeatures + 1] = {};
            for (int64_t k = 0; k < n; ++k) {
                bool* const way =
                    k < steps ? down : up;  // GCC 12 under sanitizers takes a copy of an array chosen in one expression
                way[axes[(from + k) % n]] = true;
            }
            const int64_t to = (from + steps) % n;
            const double product = double(weights[from]) * weights[to];
            if (leads(l, ids[from], ids[to], down, 1)) sum += std::ldexp(product, -int(steps));
            if (steps < n && leads(l, ids[from], ids[to], up, 0)) sum += std::ldexp(product, -int(n - steps));
        }
    return sum;
}

void LatticePlan::diagonal(float* out, int64_t threads) const {
    const LatticeView& l = view_;
    const double unit = double(kWeightUnit) * kWeightUnit * l.scale;
    run_on_threads(threads, [&](int64_t me, int64_t size, Barrier&) {
        for (int64_t i = l.points * me / size; i < l.points * (me + 1) / size; ++i)
            out[i] = float(with_itself(l, l.ids + i * l.corners, l.weights + i * (l.corners - 1)) * unit);
    });
}

}  // namespace ninefold
