// Pairs of clusters: who must stay apart (mutex watershed), and how many pairs of voxels an edge of the spanning forest decides
// (MALIS).
#include <algorithm>

#include "graphs/graphs.hpp"

namespace ninefold {
namespace {

struct Nothing {};

uint64_t mixed(uint64_t x) {  // splitmix64
    x += 0x9E3779B97F4A7C15ull;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
    return x ^ (x >> 31);
}

class Kept {  // which repulsive edges are looked at
public:
    Kept(const Graph& graph, const Repulsion& r) : graph_(graph), r_(r) {
        for (int64_t s : r.strides) every_ *= uint64_t(s);
    }
    bool apart(uint32_t edge) const { return r_.apart ? r_.apart[edge] : edge / uint32_t(graph_.nodes) >= r_.attractive; }
    bool operator()(uint32_t edge) const {
        if (every_ == 1) return true;
        if (r_.random) return mixed(r_.seed ^ mixed(edge)) % every_ == 0;
        int64_t voxel = edge % uint32_t(graph_.nodes);
        for (size_t k = graph_.shape.size(); k-- > 0; voxel /= graph_.shape[k])
            if (voxel % graph_.shape[k] % r_.strides[k]) return false;
        return true;
    }

private:
    const Graph& graph_;
    const Repulsion& r_;
    uint64_t every_ = 1;
};

}  // namespace

// Wolf et al. (2018). A pair of roots that must stay apart is one key of a table; each root has a list of the others, which may
// name roots that were united since. Uniting two sets walks through the shorter list, so that a name moves at most log(names)
// times.
template <class T>
int64_t mutex(const Graph& graph, const T* values, const Repulsion& repulsion, int64_t* labels) {
    const Kept kept(graph, repulsion);
    Sets sets(graph.nodes);
    {
        Falling<T> order;
        order.reserve(graph.edges);
        graph.each([&](uint32_t e, uint32_t, uint32_t) {
            const bool apart = kept.apart(e);
            const T strength = apart ? T(1) - values[e] : values[e];
            if (strength > 0 && (!apart || kept(e))) order.push(strength, e);
        });
        order.sort();
        using Table = PairTable<Nothing>;
        Table exclusive;
        Lists others(graph.nodes);
        walk(graph, order, sets, [&](uint32_t e, uint32_t u, uint32_t v) {
            uint32_t a = sets.find(u), b = sets.find(v);
            if (a == b) return;
            if (kept.apart(e)) {
                if (exclusive.insert(Table::unordered(a, b), {}).second) others.push(a, b), others.push(b, a);
                return;
            }
            if (others.length(a) < others.length(b)) std::swap(a, b);
            if (others.length(b) && exclusive.find(Table::unordered(a, b))) return;
            others.move(b, a, [&](uint32_t other) {
                const uint32_t c = sets.find(other);
                exclusive.erase(Table::unordered(b, c));
                return exclusive.insert(Table::unordered(a, c), {}).second;
            });
            sets.put(b, a);
        });
    }
    std::vector<uint32_t> number(graph.nodes, 0);
    int64_t count = 0;
    for (int64_t x = 0; x < graph.nodes; ++x) {
        labels[x] = 0;
        if (graph.mask && !graph.mask[x]) continue;
        const uint32_t root = sets.find(uint32_t(x));
        if (!number[root]) number[root] = uint32_t(++count);
        labels[x] = number[root];
    }
    return count;
}

// Both passes of the constrained loss in one: edges within an object are the positive pass's, where sets never mix objects, so
// that pairs are products of sizes; they all come before the others in the negative pass, where sets are histograms of labels.
template <class T>
Pairs malis(const Graph& graph, const T* values, const uint32_t* labels) {
    Pairs out;
    SizedSets sets(graph.nodes);
    auto within = [&](uint32_t u, uint32_t v) { return labels[u] && labels[u] == labels[v]; };
    auto sorted = [&](bool inner) {
        Falling<T> order;
        graph.each([&](uint32_t e, uint32_t u, uint32_t v) {
            if (within(u, v) == inner) order.push(values[e], e);
        });
        order.sort();
        return order;
    };
    walk(graph, sorted(true), sets, [&](uint32_t e, uint32_t u, uint32_t v) {
        const uint32_t a = sets.find(u), b = sets.find(v);
        if (a == b) return;
        out.together.push_back(e);
        out.together_pairs.push_back(int64_t(sets.size(a)) * sets.size(b));
        sets.unite(a, b);
    });

    using Table = PairTable<uint64_t>;
    Table histogram;                               // (root, label) -> voxels
    Lists kinds(graph.nodes);                      // labels of a root
    std::vector<uint64_t> voxels(graph.nodes, 0);  // of a root, without background
    Table sizes;                                   // of whole objects, for the number of pairs
    uint64_t all = 0;
    for (int64_t x = 0; x < graph.nodes; ++x) {
        if (!labels[x] || (graph.mask && !graph.mask[x])) continue;
        const uint32_t root = sets.find(uint32_t(x));
        if (voxels[root]++ == 0) {
            histogram.insert(Table::key(root, labels[x]), sets.size(root));
            kinds.push(root, labels[x]);
        }
        const uint64_t before = (*sizes.insert(labels[x], 0).first)++;
        out.all_together += before, out.all_apart += all - before, ++all;
    }
    walk(graph, sorted(false), sets, [&](uint32_t e, uint32_t u, uint32_t v) {
        uint32_t a = sets.find(u), b = sets.find(v);
        if (a == b) return;
        if (kinds.length(a) < kinds.length(b)) std::swap(a, b);
        uint64_t pairs = voxels[a] * voxels[b];
        kinds.move(b, a, [&](uint32_t label) {
            const uint64_t n = *histogram.find(Table::key(b, label));
            histogram.erase(Table::key(b, label));
            const auto [there, fresh] = histogram.insert(Table::key(a, label), n);
            if (!fresh) pairs -= *there * n, *there += n;
            return fresh;
        });
        voxels[a] += voxels[b];
        sets.put(b, a);
        if (pairs) out.apart.push_back(e), out.apart_pairs.push_back(int64_t(pairs));
    });
    return out;
}

template int64_t mutex(const Graph&, const float*, const Repulsion&, int64_t*);
template int64_t mutex(const Graph&, const double*, const Repulsion&, int64_t*);
template Pairs malis(const Graph&, const float*, const uint32_t*);
template Pairs malis(const Graph&, const double*, const uint32_t*);

}  // namespace ninefold
