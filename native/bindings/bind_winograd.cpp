// Winograd's plans: made from numbers that Python has checked, called with addresses.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <limits>

#include "common/arena.hpp"
#include "common/fork.hpp"
#include "common/runs.hpp"
#include "dispatch/isa.hpp"
#include "dispatch/kernels.hpp"
#include "winograd/winograd.hpp"

namespace nb = nanobind;
using namespace ninefold;

namespace {

using Integers = std::vector<int64_t>;
using Numbers = std::vector<double>;

class WinogradPlan {
public:
    WinogradPlan(const std::string& isa, const std::vector<nb::object>& axes, const Integers& numbers, int64_t type)
        : kernels_(kernels_named(isa).winograd) {
        for (size_t d = 0; d < 3; ++d) axis(d, axes[d]);
        int64_t* fields[] = {&plan_.batch,  &plan_.groups, &plan_.ins,      &plan_.outs,     &plan_.in_n,     &plan_.in_c,
                             plan_.in,      plan_.in + 1,  plan_.in + 2,    &plan_.out_n,    &plan_.out_c,    plan_.out,
                             plan_.out + 1, plan_.out + 2, &plan_.w_group,  &plan_.w_out,    &plan_.w_in,     &plan_.w_tap,
                             &plan_.flip,   plan_.block,   plan_.block + 1, plan_.block + 2, plan_.block + 3, &plan_.out_block,
                             &plan_.split,  &plan_.threads};
        for (size_t k = 0; k < std::size(fields); ++k) *fields[k] = numbers.at(k);
        plan_.type = static_cast<Type>(type);
    }
    WinogradPlan(const WinogradPlan&) = delete;

    size_t kernel_bytes() const { return kernels_->kernel_bytes(plan_); }
    size_t scratch(bool weights, bool kept) const { return kernels_->scratch(plan_, weights, kept); }

    void prepare(int64_t weight, int64_t kept) const {
        nb::gil_scoped_release released;
        Scratch scratch(kernels_->scratch(plan_, false, true));
        kernels_->prepare(view(), address(weight), address(kept), scratch.data());
    }
    bool run(int64_t in, int64_t weight, int64_t kept, int64_t bias, int64_t out, bool relu) const {
        nb::gil_scoped_release released;
        Scratch scratch(kernels_->scratch(plan_, false, kept != 0));
        Winograd plan = view();
        plan.floor = relu ? 0.0 : -std::numeric_limits<double>::infinity();
        return kernels_->run(plan, address(in), address(weight), address(kept), address(bias), address(out), scratch.data());
    }
    void backward_weights(int64_t in, int64_t grad, int64_t weight) const {
        nb::gil_scoped_release released;
        Scratch scratch(kernels_->scratch(plan_, true, false));
        kernels_->backward_weights(view(), address(in), address(grad), address(weight), scratch.data());
    }

private:
    static void* address(int64_t at) { return reinterpret_cast<void*>(at); }

    Winograd view() const {
        Winograd plan = plan_;
        if (after_fork()) plan.threads = 1;
        return plan;
    }

    void axis(size_t d, const nb::object& given) {
        WinogradAxis& a = plan_.axis[d];
        const Integers sizes = nb::cast<Integers>(given[0]);
        int64_t* fields[] = {&a.m, &a.r, &a.n, &a.taps, &a.pieces, &a.shift, &a.tiles, &a.size};
        for (size_t k = 0; k < std::size(fields); ++k) *fields[k] = sizes.at(k);
        runs_[d][0] = runs_of(nb::cast<RunLists>(given[1]));
        runs_[d][1] = {Run{0, 0, a.size, 1}};
        for (size_t k = 0; k < 5; ++k) matrices_[d][k] = nb::cast<Numbers>(given[k + 2]);
        a.source = positions_of(runs_[d][0]), a.target = positions_of(runs_[d][1]);
        a.BT = matrices_[d][0].data();
        for (size_t k = 0; k < 2; ++k) a.G[k] = matrices_[d][1 + k].data(), a.AT[k] = matrices_[d][3 + k].data();
    }

    const WinogradKernels* kernels_;
    Winograd plan_{};
    std::vector<Run> runs_[3][2];
    Numbers matrices_[3][5];
};

}  // namespace

void bind_winograd(nb::module_& m) {
    nb::set_leak_warnings(false);  // prepared plans are remembered until the process ends
    nb::class_<WinogradPlan>(m, "WinogradPlan")
        .def(nb::init<const std::string&, const std::vector<nb::object>&, const Integers&, int64_t>())
        .def("kernel_bytes", &WinogradPlan::kernel_bytes)
        .def("scratch", &WinogradPlan::scratch)
        .def("prepare", &WinogradPlan::prepare)
        .def("run", &WinogradPlan::run, nb::arg("data"), nb::arg("weight"), nb::arg("kept"), nb::arg("bias"), nb::arg("out"),
             nb::arg("relu") = false)
        .def("weigh", &WinogradPlan::backward_weights);
}
