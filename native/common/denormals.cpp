#include "common/denormals.hpp"

#ifdef _OPENMP
#include <omp.h>
#endif
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace ninefold {
namespace {

// The word that says how floating-point numbers are rounded, and the bits in it that take denormal operands and results for zero.
#if defined(__x86_64__) || defined(_M_X64)
constexpr uint64_t kFlush = 0x8040;
uint64_t control() { return _mm_getcsr(); }
void set_control(uint64_t word) { _mm_setcsr(static_cast<unsigned>(word)); }
constexpr uint64_t kMet = 0x0002;  // set by an operation on a denormal operand, and kept
#elif defined(__aarch64__)
constexpr uint64_t kFlush = uint64_t{1} << 24;
uint64_t control() {
    uint64_t word;
    asm volatile("mrs %0, fpcr" : "=r"(word));
    return word;
}
void set_control(uint64_t word) { asm volatile("msr fpcr, %0" : : "r"(word)); }
constexpr uint64_t kMet = 0;  // such processors tell of denormal operands only where they take them for zero
#else
constexpr uint64_t kFlush = 0;
uint64_t control() { return 0; }
void set_control(uint64_t) {}
constexpr uint64_t kMet = 0;
#endif

int this_thread() {
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}

}  // namespace

std::vector<uint64_t> flush_denormals(int threads) {
    std::vector<uint64_t> words(threads, control());
#pragma omp parallel num_threads(threads)
    {
        words[this_thread()] = control();
        set_control(control() | kFlush);
    }
    return words;
}

void restore_control(const std::vector<uint64_t>& words) {
#pragma omp parallel num_threads(static_cast<int>(words.size()))
    set_control(words[this_thread()]);
}

bool tells_of_denormals() { return kMet != 0; }

bool met_denormals(int threads) {
    std::vector<uint64_t> words(threads, 0);
#pragma omp parallel num_threads(threads)
    {
        words[this_thread()] = control();
        set_control(control() & ~kMet);
    }
    uint64_t all = 0;
    for (uint64_t word : words) all |= word;
    return (all & kMet) != 0;
}

}  // namespace ninefold
