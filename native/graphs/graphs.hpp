// Graphs of affinities between voxels, or between whatever a list of edges joins: forests, basins, exclusions, pairs by maximin
// affinity.
//
// Everything here looks at edges in one order: the largest affinity first, equal ones by their number. An edge of a grid has the
// number channel * voxels + voxel, so that equal affinities go by channel, then in raster order: results never depend on threads
// or on luck.
#pragma once
#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

namespace ninefold {

constexpr uint32_t kNone = UINT32_MAX;

// A grid with offsets, or a list of edges; both ends of an edge are inside, and in the mask where there is one.
struct Graph {
    int64_t nodes = 0, edges = 0;   // edges by number, those that leave the grid, too; both below 2^32
    std::vector<int64_t> shape;     // of a grid
    std::vector<int64_t> offsets;   // (channels, axes): the edge that is stored at p ends at p + offset
    std::vector<int64_t> steps;     // (channels): the same in voxels
    const int64_t* ends = nullptr;  // (edges, 2) of a list
    const uint8_t* mask = nullptr;  // (nodes)

    std::pair<uint32_t, uint32_t> ends_of(uint32_t edge) const {
        if (ends) return {uint32_t(ends[2 * size_t(edge)]), uint32_t(ends[2 * size_t(edge) + 1])};
        const uint32_t channel = edge / uint32_t(nodes), voxel = edge - channel * uint32_t(nodes);
        return {voxel, uint32_t(int64_t(voxel) + steps[channel])};
    }

    // f(edge, one end, other end) for every edge that is there, by number
    template <class F>
    void each(F&& f) const {
        auto call = [&](uint32_t edge, uint32_t u, uint32_t v) {
            if (u != v && (!mask || (mask[u] && mask[v]))) f(edge, u, v);
        };
        if (ends) {
            for (int64_t e = 0; e < edges; ++e) call(uint32_t(e), uint32_t(ends[2 * e]), uint32_t(ends[2 * e + 1]));
            return;
        }
        for (size_t c = 0; c < steps.size(); ++c) rows(c, call);
    }

private:
    template <class F>
    void rows(size_t channel, F&& call) const {
        const size_t axes = shape.size();
        const int64_t* offset = offsets.data() + channel * axes;
        std::vector<int64_t> low(axes), high(axes), stride(axes, 1);
        for (size_t k = axes; k-- > 0;) {
            low[k] = std::max<int64_t>(0, -offset[k]), high[k] = shape[k] - std::max<int64_t>(0, offset[k]);
            if (k + 1 < axes) stride[k] = stride[k + 1] * shape[k + 1];
            if (low[k] >= high[k]) return;
        }
        std::vector<int64_t> at = low;
        for (;;) {
            int64_t row = 0;
            for (size_t k = 0; k + 1 < axes; ++k) row += at[k] * stride[k];
            for (int64_t x = low[axes - 1]; x < high[axes - 1]; ++x)
                call(uint32_t(int64_t(channel) * nodes + row + x), uint32_t(row + x), uint32_t(row + x + steps[channel]));
            size_t k = axes - 1;
            while (k > 0 && ++at[k - 1] == high[k - 1]) at[k - 1] = low[k - 1], --k;
            if (k == 0) return;
        }
    }
};

class Sets {
public:
    explicit Sets(int64_t count) : parent_(count) { std::iota(parent_.begin(), parent_.end(), 0u); }
    uint32_t find(uint32_t x) {
        while (parent_[x] != x) x = parent_[x] = parent_[parent_[x]];
        return x;
    }
    void put(uint32_t below, uint32_t root) { parent_[below] = root; }
    const uint32_t* where(uint32_t x) const { return &parent_[x]; }

private:
    std::vector<uint32_t> parent_;
};

// Sets that know how large they are; unite returns the root that stays.
class SizedSets : public Sets {
public:
    explicit SizedSets(int64_t count) : Sets(count), size_(count, 1) {}
    uint32_t unite(uint32_t a, uint32_t b) {
        if (size_[a] < size_[b]) std::swap(a, b);
        put(b, a), size_[a] += size_[b];
        return a;
    }
    uint32_t size(uint32_t root) const { return size_[root]; }

private:
    std::vector<uint32_t> size_;
};

// Keys of pairs in open addressing, with a value each; what is erased leaves no tombstone.
template <class V>
class PairTable {
public:
    PairTable() { reserve(32); }
    static uint64_t key(uint32_t a, uint32_t b) { return uint64_t(a) << 32 | b; }
    static uint64_t unordered(uint32_t a, uint32_t b) { return a < b ? key(a, b) : key(b, a); }

    V* find(uint64_t key) {
        for (size_t k = slot(key);; k = (k + 1) & last_) {
            if (keys_[k] == key) return &values_[k];
            if (keys_[k] == kFree) return nullptr;
        }
    }
    // The value, and whether the key is new.
    std::pair<V*, bool> insert(uint64_t key, V value) {
        if (2 * (count_ + 1) > keys_.size()) grow();
        size_t k = slot(key);
        for (; keys_[k] != kFree; k = (k + 1) & last_)
            if (keys_[k] == key) return {&values_[k], false};
        keys_[k] = key, values_[k] = value, ++count_;
        return {&values_[k], true};
    }
    void erase(uint64_t key) {
        size_t k = slot(key);
        for (; keys_[k] != key; k = (k + 1) & last_)
            if (keys_[k] == kFree) return;
        for (size_t next = (k + 1) & last_; keys_[next] != kFree; next = (next + 1) & last_) {
            if (((next - slot(keys_[next])) & last_) < ((next - k) & last_)) continue;  // would lie before its own slot
            keys_[k] = keys_[next], values_[k] = values_[next], k = next;
        }
        keys_[k] = kFree, --count_;
    }

private:
    static constexpr uint64_t kFree = UINT64_MAX;
    size_t slot(uint64_t key) const { return size_t((key * 0x9E3779B97F4A7C15ull) >> shift_); }
    void reserve(size_t slots) {
        keys_.assign(slots, kFree), values_.assign(slots, V{});
        last_ = slots - 1, shift_ = 64 - std::countr_zero(slots), count_ = 0;
    }
    void grow() {
        std::vector<uint64_t> keys = std::move(keys_);
        std::vector<V> values = std::move(values_);
        reserve(keys.size() * 2);
        for (size_t k = 0; k < keys.size(); ++k)
            if (keys[k] != kFree) insert(keys[k], values[k]);
    }
    std::vector<uint64_t> keys_;
    std::vector<V> values_;
    size_t last_ = 0, count_ = 0;
    int shift_ = 0;
};

// Lists of numbers, one for each node, in one pool.
class Lists {
public:
    explicit Lists(int64_t count) : head_(count, kNone), length_(count, 0) {}
    uint32_t length(uint32_t list) const { return length_[list]; }
    void push(uint32_t list, uint32_t value) {
        uint32_t cell = free_;
        if (cell != kNone) free_ = next_[cell], value_[cell] = value;
        else cell = uint32_t(value_.size()), value_.push_back(value), next_.push_back(kNone);
        link(list, cell);
    }
    // Each value v of one list goes to the other where take(v), and is forgotten otherwise.
    template <class F>
    void move(uint32_t from, uint32_t to, F&& take) {
        for (uint32_t cell = head_[from], next; cell != kNone; cell = next) {
            next = next_[cell];
            if (take(value_[cell])) link(to, cell);
            else next_[cell] = free_, free_ = cell;
        }
        head_[from] = kNone, length_[from] = 0;
    }

private:
    void link(uint32_t list, uint32_t cell) { next_[cell] = head_[list], head_[list] = cell, ++length_[list]; }
    std::vector<uint32_t> head_, length_, value_, next_;
    uint32_t free_ = kNone;
};

struct Edge32 {
    uint32_t key, edge;
};
struct Edge64 {
    uint64_t key;
    uint32_t edge;
};
template <class T>
struct SortedBy;
template <>
struct SortedBy<float> {
    using Item = Edge32;
    using Bits = uint32_t;
};
template <>
struct SortedBy<double> {
    using Item = Edge64;
    using Bits = uint64_t;
};

// Affinities with the numbers of their edges: pushed by number, then in order of falling affinity. Not of NaN.
template <class T>
class Falling {
public:
    using Item = typename SortedBy<T>::Item;
    void push(T value, uint32_t edge) { items_.push_back({key(value), edge}); }
    void reserve(size_t count) { items_.reserve(count); }
    void sort();
    size_t size() const { return items_.size(); }
    uint32_t operator[](size_t k) const { return items_[k].edge; }

private:
    using Bits = typename SortedBy<T>::Bits;
    static Bits key(T value) {  // numbers in order, turned round; -0 is 0
        const Bits bits = std::bit_cast<Bits>(value + T(0)), sign = Bits(1) << (8 * sizeof(Bits) - 1);
        return ~(bits & sign ? ~bits : bits | sign);
    }
    std::vector<Item> items_;
};

// Walks through edges in order, with what they join: memory that will be looked at is asked for before.
template <class T, class F>
void walk(const Graph& graph, const Falling<T>& order, const Sets& sets, F&& f) {
    constexpr size_t ahead = 12;
    const size_t count = order.size();
    for (size_t k = 0; k < count; ++k) {
        if (k + ahead < count) {
            const auto [u, v] = graph.ends_of(order[k + ahead]);
            __builtin_prefetch(sets.where(u)), __builtin_prefetch(sets.where(v));
        }
        const auto [u, v] = graph.ends_of(order[k]);
        f(order[k], u, v);
    }
}

// Which edges of a mutex watershed push apart, and which of these are looked at.
struct Repulsion {
    int64_t attractive = 0;          // channels of a grid: those behind push apart
    const uint8_t* apart = nullptr;  // (edges) of a list
    std::vector<int64_t> strides;    // of a grid: only voxels whose coordinates are multiples; empty for all
    bool random = false;             // one in product(strides) instead, drawn
    uint64_t seed = 0;
};

struct Pairs {  // of MALIS: edges and how many pairs of voxels have theirs as maximin edge
    std::vector<int64_t> together, together_pairs, apart, apart_pairs;
    uint64_t all_together = 0, all_apart = 0;
};

// Labels are 1, 2, ... in raster order of first voxels; sets of fewer nodes than `least` and masked nodes get 0. They return how
// many.
template <class T>
int64_t components(const Graph&, const T* values, T threshold, int64_t least, int64_t* labels);
// In: seeds, or zeros and `seeded` false for basins of all maxima. Out: labels.
template <class T>
int64_t watershed(const Graph&, const T* values, T lowest, T highest, bool seeded, int64_t* labels);
template <class T>
int64_t mutex(const Graph&, const T* values, const Repulsion&, int64_t* labels);
// The edges of a maximum spanning forest, in order.
template <class T>
std::vector<int64_t> spanning(const Graph&, const T* values);
// (pairs, 2) in; the maximin affinity of each, 0 where no path is, 1 of a node and itself.
template <class T>
void maximin(const Graph&, const T* values, const int64_t* pairs, int64_t count, T* out);
template <class T>
Pairs malis(const Graph&, const T* values, const uint32_t* labels);

// Merges of a spanning forest: children (edges, 2), numbers below `nodes` are nodes, others are merges before.
void merges(const Graph&, const int64_t* forest, int64_t count, int64_t* children);
// The node of a tree that each node sees as cheapest on its way to the root, the nearest to the root of equals.
void cheapest(int64_t leaves, const int64_t* children, int64_t count, const double* cost, int64_t* best);
// Labels of leaves when the first `count` merges are made.
int64_t cut(int64_t leaves, const int64_t* children, int64_t count, int64_t* labels);

}  // namespace ninefold
