// Threads for the length of one call, and where they wait for one another between its parts. OpenMP's barrier, and its threads
// after a region, look for milliseconds before they sleep: on a machine with other work, a call of many short parts took twice
// the time of its processors. To start a thread takes some tens of microseconds.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>

namespace ninefold {

class Barrier {
public:
    // Returns when `threads` have called it; what they wrote before is seen after.
    void wait(int64_t threads);

private:
    std::mutex mutex_;
    std::condition_variable all_here_;
    int64_t here_ = 0;
    std::atomic<int64_t> met_{0};
};

// Calls work(me, size, barrier) on `threads` threads, this one among them, or as many as the system gives; it must not throw.
void run_on_threads(int64_t threads, const std::function<void(int64_t me, int64_t size, Barrier& barrier)>& work);

}  // namespace ninefold
