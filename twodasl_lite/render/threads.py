"""Pictures drawn in parallel by ordinary threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch


def side_by_side(work: Callable[[int], None], tasks: int) -> None:
    """Call ``work(0)``, ``work(1)``, ... in ``torch.get_num_threads()`` threads, and wait until all are done.

    Within them torch uses a single thread: splitting each of the many small operations of a picture costs more in
    waking threads and waiting for them than it saves. The threads end with the call, so, unlike those of compiled
    libraries, they are safe with a data loader that forks.

    Args:
        work: Function that does one task; should spend its time in code that releases Python's lock.
        tasks: Number of tasks.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        for task in range(tasks):
            work(task)
        return
    try:
        workers = max(1, min(threads, tasks))
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            list(pool.map(work, range(tasks)))  # the list raises an exception of any thread
    finally:
        # The number is set per thread, but new threads start with the number that was set last.
        torch.set_num_threads(threads)
