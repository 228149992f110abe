"""Tasks shared out among processes that end with the one that started them, however that one ends."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import TypeVar

import torch

from twodasl_lite.errors import TwodaslError

Context = TypeVar("Context")
Task = TypeVar("Task")
Result = TypeVar("Result")

_DONE, _FAILED = "done", "failed"


def run_tasks(
    work: Callable[[Context, Task], Result], context: Context, tasks: Sequence[Task], workers: int
) -> Iterator[Result]:
    """Do tasks in several processes.

    Args:
        work: Does one task; a function of a module.
        context: Its first argument, sent to each process once.
        tasks: Its second arguments.
        workers: How many processes; with one, everything happens in this process. Several work on one thread each.

    Yields:
        Results, in the order in which they are ready.

    Raises:
        TwodaslError: If a process dies. What goes wrong in a task is raised here as it is. Either way the others end.
    """
    workers = min(workers, len(tasks))
    if workers <= 1:
        for task in tasks:
            yield work(context, task)
        return
    spawn = multiprocessing.get_context("spawn")  # forked processes and threads of compiled libraries do not mix
    processes, ends = [], []
    try:
        for _ in range(workers):
            ours, theirs = spawn.Pipe()
            process = spawn.Process(target=_serve, args=(work, context, theirs), daemon=True)
            process.start()
            theirs.close()
            processes.append(process)
            ends.append(ours)
        waiting = list(reversed(tasks))
        for end in ends:
            end.send(waiting.pop())
        left = len(tasks)
        while left:
            for end in wait(ends):
                state, value = _received(end)
                if state == _FAILED:
                    raise value
                left -= 1
                if waiting:
                    end.send(waiting.pop())
                yield value
    finally:
        for end in ends:
            end.close()
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()


def _received(end: Connection) -> tuple[str, object]:
    try:
        return end.recv()
    except (EOFError, ConnectionError) as error:
        raise TwodaslError(
            "a worker process died; found no answer from it, expected one "
            "(too little memory for this number of workers is the usual reason)"
        ) from error


def _serve(work: Callable[[Context, Task], Result], context: Context, end: Connection) -> None:
    """A worker: task in, result out, until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # unwinds, so that half-written files go
    torch.set_num_threads(1)
    while True:
        try:
            task = end.recv()
        except (EOFError, ConnectionError):
            break
        try:
            answer = (_DONE, work(context, task))
        except Exception as error:
            answer = (_FAILED, error)
        try:
            end.send(answer)
        except ConnectionError:
            break
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # ending already
