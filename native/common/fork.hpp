// A forked child has the parent's thread pool by name only: it runs on one thread.
#pragma once

namespace ninefold {

// Whether this process is a forked child of the one that loaded the extension.
bool after_fork();

}  // namespace ninefold
