// Forests and basins: Kruskal's walk through edges in order of falling affinity, in its variants.
#include "graphs/graphs.hpp"

#include <algorithm>
#include <array>

namespace ninefold {
namespace {

// From roots to 1, 2, ... in raster order; 0 where not `wanted(root)`.
template <class F>
int64_t numbered(Sets& sets, const Graph& graph, F&& wanted, int64_t* labels) {
    std::vector<uint32_t> number(graph.nodes, 0);
    uint32_t count = 0;
    for (int64_t x = 0; x < graph.nodes; ++x) {
        labels[x] = 0;
        if (graph.mask && !graph.mask[x]) continue;
        const uint32_t root = sets.find(uint32_t(x));
        if (!wanted(root)) continue;
        if (!number[root]) number[root] = ++count;
        labels[x] = number[root];
    }
    return count;
}

// Seeds are the regional maxima: connected edges of one affinity, every edge beside them lower (Cousty et al. 2009).
template <class T, class F>
void put_maxima(const Graph& graph, F&& value, T lowest, int64_t* labels) {
    std::vector<T> steepest(graph.nodes, lowest);  // the largest affinity at each node; `lowest` where no edge is used
    graph.each([&](uint32_t e, uint32_t u, uint32_t v) {
        const T a = value(e);
        steepest[u] = std::max(steepest[u], a), steepest[v] = std::max(steepest[v], a);
    });
    SizedSets plateaus(graph.nodes);
    graph.each([&](uint32_t e, uint32_t u, uint32_t v) {
        const T a = value(e);
        if (a > lowest && a == steepest[u] && a == steepest[v]) {
            const uint32_t p = plateaus.find(u), q = plateaus.find(v);
            if (p != q) plateaus.unite(p, q);
        }
    });
    std::vector<uint8_t> leads_up(graph.nodes, 0);
    graph.each([&](uint32_t e, uint32_t u, uint32_t v) {
        const T a = value(e);
        if (a == steepest[u] && steepest[v] > a) leads_up[plateaus.find(u)] = 1;
        if (a == steepest[v] && steepest[u] > a) leads_up[plateaus.find(v)] = 1;
    });
    for (int64_t x = 0; x < graph.nodes; ++x) {
        const uint32_t root = plateaus.find(uint32_t(x));
        labels[x] = steepest[x] > lowest && !leads_up[root] ? int64_t(root) + 1 : 0;
    }
}

}  // namespace

template <class T>
void Falling<T>::sort() {  // by digits of 11 bits, the last ones first; edges of one key stay in order
    constexpr int digit = 11, buckets = 1 << digit, digits = (8 * sizeof(Bits) + digit - 1) / digit;
    std::vector<std::array<size_t, buckets>> counts(digits);
    for (auto& c : counts) c.fill(0);
    for (const Item& item : items_)
        for (int d = 0; d < digits; ++d) ++counts[d][(item.key >> (d * digit)) & (buckets - 1)];
    std::vector<Item> other(items_.size());
    for (int d = 0; d < digits; ++d) {
        auto& count = counts[d];
        if (std::any_of(count.begin(), count.end(), [&](size_t n) { return n == items_.size(); })) continue;
        size_t sum = 0;
        for (size_t& n : count) sum += std::exchange(n, sum);
        for (const Item& item : items_) other[count[(item.key >> (d * digit)) & (buckets - 1)]++] = item;
        items_.swap(other);
    }
}
template class Falling<float>;
template class Falling<double>;

template <class T>
int64_t components(const Graph& graph, const T* values, T threshold, int64_t least, int64_t* labels) {
    SizedSets sets(graph.nodes);
    graph.each([&](uint32_t e, uint32_t u, uint32_t v) {
        if (!(values[e] > threshold)) return;
        const uint32_t a = sets.find(u), b = sets.find(v);
        if (a != b) sets.unite(a, b);
    });
    return numbered(sets, graph, [&](uint32_t root) { return sets.size(root) >= least; }, labels);
}

template <class T>
int64_t watershed(const Graph& graph, const T* values, T lowest, T highest, bool seeded, int64_t* labels) {
    auto value = [&](uint32_t e) { return values[e] > highest ? T(1) : values[e]; };
    if (!seeded) put_maxima(graph, value, lowest, labels);
    Falling<T> order;
    order.reserve(graph.edges);
    graph.each([&](uint32_t e, uint32_t, uint32_t) {
        if (value(e) > lowest) order.push(value(e), e);
    });
    order.sort();
    SizedSets sets(graph.nodes);  // the label of a set lies at its root
    walk(graph, order, sets, [&](uint32_t, uint32_t u, uint32_t v) {
        const uint32_t a = sets.find(u), b = sets.find(v);
        if (a == b || (labels[a] && labels[b])) return;
        const int64_t label = labels[a] | labels[b];
        labels[sets.unite(a, b)] = label;
    });
    if (!seeded) {
        std::vector<int64_t> of(labels, labels + graph.nodes);
        std::vector<uint32_t> number(graph.nodes, 0);  // by the root of the plateau
        int64_t count = 0;
        for (int64_t x = 0; x < graph.nodes; ++x) {
            const int64_t seed = of[sets.find(uint32_t(x))];
            if (seed && !number[seed - 1]) number[seed - 1] = uint32_t(++count);
            labels[x] = seed ? number[seed - 1] : 0;
        }
        return count;
    }
    std::vector<int64_t> of(labels, labels + graph.nodes);
    for (int64_t x = 0; x < graph.nodes; ++x) {
        // a seed that joined nothing, or was united below another of its label, keeps its own
        if (graph.mask && !graph.mask[x]) labels[x] = 0;
        else labels[x] = of[sets.find(uint32_t(x))];
    }
    return 0;
}

template <class T>
std::vector<int64_t> spanning(const Graph& graph, const T* values) {
    Falling<T> order;
    order.reserve(graph.edges);
    graph.each([&](uint32_t e, uint32_t, uint32_t) { order.push(values[e], e); });
    order.sort();
    SizedSets sets(graph.nodes);
    std::vector<int64_t> forest;
    forest.reserve(graph.nodes);
    walk(graph, order, sets, [&](uint32_t e, uint32_t u, uint32_t v) {
        const uint32_t a = sets.find(u), b = sets.find(v);
        if (a == b) return;
        sets.unite(a, b);
        forest.push_back(e);
    });
    return forest;
}

// Sets united by size keep a second parent that is never moved, and when it was given: the path between two nodes in that shallow
// tree has on it the merge that first put both in one set, and no later one.
template <class T>
void maximin(const Graph& graph, const T* values, const int64_t* pairs, int64_t count, T* out) {
    const std::vector<int64_t> forest = spanning(graph, values);
    SizedSets sets(graph.nodes);
    std::vector<uint32_t> up(graph.nodes), when(graph.nodes, kNone);
    std::iota(up.begin(), up.end(), 0u);
    for (size_t k = 0; k < forest.size(); ++k) {
        const auto [u, v] = graph.ends_of(uint32_t(forest[k]));
        const uint32_t a = sets.find(u), b = sets.find(v), root = sets.unite(a, b), below = root == a ? b : a;
        up[below] = root, when[below] = uint32_t(k);
    }
    for (int64_t p = 0; p < count; ++p) {
        uint32_t a = uint32_t(pairs[2 * p]), b = uint32_t(pairs[2 * p + 1]), merge = kNone;
        const bool same = a == b;
        while (a != b) {
            if (when[a] > when[b]) std::swap(a, b);  // the one that moved first
            if (when[a] == kNone) break;             // two roots: no path
            merge = when[a], a = up[a];
        }
        out[p] = same ? T(1) : a != b ? T(0) : values[forest[merge]];
    }
}

void merges(const Graph& graph, const int64_t* forest, int64_t count, int64_t* children) {
    SizedSets sets(graph.nodes);
    std::vector<int64_t> number(graph.nodes);  // in the tree, by root
    std::iota(number.begin(), number.end(), int64_t(0));
    for (int64_t k = 0; k < count; ++k) {
        const auto [u, v] = graph.ends_of(uint32_t(forest[k]));
        const uint32_t a = sets.find(u), b = sets.find(v);
        children[2 * k] = std::min(number[a], number[b]), children[2 * k + 1] = std::max(number[a], number[b]);
        number[sets.unite(a, b)] = graph.nodes + k;
    }
}

void cheapest(int64_t leaves, const int64_t* children, int64_t count, const double* cost, int64_t* best) {
    std::iota(best, best + leaves + count, int64_t(0));
    for (int64_t k = count; k-- > 0;)  // parents come behind their children
        for (int side = 0; side < 2; ++side) {
            const int64_t child = children[2 * k + side], above = best[leaves + k];
            if (cost[above] <= cost[child]) best[child] = above;
        }
}

int64_t cut(int64_t leaves, const int64_t* children, int64_t count, int64_t* labels) {
    std::vector<int64_t> top(leaves + count);
    std::iota(top.begin(), top.end(), int64_t(0));
    for (int64_t k = count; k-- > 0;) top[children[2 * k]] = top[children[2 * k + 1]] = top[leaves + k];
    std::vector<int64_t> number(leaves + count, 0);
    int64_t found = 0;
    for (int64_t x = 0; x < leaves; ++x) {
        if (!number[top[x]]) number[top[x]] = ++found;
        labels[x] = number[top[x]];
    }
    return found;
}

#define NINEFOLD_FOR(T)                                                        \
    template int64_t components(const Graph&, const T*, T, int64_t, int64_t*); \
    template int64_t watershed(const Graph&, const T*, T, T, bool, int64_t*);  \
    template std::vector<int64_t> spanning(const Graph&, const T*);            \
    template void maximin(const Graph&, const T*, const int64_t*, int64_t, T*);
NINEFOLD_FOR(float)
NINEFOLD_FOR(double)

}  // namespace ninefold
