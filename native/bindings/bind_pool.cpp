// Poolings: a plan holds the windows and is called with addresses.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "common/arena.hpp"
#include "common/fork.hpp"
#include "dispatch/isa.hpp"
#include "dispatch/kernels.hpp"
#include "pooling/pool.hpp"

namespace nb = nanobind;
using namespace ninefold;

namespace {

using Ints = std::vector<int64_t>;

class PoolPlan {
public:
    // axes: kernel, stride, dilation, lo, n_in, n_out, and counts, from, to as PoolAxis has them, along z, y, x; how: join,
    // before, after.
    PoolPlan(const std::string& isa, int type, int64_t threads, int64_t outer, int64_t inner, const std::vector<Ints>& axes,
             const Ints& how, double divisor)
        : kernels_(kernels_named(isa)) {
        pool_.type = Type(type);
        pool_.threads = threads;
        pool_.divisor = divisor;
        pool_.outer = outer;
        pool_.inner = inner;
        pool_.join = Join(how.at(0)), pool_.before = Before(how.at(1)), pool_.after = After(how.at(2));
        for (int k = 0; k < 3; ++k) {
            const Ints& a = axes.at(k);
            PoolAxis& to = pool_.axis[k];
            int64_t* fields[] = {&to.kernel, &to.stride, &to.dilation, &to.lo, &to.n_in, &to.n_out, &to.counts, &to.from, &to.to};
            for (size_t i = 0; i < std::size(fields); ++i) *fields[i] = a.at(i);
        }
    }
    PoolPlan(const PoolPlan&) = delete;

    void forward(uintptr_t in, uintptr_t out) const {
        const Pool pool = now();
        Scratch scratch(kernels_.pool_scratch(pool));
        kernels_.pool_forward(pool, reinterpret_cast<const void*>(in), reinterpret_cast<void*>(out), scratch.data());
    }

    // The gradient of a largest or a total: input (not read for a total), gradient of the output, gradient of the input.
    void backward(uintptr_t in, uintptr_t grad, uintptr_t grad_in) const {
        const Pool pool = now();
        Scratch scratch(kernels_.pool_backward_scratch(pool));
        kernels_.pool_backward(pool, reinterpret_cast<const void*>(in), reinterpret_cast<const void*>(grad),
                               reinterpret_cast<void*>(grad_in), scratch.data());
    }

private:
    Pool now() const {
        Pool pool = pool_;
        if (after_fork()) pool.threads = 1;
        return pool;
    }

    const Kernels& kernels_;
    Pool pool_{};
};

}  // namespace

void bind_pool(nb::module_& m) {
    nb::class_<PoolPlan>(m, "PoolPlan", "Windows over a tensor, and what is made of each.")
        .def(nb::init<const std::string&, int, int64_t, int64_t, int64_t, const std::vector<Ints>&, const Ints&, double>())
        .def("forward", &PoolPlan::forward, nb::call_guard<nb::gil_scoped_release>())
        .def("backward", &PoolPlan::backward, nb::call_guard<nb::gil_scoped_release>());
}
