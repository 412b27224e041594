// Unshared layers: a plan is one map of one form; it is called with addresses.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "arena.hpp"
#include "fork.hpp"
#include "isa.hpp"
#include "local.hpp"

namespace nb = nanobind;
using namespace ninefold;

namespace {

using Ints = std::vector<int64_t>;

class LocalPlan {
public:
    // channels: batch, groups, ins, outs per group; in: strides n, c, z, y, x, then sizes; out: strides n, c, position;
    // every other list is per axis z, y, x: outputs, where the first one starts, steps between them, the stored period.
    LocalPlan(const std::string& isa, int map, int type, int64_t threads, int64_t cut, const Ints& channels, const Ints& in, const Ints& out,
              const std::vector<Ints>& source, const std::vector<Ints>& runs, const Ints& outputs, const Ints& first, const Ints& step,
              const Ints& period, const Ints& taps, const Ints& dilation)
        : kernels_(kernels_named(isa)), source_(source) {
        Local& d = local_;
        d.map = LocalMap(map), d.type = Type(type), d.threads = threads, d.cut = cut;
        d.batch = channels.at(0), d.groups = channels.at(1), d.ins = channels.at(2), d.outs = channels.at(3);
        d.in_n = in.at(0), d.in_c = in.at(1);
        for (int k = 0; k < 3; ++k) d.in[k] = in.at(2 + k), d.space[k] = in.at(5 + k), d.extended[k] = int64_t(source_.at(k).size());
        d.out_n = out.at(0), d.out_c = out.at(1), d.out_p = out.at(2);
        for (const Ints& run : runs) runs_.push_back(Run{run.at(0), run.at(1), run.at(2), run.at(3)});
        const int64_t row = d.extended[2], plane = row * d.extended[1];
        const auto each = [](const Ints& n, auto&& visit) {
            for (int64_t z = 0; z < n.at(0); ++z)
                for (int64_t y = 0; y < n.at(1); ++y)
                    for (int64_t x = 0; x < n.at(2); ++x) visit(z, y, x);
        };
        each(outputs, [&](int64_t z, int64_t y, int64_t x) {
            base_.push_back((first.at(0) + z * step.at(0)) * plane + (first.at(1) + y * step.at(1)) * row + first.at(2) + x * step.at(2));
            kernel_.push_back((z % period.at(0) * period.at(1) + y % period.at(1)) * period.at(2) + x % period.at(2));
        });
        each(taps, [&](int64_t z, int64_t y, int64_t x) {
            at_.push_back(z * dilation.at(0) * plane + y * dilation.at(1) * row + x * dilation.at(2));
        });
        d.positions = int64_t(base_.size()), d.taps = int64_t(at_.size());
        d.kernels = period.at(0) * period.at(1) * period.at(2);
        d.run = dilation.at(2) == 1 ? taps.at(2) : 1;
        sort_positions();
        scratch_ = kernels_.local_scratch(view());
    }

    LocalPlan(LocalPlan&&) = default;
    LocalPlan(const LocalPlan&) = delete;

    size_t scratch() const { return scratch_; }

    // The operands in the map's order, a bias or 0, the result.
    void call(uintptr_t a, uintptr_t b, uintptr_t bias, uintptr_t out) const {
        Scratch scratch(scratch_);
        Local d = view();
        d.forked = after_fork();
        auto at = [](uintptr_t address) { return reinterpret_cast<void*>(address); };
        kernels_.local(d, at(a), at(b), at(bias), at(out), scratch.data());
    }

private:
    // Made at every call, so that a plan may be moved.
    Local view() const {
        Local d = local_;
        d.source[0] = source_[0].data(), d.source[1] = source_[1].data();
        d.runs = runs_.data(), d.n_runs = int64_t(runs_.size());
        d.base = base_.data(), d.at = at_.data(), d.kernel = kernel_.data();
        d.start = start_.data(), d.list = list_.data();
        return d;
    }

    void sort_positions() {
        start_.assign(size_t(local_.kernels) + 1, 0);
        for (int64_t k : kernel_) ++start_[size_t(k) + 1];
        for (size_t k = 1; k < start_.size(); ++k) start_[k] += start_[k - 1];
        Ints next(start_.begin(), start_.end() - 1);
        list_.resize(base_.size());
        for (size_t p = 0; p < kernel_.size(); ++p) list_[size_t(next[size_t(kernel_[p])]++)] = int64_t(p);
    }

    const Kernels& kernels_;
    Local local_{};
    std::vector<Ints> source_;
    std::vector<Run> runs_;
    Ints base_, at_, kernel_, start_, list_;
    size_t scratch_ = 0;
};

}  // namespace

void bind_local(nb::module_& m) {
    nb::class_<LocalPlan>(m, "LocalPlan", "One map of a layer with kernels of its own at every position.")
        .def(nb::init<const std::string&, int, int, int64_t, int64_t, const Ints&, const Ints&, const Ints&, const std::vector<Ints>&,
                      const std::vector<Ints>&, const Ints&, const Ints&, const Ints&, const Ints&, const Ints&, const Ints&>())
        .def_prop_ro("scratch", &LocalPlan::scratch)
        .def("__call__", &LocalPlan::call, nb::call_guard<nb::gil_scoped_release>());
}
