// Direct summation: a plan is a list of problems that together make one map. It is called with addresses.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <tuple>

#include "common/arena.hpp"
#include "common/direct_problem.hpp"
#include "common/fork.hpp"
#include "common/runs.hpp"
#include "dispatch/isa.hpp"
#include "dispatch/kernels.hpp"

namespace nb = nanobind;
using namespace ninefold;

namespace {

using Ints = std::vector<int64_t>;
using LineOf = std::tuple<int64_t, int64_t, Ints, Ints>;  // first, count, at, weight

// A Direct and the memory that it points to.
struct Held {
    Direct direct{};
    std::vector<Ints> edges;
    std::vector<Run> runs[3];
    std::vector<Ints> tables;
    std::vector<Line> lines;

    Line line(const LineOf& of) {
        const auto& [first, count, at, weight] = of;
        tables.push_back(at);
        const int64_t* places = tables.back().data();
        tables.push_back(weight);
        return Line{first, count, int64_t(at.size()), places, tables.back().data()};
    }
};

class DirectPlan {
public:
    DirectPlan(const std::string& isa, int type, int64_t threads, bool weights)
        : kernels_(kernels_named(isa)), type_(Type(type)), threads_(threads), weights_(weights) {}

    DirectPlan(DirectPlan&&) = default;
    DirectPlan(const DirectPlan&) = delete;

    // channels: batch, groups, ins, outs per group; in_: strides n, c, z, y, x; out: the same, then jumps along z, y, x;
    // weight: strides of group, output, input; edges: none, or a table's first, channel, place, shared;
    // staged: positions along z, y, x, then steps along z and y; runs: what stands at them, per axis.
    void add(const Ints& channels, const Ints& in, const Ints& out, const Ints& weight, const std::vector<Ints>& edges,
             const Ints& staged, const std::vector<RunLists>& runs, const LineOf& z, const LineOf& y,
             const std::vector<LineOf>& x, bool in_place) {
        auto held = std::make_unique<Held>();
        held->tables.reserve(2 * (x.size() + 2));  // tables must not move: lines point into them
        for (int k = 0; k < 3; ++k) held->runs[k] = runs_of(runs.at(k));
        Direct& d = held->direct;
        d.batch = channels.at(0), d.groups = channels.at(1), d.ins = channels.at(2), d.outs = channels.at(3);
        d.in_n = in.at(0), d.in_c = in.at(1);
        d.out_n = out.at(0), d.out_c = out.at(1);
        for (int k = 0; k < 3; ++k) {
            d.in[k] = in.at(2 + k);
            d.out[k] = out.at(2 + k);
            d.jump[k] = out.at(5 + k);
            d.staged[k] = staged.at(k);
        }
        d.step[0] = staged.at(3), d.step[1] = staged.at(4);
        d.w_group = weight.at(0), d.w_out = weight.at(1), d.w_in = weight.at(2);
        held->edges = edges;
        if (!edges.empty()) {
            const Ints& first = held->edges.at(0);
            d.edges = {int64_t(first.size()) - 1, 0, first.data(), held->edges.at(1).data(), held->edges.at(2).data(),
                       held->edges.at(3).data()};
            for (size_t k = 0; k + 1 < first.size(); ++k) d.edges.most = std::max(d.edges.most, first[k + 1] - first[k]);
        }
        for (int k = 0; k < 2; ++k) d.source[k] = positions_of(held->runs[k]);
        d.runs = held->runs[2].data(), d.n_runs = int64_t(held->runs[2].size());
        d.z = held->line(z), d.y = held->line(y);
        for (const LineOf& of : x) held->lines.push_back(held->line(of));
        d.x = held->lines.data(), d.n_x = int64_t(held->lines.size());
        for (const Line& line : held->lines) d.taps += d.z.taps * d.y.taps * line.taps;
        d.type = type_;
        d.threads = threads_;
        d.in_place = in_place;
        parts_.push_back(std::move(held));
        scratch_ = std::max(scratch_, kernels_.direct_scratch(d, weights_));
    }

    size_t scratch() const { return scratch_; }

    // c and h: input, weight, bias or 0, output, and whether a ReLU follows; g: input, gradient, 0, weight.
    void call(uintptr_t a, uintptr_t b, uintptr_t bias, uintptr_t out, bool relu) const {
        Scratch scratch(scratch_);
        for (const auto& held : parts_) {
            Direct d = held->direct;
            if (after_fork()) d.threads = 1;
            d.floor = relu ? 0.0 : -std::numeric_limits<double>::infinity();
            auto at = [](uintptr_t address) { return reinterpret_cast<void*>(address); };
            if (weights_) kernels_.direct_backward_weights(d, at(a), at(b), at(out), scratch.data());
            else kernels_.direct_forward(d, at(a), at(b), at(bias), at(out), scratch.data());
        }
    }

private:
    const Kernels& kernels_;
    Type type_;
    int64_t threads_;
    bool weights_;
    size_t scratch_ = 0;
    std::vector<std::unique_ptr<Held>> parts_;
};

}  // namespace

void bind_direct(nb::module_& m) {
    nb::class_<DirectPlan>(m, "DirectPlan", "Correlations that make one map by direct summation.")
        .def(nb::init<const std::string&, int, int64_t, bool>(), nb::arg("isa"), nb::arg("kind"), nb::arg("threads"),
             nb::arg("weights"))
        .def("add", &DirectPlan::add)
        .def_prop_ro("scratch", &DirectPlan::scratch)
        .def("__call__", &DirectPlan::call, nb::arg("a"), nb::arg("b"), nb::arg("bias"), nb::arg("out"), nb::arg("relu") = false,
             nb::call_guard<nb::gil_scoped_release>());
}
