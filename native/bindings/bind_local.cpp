// Unshared layers: a plan is one map of one form; it is called with addresses.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "common/arena.hpp"
#include "common/fork.hpp"
#include "common/runs.hpp"
#include "dispatch/isa.hpp"
#include "dispatch/kernels.hpp"
#include "unshared/unshared.hpp"

namespace nb = nanobind;
using namespace ninefold;

namespace {

using Ints = std::vector<int64_t>;

class LocalPlan {
public:
    // channels: batch, groups, ins, outs per group; in: strides n, c, z, y, x, then sizes; out: strides n, c, position;
    // every other list is per axis z, y, x: what stands at the extended positions, how many these are, outputs, where the first
    // one starts, steps between them, the stored period.
    LocalPlan(const std::string& isa, int map, int type, int64_t threads, int64_t cut, const Ints& channels, const Ints& in,
              const Ints& out, const std::vector<RunLists>& runs, const Ints& extended, const Ints& outputs, const Ints& first,
              const Ints& step, const Ints& period, const Ints& taps, const Ints& dilation)
        : kernels_(kernels_named(isa)) {
        Unshared& d = local_;
        d.map = UnsharedMap(map), d.type = Type(type), d.threads = threads, d.cut = cut;
        d.batch = channels.at(0), d.groups = channels.at(1), d.ins = channels.at(2), d.outs = channels.at(3);
        d.in_n = in.at(0), d.in_c = in.at(1);
        for (int k = 0; k < 3; ++k) {
            d.in[k] = in.at(2 + k), d.space[k] = in.at(5 + k), d.extended[k] = extended.at(k);
            d.outputs[k] = outputs.at(k), d.first[k] = first.at(k), d.step[k] = step.at(k), d.period[k] = period.at(k);
            runs_[k] = runs_of(runs.at(k));
        }
        d.out_n = out.at(0), d.out_c = out.at(1), d.out_p = out.at(2);
        const int64_t row = d.extended[2], plane = row * d.extended[1];
        for (int64_t z = 0; z < taps.at(0); ++z)
            for (int64_t y = 0; y < taps.at(1); ++y)
                for (int64_t x = 0; x < taps.at(2); ++x)
                    at_.push_back(z * dilation.at(0) * plane + y * dilation.at(1) * row + x * dilation.at(2));
        d.positions = outputs.at(0) * outputs.at(1) * outputs.at(2), d.taps = int64_t(at_.size());
        d.kernels = period.at(0) * period.at(1) * period.at(2);
        d.run = dilation.at(2) == 1 ? taps.at(2) : 1;
        scratch_ = kernels_.unshared_scratch(view());
    }

    LocalPlan(LocalPlan&&) = default;
    LocalPlan(const LocalPlan&) = delete;

    size_t scratch() const { return scratch_; }

    // The operands in the map's order, a bias or 0, the result.
    void call(uintptr_t a, uintptr_t b, uintptr_t bias, uintptr_t out) const {
        Scratch scratch(scratch_);
        Unshared d = view();
        d.forked = after_fork();
        auto at = [](uintptr_t address) { return reinterpret_cast<void*>(address); };
        kernels_.unshared(d, at(a), at(b), at(bias), at(out), scratch.data());
    }

private:
    // Made at every call, so that a plan may be moved.
    Unshared view() const {
        Unshared d = local_;
        for (int k = 0; k < 2; ++k) d.source[k] = positions_of(runs_[k]);
        d.runs = runs_[2].data(), d.n_runs = int64_t(runs_[2].size());
        d.at = at_.data();
        return d;
    }

    const Kernels& kernels_;
    Unshared local_{};
    std::vector<Run> runs_[3];
    Ints at_;
    size_t scratch_ = 0;
};

}  // namespace

void bind_local(nb::module_& m) {
    nb::class_<LocalPlan>(m, "LocalPlan", "One map of a layer with kernels of its own at every position.")
        .def(nb::init<const std::string&, int, int, int64_t, int64_t, const Ints&, const Ints&, const Ints&,
                      const std::vector<RunLists>&, const Ints&, const Ints&, const Ints&, const Ints&, const Ints&, const Ints&,
                      const Ints&>())
        .def_prop_ro("scratch", &LocalPlan::scratch)
        .def("__call__", &LocalPlan::call, nb::call_guard<nb::gil_scoped_release>());
}
