#include "lattice/barrier.hpp"

#include <exception>
#include <future>
#include <thread>
#include <vector>

#include "lattice/lattice.hpp"

namespace ninefold {

constexpr int kLooks = 2000;  // some microseconds: what threads of equal work are apart where nothing else runs

void Barrier::wait(int64_t threads) {
    const int64_t met = met_.load(std::memory_order_relaxed);
    {
        std::lock_guard<std::mutex> lock(mutex_);
        if (++here_ == threads) {
            here_ = 0;
            met_.store(met + 1, std::memory_order_release);
            all_here_.notify_all();
            return;
        }
    }
    for (int k = 0; k < kLooks; ++k)
        if (met_.load(std::memory_order_acquire) != met) return;
    std::unique_lock<std::mutex> lock(mutex_);
    all_here_.wait(lock, [&] { return met_.load(std::memory_order_acquire) != met; });
}

void wait_at(Barrier& barrier, int64_t threads) { barrier.wait(threads); }

void run_on_threads(int64_t threads, const std::function<void(int64_t, int64_t, Barrier&)>& work) {
    Barrier barrier;
    std::vector<std::thread> others;
    others.reserve(size_t(threads));
    std::promise<int64_t> size;  // known once all have started
    const std::shared_future<int64_t> known = size.get_future().share();
    try {
        for (int64_t me = 1; me < threads; ++me)
            others.emplace_back([&work, &barrier, known, me] { work(me, known.get(), barrier); });
    } catch (const std::exception&) {  // no more threads, or no memory for one
    }
    size.set_value(int64_t(others.size()) + 1);
    work(0, int64_t(others.size()) + 1, barrier);
    for (std::thread& other : others) other.join();
}

}  // namespace ninefold
