// The table of kernels of one instruction set: where bindings meet the families.
#pragma once
#include <cstddef>
#include <cstdint>

namespace ninefold {

struct Direct;  // common/direct_problem.hpp; each other struct is in the header of its family
struct Unshared;
struct WinogradKernels;
struct ImplicitKernels;
struct Pool;
struct EncodeKernels;
struct LatticeKernels;

// The kernels of one instruction set.
struct Kernels {
    const char* name;
    int64_t lanes;  // of float32
    size_t (*direct_scratch)(const Direct&, bool weights);
    void (*direct_forward)(const Direct&, const void* in, const void* weight, const void* bias, void* out, char* scratch);
    void (*direct_backward_weights)(const Direct&, const void* in, const void* grad, void* weight, char* scratch);
    size_t (*unshared_scratch)(const Unshared&);
    void (*unshared)(const Unshared&, const void* a, const void* b, const void* bias, void* out, char* scratch);
    const WinogradKernels* winograd;
    const ImplicitKernels* implicit;
    const EncodeKernels* encode;
    const LatticeKernels* lattice;
    size_t (*pool_scratch)(const Pool&);
    void (*pool_forward)(const Pool&, const void* in, void* out, char* scratch);
    size_t (*pool_backward_scratch)(const Pool&);
    void (*pool_backward)(const Pool&, const void* in, const void* grad, void* grad_in, char* scratch);
};

}  // namespace ninefold
