#include "dispatch/isa.hpp"

#include <stdexcept>

namespace ninefold {
namespace baseline {
extern const Kernels kernels;
}
#ifdef NINEFOLD_HAS_avx2
namespace avx2 {
extern const Kernels kernels;
}
#endif
#ifdef NINEFOLD_HAS_wide
namespace wide {
extern const Kernels kernels;
}
#endif
#ifdef NINEFOLD_HAS_avx512
namespace avx512 {
extern const Kernels kernels;
}
#endif

namespace {

// From the least to the best of them.
std::vector<const Kernels*> usable() {
    std::vector<const Kernels*> found{&baseline::kernels};
#if defined(__x86_64__)
    __builtin_cpu_init();
#endif
#ifdef NINEFOLD_HAS_wide
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found.push_back(&wide::kernels);
#endif
#ifdef NINEFOLD_HAS_avx2
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found.push_back(&avx2::kernels);
#endif
#ifdef NINEFOLD_HAS_avx512
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("fma"))
        found.push_back(&avx512::kernels);
#endif
    return found;
}

}  // namespace

std::vector<std::string> available() {
    std::vector<std::string> names;
    for (const Kernels* k : usable()) names.emplace_back(k->name);
    return names;
}

const Kernels& kernels_named(const std::string& name) {
    std::string known;
    for (const Kernels* k : usable()) {
        if (name == k->name) return *k;
        known += (known.empty() ? "" : ", ") + std::string(k->name);
    }
    throw std::invalid_argument("NINEFOLD_ISA='" + name + "' is not one that this build and this processor have: " + known);
}

}  // namespace ninefold
