// Plans of implicit products: made from numbers that Python has checked, called with addresses.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <limits>

#include "common/arena.hpp"
#include "common/fork.hpp"
#include "common/runs.hpp"
#include "dispatch/isa.hpp"
#include "dispatch/kernels.hpp"
#include "implicit/implicit.hpp"

namespace nb = nanobind;
using namespace ninefold;

namespace {

using Integers = std::vector<int64_t>;

class ImplicitPlan {
public:
    // Per axis z, y, x: outputs, taps, first, step, tap, every, as ImplicitAxis has them; and the runs of its source.
    ImplicitPlan(const std::string& isa, const std::vector<Integers>& axes, const std::vector<RunLists>& runs,
                 const Integers& numbers, int64_t type)
        : kernels_(kernels_named(isa).implicit) {
        for (size_t d = 0; d < 3; ++d) {
            const Integers& a = axes.at(d);
            runs_[d] = runs_of(runs.at(d));
            plan_.axis[d] = ImplicitAxis{a.at(0), a.at(1), a.at(2), a.at(3), a.at(4), a.at(5), positions_of(runs_[d])};
        }
        int64_t* fields[] = {&plan_.batch, &plan_.groups, &plan_.ins,     &plan_.outs,          &plan_.in_n,
                             &plan_.in_c,  plan_.in,      plan_.in + 1,   plan_.in + 2,         &plan_.out_n,
                             &plan_.out_c, &plan_.out_p,  &plan_.w_group, &plan_.w_out,         &plan_.w_in,
                             &plan_.w_tap, &plan_.flip,   &plan_.plain,   &plan_.small_spatial, &plan_.seen,
                             &plan_.rows,  &plan_.block,  &plan_.split,   &plan_.threads};
        for (size_t k = 0; k < std::size(fields); ++k) *fields[k] = numbers.at(k);
        plan_.type = static_cast<Type>(type);
    }
    ImplicitPlan(const ImplicitPlan&) = delete;

    size_t kernel_bytes() const { return kernels_->kernel_bytes(plan_); }
    size_t scratch(bool weights, bool kept) const { return kernels_->scratch(plan_, weights, kept); }

    void prepare(int64_t weight, int64_t kept) const { kernels_->prepare(view(false), address(weight), address(kept)); }
    void run(int64_t in, int64_t weight, int64_t kept, int64_t bias, int64_t out, bool relu) const {
        Scratch scratch(kernels_->scratch(plan_, false, kept != 0));
        kernels_->run(view(relu), address(in), address(weight), address(kept), address(bias), address(out), scratch.data());
    }
    void backward_weights(int64_t in, int64_t grad, int64_t weight) const {
        Scratch scratch(kernels_->scratch(plan_, true, false));
        kernels_->backward_weights(view(false), address(in), address(grad), address(weight), scratch.data());
    }

private:
    static void* address(int64_t at) { return reinterpret_cast<void*>(at); }

    Implicit view(bool relu) const {
        Implicit plan = plan_;
        if (after_fork()) plan.threads = 1;
        plan.floor = relu ? 0.0 : -std::numeric_limits<double>::infinity();
        return plan;
    }

    const ImplicitKernels* kernels_;
    Implicit plan_{};
    std::vector<Run> runs_[3];
};

}  // namespace

void bind_implicit(nb::module_& m) {
    using released = nb::call_guard<nb::gil_scoped_release>;
    nb::class_<ImplicitPlan>(m, "ImplicitPlan", "forward and backward_data, or g, of a layer as products of matrices.")
        .def(nb::init<const std::string&, const std::vector<Integers>&, const std::vector<RunLists>&, const Integers&, int64_t>())
        .def("kernel_bytes", &ImplicitPlan::kernel_bytes)
        .def("scratch", &ImplicitPlan::scratch)
        .def("prepare", &ImplicitPlan::prepare, released())
        .def("run", &ImplicitPlan::run, nb::arg("data"), nb::arg("weight"), nb::arg("kept"), nb::arg("bias"), nb::arg("out"),
             nb::arg("relu") = false, released())
        .def("weigh", &ImplicitPlan::backward_weights, released());
}
