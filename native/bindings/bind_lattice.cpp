// Lattices: built once from features, then called with addresses as often as there are messages.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>

#include "common/arena.hpp"
#include "common/fork.hpp"
#include "dispatch/isa.hpp"
#include "dispatch/kernels.hpp"
#include "lattice/barrier.hpp"
#include "lattice/lattice_build.hpp"

namespace nb = nanobind;
using namespace ninefold;

namespace {

// A thread for so many points at least: less work is not worth starting it.
int64_t allowed(int64_t threads, int64_t points) { return after_fork() ? 1 : std::min(threads, 1 + points / 8192); }

class Lattice {
public:
    Lattice(const std::string& isa, uintptr_t features, int64_t points, int64_t dims, int64_t most, int64_t threads)
        : kernels_(*kernels_named(isa).lattice),
          plan_(reinterpret_cast<const float*>(features), points, dims, most, allowed(threads, points)) {}

    const LatticeKernels& kernels() const { return kernels_; }
    const LatticeView& view() const { return plan_.view(); }
    int64_t vertices() const { return view().vertices; }
    int64_t bytes() const { return plan_.bytes(); }
    void filter(uintptr_t in, uintptr_t out, int64_t channels, int order, int64_t threads) const {
        threads = allowed(threads, view().points);
        const Filtering f{
            view(), Order(order), channels, threads, reinterpret_cast<const float*>(in), reinterpret_cast<float*>(out)};
        Scratch scratch(kernels_.filter_scratch(f));
        run_on_threads(threads, [&](int64_t me, int64_t size, Barrier& barrier) {
            kernels_.filter(f, scratch.data(), {me, size, barrier});
        });
    }
    void diagonal(uintptr_t out, int64_t threads) const {
        plan_.diagonal(reinterpret_cast<float*>(out), allowed(threads, view().points));
    }

private:
    const LatticeKernels& kernels_;
    LatticePlan plan_;
};

// terms: before, after, self, matrix, diagonal of each lattice, addresses or 0, and whether it is blurred in both orders.
MeanField described(const std::vector<const Lattice*>& lattices, const std::vector<uintptr_t>& terms, int64_t labels,
                    int64_t threads, std::vector<PairwiseView>& views) {
    auto at = [&](size_t k) { return reinterpret_cast<const float*>(terms.at(k)); };
    for (size_t k = 0; k < lattices.size(); ++k)
        views.push_back({lattices[k]->view(), terms.at(6 * k + 5) ? Order::both : Order::forward, at(6 * k), at(6 * k + 1),
                         at(6 * k + 2), at(6 * k + 3), at(6 * k + 4)});
    MeanField f;
    f.points = lattices.at(0)->view().points, f.labels = labels, f.threads = allowed(threads, f.points);
    f.terms = views.data(), f.count = int64_t(views.size());
    return f;
}

void mean_field(const std::vector<const Lattice*>& lattices, const std::vector<uintptr_t>& terms, uintptr_t unary, uintptr_t q,
                int64_t labels, int64_t steps, bool begun, int64_t threads) {
    std::vector<PairwiseView> views;
    MeanField f = described(lattices, terms, labels, threads, views);
    f.unary = reinterpret_cast<const float*>(unary), f.q = reinterpret_cast<float*>(q), f.steps = steps, f.begun = begun;
    Scratch scratch(lattices[0]->kernels().field_scratch(f));
    run_on_threads(f.threads, [&](int64_t me, int64_t size, Barrier& barrier) {
        lattices[0]->kernels().field(f, scratch.data(), {me, size, barrier});
    });
}

}  // namespace

void bind_lattice(nb::module_& m) {
    nb::class_<Lattice>(m, "Lattice", "A permutohedral lattice of features (points, dims), float32.")
        .def(nb::init<const std::string&, uintptr_t, int64_t, int64_t, int64_t, int64_t>(),
             nb::call_guard<nb::gil_scoped_release>())
        .def_prop_ro("vertices", &Lattice::vertices)
        .def_prop_ro("bytes", &Lattice::bytes)
        .def("filter", &Lattice::filter, nb::call_guard<nb::gil_scoped_release>())
        .def("diagonal", &Lattice::diagonal, nb::call_guard<nb::gil_scoped_release>());
    m.def("mean_field", &mean_field, nb::call_guard<nb::gil_scoped_release>(),
          "Steps of a mean field, a pass over the points each.");
    m.attr("LATTICE_FEATURES") = kMostFeatures;
    m.attr("LATTICE_LABELS") = kMostLabels;
    m.attr("LATTICE_TERMS") = kMostTerms;
}
