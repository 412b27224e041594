// One channel per group, channels-last: vectors over channels.
//
// A band of rows is staged in blocks of two vectors of channels, in the order of memory. P output pixels share each pair of
// kernel vectors. Their inputs are operands of the multiply-adds straight from the L1 cache: P + 1 loads per P multiply-adds. If
// every tap reads one run of pixels at one step, nothing is staged: pixels are read where they lie.
#include "depthwise/depthwise_nhwc.hpp"
#include "common/threads.hpp"
#include "depthwise/forward_stages.hpp"
#include "depthwise/weight_stages.hpp"

namespace NINEFOLD_NS {

bool is_depthwise_nhwc(const Direct& d) { return d.ins == 1 && d.outs == 1 && d.groups > 1 && d.in_c == 1 && d.out_c == 1; }

namespace {

template <class T, class S>
void forward(const DepthwiseNhwc<T, S>& f, const S* in, const S* weight, const S* bias, S* out) {
    const Direct& d = f.d;
    int64_t n = min(d.threads, f.s.items);
#pragma omp parallel num_threads(n) if (n > 1)
    {
        char* mine = f.memory + f.s.each * this_thread();
#pragma omp for schedule(dynamic, 1)
        for (int64_t k = 0; k < f.s.items; ++k) {
            int64_t c = k % f.s.parts * f.s.together * kBlock<T>;
            item(f, k / f.s.parts, c, min(f.s.together * kBlock<T>, d.groups - c), in, weight, bias, out, mine);
        }
    }
}

template <class T, class S>
void backward_weights(const DepthwiseNhwc<T, S>& f, const S* in, const S* grad, S* weight) {
    const Direct& d = f.d;
    int64_t n = min(d.threads, f.s.items);
    char* partial = f.memory + f.s.each * n;
    int64_t size = d.groups * d.taps, places = d.batch * f.s.bands.n_z * f.s.bands.n_y;
#pragma omp parallel num_threads(n) if (n > 1)
    {
        char* mine = f.memory + f.s.each * this_thread();
#pragma omp for schedule(dynamic, 1)
        for (int64_t k = 0; k < f.s.items; ++k) {
            int64_t chunk = k % f.s.chunks, c = k / f.s.chunks * f.s.together * kBlock<T>;
            T* to = f.s.chunks > 1 ? reinterpret_cast<T*>(partial + f.s.sums / f.s.chunks * chunk) : nullptr;
            sums(f, places * chunk / f.s.chunks, places * (chunk + 1) / f.s.chunks, c,
                 min(f.s.together * kBlock<T>, d.groups - c), in, grad, weight, to, mine);
        }
        if (f.s.chunks > 1) {
#pragma omp for schedule(static)
            for (int64_t k = 0; k < size; ++k) {
                T total = 0;
                for (int64_t chunk = 0; chunk < f.s.chunks; ++chunk)
                    total += reinterpret_cast<T*>(partial + f.s.sums / f.s.chunks * chunk)[k];
                narrow(total, weight + k / d.taps * d.w_group + place(d, k % d.taps));
            }
        }
    }
}

template <class T> size_t scratch_of(const Direct& d, bool weights) {
    Layout s = layout<T>(d, weights);
    return size_t(s.each * min(d.threads, s.items) + s.sums);
}

template <class T, class S> void run(const Direct& d, const void* in, const void* weight, const void* bias, void* out,
                                     char* scratch) {
    forward(DepthwiseNhwc<T, S>(d, false, scratch), static_cast<const S*>(in), static_cast<const S*>(weight),
            static_cast<const S*>(bias), static_cast<S*>(out));
}

template <class T, class S> void run_sums(const Direct& d, const void* in, const void* grad, void* weight, char* scratch) {
    backward_weights(DepthwiseNhwc<T, S>(d, true, scratch), static_cast<const S*>(in), static_cast<const S*>(grad),
                     static_cast<S*>(weight));
}

}  // namespace

size_t depthwise_nhwc_scratch(const Direct& d, bool weights) {
    return d.type == Type::float64 ? scratch_of<double>(d, weights) : scratch_of<float>(d, weights);
}

void depthwise_nhwc_forward(const Direct& d, const void* in, const void* weight, const void* bias, void* out, char* scratch) {
    switch (d.type) {
        case Type::float32: return run<float, float>(d, in, weight, bias, out, scratch);
        case Type::float64: return run<double, double>(d, in, weight, bias, out, scratch);
        case Type::bfloat16: return run<float, BFloat16>(d, in, weight, bias, out, scratch);
    }
}

void depthwise_nhwc_backward_weights(const Direct& d, const void* in, const void* grad, void* weight, char* scratch) {
    switch (d.type) {
        case Type::float32: return run_sums<float, float>(d, in, grad, weight, scratch);
        case Type::float64: return run_sums<double, double>(d, in, grad, weight, scratch);
        case Type::bfloat16: return run_sums<float, BFloat16>(d, in, grad, weight, scratch);
    }
}

}  // namespace NINEFOLD_NS
