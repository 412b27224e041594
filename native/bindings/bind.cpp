// The binding files are the only ones that know Python: plans are made from lists of integers and called with addresses, the GIL
// released.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "common/arena.hpp"
#include "common/denormals.hpp"
#include "dispatch/isa.hpp"

namespace nb = nanobind;
using namespace ninefold;

void bind_direct(nb::module_& m);
void bind_local(nb::module_& m);
void bind_winograd(nb::module_& m);
void bind_implicit(nb::module_& m);
void bind_encode(nb::module_& m);
void bind_graphs(nb::module_& m);
void bind_pool(nb::module_& m);
void bind_lattice(nb::module_& m);

NB_MODULE(_native, m) {
    m.doc() = "Kernels on raw addresses; ninefold.engines.native checks everything before it calls one.";
    m.def("isas", &available, "Instruction sets that this build and this processor have, narrowest first.");
    m.def("poison", &poison_scratch, nb::arg("on"), nb::arg("denormal") = false,
          "Fill scratch memory with NaN, or with denormal numbers, at every call, for tests.");
    m.def("tells_of_denormals", &tells_of_denormals, "Whether this processor tells of denormal operands.");
    m.def("met_denormals", &met_denormals, nb::arg("threads"),
          "Whether any of so many threads met a denormal operand since this was asked last, for tests.");
    m.def("flush_denormals", &flush_denormals, nb::arg("threads"),
          "Take denormal numbers for zero on so many threads; return their control words.");
    m.def("restore_control", &restore_control, nb::arg("words"),
          "Give the threads the control words back that flush_denormals returned.");
    nb::set_leak_warnings(false);  // plans live as long as the process: caches hold them to the end
    bind_direct(m);
    bind_local(m);
    bind_winograd(m);
    bind_implicit(m);
    bind_encode(m);
    bind_graphs(m);
    bind_pool(m);
    bind_lattice(m);
}
