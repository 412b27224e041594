// Graphs of affinities: arrays in, arrays out, the GIL released. Python has checked sizes, dtypes, ranges and that ends lie
// inside.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include <optional>

#include "graphs/graphs.hpp"

namespace nb = nanobind;
using namespace ninefold;

namespace {

using Ints = std::vector<int64_t>;
template <class T>
using In = nb::ndarray<const T, nb::c_contig, nb::device::cpu>;
template <class T>
using Out = nb::ndarray<T, nb::c_contig, nb::device::cpu>;
using Column = nb::ndarray<nb::numpy, int64_t, nb::ndim<1>>;
using Bytes = std::optional<In<uint8_t>>;

Column column(Ints&& values) {
    auto* kept = new Ints(std::move(values));
    nb::capsule owner(kept, [](void* p) noexcept { delete static_cast<Ints*>(p); });
    return Column(kept->data(), {kept->size()}, owner);
}

// A graph and the arrays that it looks at.
struct Bound {
    Graph graph;
    Bytes mask;
    std::optional<In<int64_t>> ends;

    void masked() { graph.mask = mask ? mask->data() : nullptr; }
};

Bound* grid(const Ints& shape, const Ints& offsets, Bytes mask) {
    auto* bound = new Bound;
    Graph& g = bound->graph;
    g.shape = shape, g.offsets = offsets, g.nodes = 1;
    for (int64_t n : shape) g.nodes *= n;
    for (size_t c = 0; c < offsets.size() / shape.size(); ++c) {
        int64_t step = 0;
        for (size_t k = 0; k < shape.size(); ++k) step = step * shape[k] + offsets[c * shape.size() + k];
        g.steps.push_back(step);
    }
    g.edges = g.nodes * int64_t(g.steps.size());
    bound->mask = std::move(mask);
    bound->masked();
    return bound;
}

Bound* listed(int64_t nodes, In<int64_t> ends) {
    auto* bound = new Bound;
    bound->graph.nodes = nodes, bound->graph.edges = int64_t(ends.shape(0)), bound->graph.ends = ends.data();
    bound->ends = std::move(ends);
    return bound;
}

template <class T>
void bind_type(nb::module_& m) {
    m.def(
        "graph_components",
        [](const Bound& b, In<T> values, T threshold, int64_t least, Out<int64_t> labels) {
            nb::gil_scoped_release free;
            return components(b.graph, values.data(), threshold, least, labels.data());
        },
        nb::arg(), nb::arg().noconvert(), nb::arg(), nb::arg(), nb::arg().noconvert());
    m.def(
        "graph_watershed",
        [](const Bound& b, In<T> values, T lowest, T highest, bool seeded, Out<int64_t> labels) {
            nb::gil_scoped_release free;
            return watershed(b.graph, values.data(), lowest, highest, seeded, labels.data());
        },
        nb::arg(), nb::arg().noconvert(), nb::arg(), nb::arg(), nb::arg(), nb::arg().noconvert());
    m.def(
        "graph_mutex",
        [](const Bound& b, In<T> values, int64_t attractive, Bytes apart, const Ints& strides, bool random, uint64_t seed,
           Out<int64_t> labels) {
            const Repulsion repulsion{attractive, apart ? apart->data() : nullptr, strides, random, seed};
            nb::gil_scoped_release free;
            return mutex(b.graph, values.data(), repulsion, labels.data());
        },
        nb::arg(), nb::arg().noconvert(), nb::arg(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg(), nb::arg().noconvert());
    m.def(
        "graph_spanning",
        [](const Bound& b, In<T> values) {
            Ints forest;
            {
                nb::gil_scoped_release free;
                forest = spanning(b.graph, values.data());
            }
            return column(std::move(forest));
        },
        nb::arg(), nb::arg().noconvert());
    m.def(
        "graph_maximin",
        [](const Bound& b, In<T> values, In<int64_t> pairs, Out<T> out) {
            nb::gil_scoped_release free;
            maximin(b.graph, values.data(), pairs.data(), int64_t(pairs.shape(0)), out.data());
        },
        nb::arg(), nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert());
    m.def(
        "graph_malis",
        [](const Bound& b, In<T> values, In<uint32_t> labels) {
            Pairs p;
            {
                nb::gil_scoped_release free;
                p = malis(b.graph, values.data(), labels.data());
            }
            return nb::make_tuple(column(std::move(p.together)), column(std::move(p.together_pairs)), column(std::move(p.apart)),
                                  column(std::move(p.apart_pairs)), p.all_together, p.all_apart);
        },
        nb::arg(), nb::arg().noconvert(), nb::arg().noconvert());
}

}  // namespace

void bind_graphs(nb::module_& m) {
    nb::class_<Bound>(m, "Graph", "Nodes and edges: a grid with offsets, or a list of ends.");
    m.def("grid_graph", &grid, nb::rv_policy::take_ownership, nb::arg("shape"), nb::arg("offsets"), nb::arg("mask").none());
    m.def("list_graph", &listed, nb::rv_policy::take_ownership, nb::arg("nodes"), nb::arg("ends").noconvert());
    bind_type<float>(m);
    bind_type<double>(m);
    m.def(
        "tree_merges",
        [](const Bound& b, In<int64_t> forest, Out<int64_t> children) {
            nb::gil_scoped_release free;
            merges(b.graph, forest.data(), int64_t(forest.size()), children.data());
        },
        nb::arg(), nb::arg().noconvert(), nb::arg().noconvert());
    m.def(
        "tree_cheapest",
        [](int64_t leaves, In<int64_t> children, In<double> cost, Out<int64_t> best) {
            nb::gil_scoped_release free;
            cheapest(leaves, children.data(), int64_t(children.shape(0)), cost.data(), best.data());
        },
        nb::arg(), nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert());
    m.def(
        "tree_cut",
        [](int64_t leaves, In<int64_t> children, int64_t count, Out<int64_t> labels) {
            nb::gil_scoped_release free;
            return cut(leaves, children.data(), count, labels.data());
        },
        nb::arg(), nb::arg().noconvert(), nb::arg(), nb::arg().noconvert());
}
