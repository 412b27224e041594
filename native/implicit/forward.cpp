// Forward and backward_data as a product of matrices, for any stride, dilation and border (implicit GEMM).
//
// im2col would write out the columns of the product. Here they are packed a block at a time, or not at all.
// Contiguous memory: positions are columns, which are packed. Channels-last memory: pixels are rows, which a tile reads where
// they lie through a table of addresses (Dukhan 2019). The sum over (input, tap) is cut into chunks whose packed panel stays in
// the L1 cache.
#include "common/threads.hpp"
#include "implicit/forward_stages.hpp"

namespace NINEFOLD_NS {
namespace {

template <class T>
void run(const Product<T>& q, const T* in, const T* weight, const T* kept, const T* bias, T* out, T* room) {
    const Implicit& p = q.p;
    const T* U = kept;
    if (kept == nullptr && !q.in_place) {
        T* made = room + p.threads * q.thread_size();
        pack_kernel<T>(q, weight, made, p.threads);
        U = made;
    }
    // neighbouring blocks go to one thread, a few at a time, which asks for the next one's data
    const int64_t jobs = p.groups * q.n_blocks * p.split, run = max(1, min(8, jobs / (4 * p.threads)));
#pragma omp parallel for schedule(dynamic) num_threads(p.threads) if (p.threads > 1)
    for (int64_t k = 0; k < ceil_div(jobs, run); ++k)
        for (int64_t job = k * run; job < min(jobs, (k + 1) * run); ++job) {
            const int64_t part = job % p.split, group = job / p.split % p.groups, block = job / p.split / p.groups;
            const int64_t o = part * q.share, end = min(p.outs, o + q.share), first = block * p.block,
                          count = min(p.block, q.total - first);
            T* mine = room + this_thread() * q.thread_size();
            if (o >= end) continue;
            if (p.rows) positions_as_rows<T>(q, group, first, count, o, end, in, U, bias, out, mine);
            else positions_as_columns<T>(q, group, first, count, o, end, in, weight, U, bias, out, mine);
        }
}

template <class T> size_t kernel_bytes_of(const Implicit& p) { return size_t(Product<T>(p).kernel_size()) * sizeof(T); }
template <class T> size_t scratch_of(const Implicit& p, bool kept) { return Product<T>(p).scratch(kept); }
template <class T> void prepare_of(const Implicit& p, const void* weight, void* kept) {
    pack_kernel<T>(Product<T>(p), static_cast<const T*>(weight), static_cast<T*>(kept), p.threads);
}
template <class T>
void run_of(const Implicit& p, const void* in, const void* weight, const void* kept, const void* bias, void* out, char* scratch) {
    run<T>(Product<T>(p), static_cast<const T*>(in), static_cast<const T*>(weight), static_cast<const T*>(kept),
           static_cast<const T*>(bias), static_cast<T*>(out), reinterpret_cast<T*>(scratch));
}

bool wide_type(const Implicit& p) { return p.type == Type::float64; }

}  // namespace

const ImplicitKernels implicit = {
    [](const Implicit& p) { return p.small_spatial ? 0
                                   : wide_type(p)  ? kernel_bytes_of<double>(p)
                                                   : kernel_bytes_of<float>(p); },
    [](const Implicit& p, bool weights, bool kept) {
        if (p.small_spatial) return small_spatial_scratch(p, weights);
        return weights        ? implicit_backward_weights_scratch(p)
               : wide_type(p) ? scratch_of<double>(p, kept)
                              : scratch_of<float>(p, kept);
    },
    [](const Implicit& p, const void* weight, void* kept) {
        (wide_type(p) ? prepare_of<double> : prepare_of<float>)(p, weight, kept);
    },
    [](const Implicit& p, const void* in, const void* weight, const void* kept, const void* bias, void* out, char* scratch) {
        if (p.small_spatial) return small_spatial_run(p, in, weight, bias, out, scratch);
        (wide_type(p) ? run_of<double> : run_of<float>)(p, in, weight, kept, bias, out, scratch);
    },
    [](const Implicit& p, const void* in, const void* grad, void* weight, char* scratch) {
        (p.small_spatial ? small_spatial_backward_weights : implicit_backward_weights)(p, in, grad, weight, scratch);
    },
};

}  // namespace NINEFOLD_NS
