"""Pictures drawn side by side, by ordinary threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch


def side_by_side(work: Callable[[int], None], tasks: int) -> None:
    """Call ``work(0)``, ``work(1)``, ... in ``torch.get_num_threads()`` threads, and wait until all are done.

    Within them torch works on one thread: splitting each of the many small operations of a picture costs more in waking
    threads and in waiting for them than it saves. The threads live no longer than the call, so they survive, unlike
    those of compiled libraries, the forks of a data loader.

    Args:
        work: Does one task; should spend its time in code that lets go of Python's lock.
        tasks: How many there are.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        for task in range(tasks):
            work(task)
        return
    try:
        workers = max(1, min(threads, tasks))
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            list(pool.map(work, range(tasks)))  # the list raises what went wrong in a thread
    finally:
        # The number is each thread's own, but the last one set is also what new threads start with.
        torch.set_num_threads(threads)
