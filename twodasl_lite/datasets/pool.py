"""Tasks distributed over worker processes that end silently with the process that started them, however it ends.

Signals are the delicate part. A worker must react neither to Ctrl-C, which a terminal sends to all processes of a
command, nor to signals that its parent handles. It ends when its pipe is closed, or at once when it is terminated.

Objects travel through the pipe as plain pickles, between a process and those that it has started. PyTorch's own way
puts tensors into shared memory, of which containers have little.
"""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import TypeVar

import torch

from twodasl_lite.base.errors import TwodaslError

Context = TypeVar("Context")
Task = TypeVar("Task")
Result = TypeVar("Result")

_DONE, _FAILED = "done", "failed"
_LOOK = 0.2  # seconds between two checks whether to stop
_PATIENCE = 10.0  # seconds that idle workers get to end by themselves


def run_tasks(
    work: Callable[[Context, Task], Result],
    context: Context,
    tasks: Sequence[Task],
    workers: int,
    *,
    stop: Callable[[], bool] | None = None,
) -> Iterator[Result]:
    """Run tasks in several processes.

    Args:
        work: Function that does one task, defined at module level.
        context: First argument of ``work``, sent to each process once.
        tasks: Second arguments of ``work``, one per task.
        workers: Number of processes. With one, everything runs in this process; several use one thread each.
        stop: Polled repeatedly; once it returns true, unfinished tasks are abandoned, even in mid-task if there are
            several processes.

    Yields:
        Results in the order in which they are completed.

    Raises:
        TwodaslError: If a process dies. An exception in a task is raised here unchanged. Either way the other processes
            end.
    """
    workers = min(workers, len(tasks))
    stop = stop or (lambda: False)
    if workers <= 1:
        for task in tasks:
            if stop():
                return
            yield work(context, task)
        return
    spawn = multiprocessing.get_context("spawn")  # forked processes and threads of compiled libraries do not mix
    processes, ends, idle = [], [], False
    try:
        # Plain pickles through the pipe: PyTorch's own way to hand tensors to a process goes through /dev/shm, which is
        # small in containers.
        sent = pickle.dumps((work, context), pickle.HIGHEST_PROTOCOL)
        for _ in range(workers):
            ours, theirs = spawn.Pipe()
            process = spawn.Process(target=_serve, args=(theirs,), daemon=True)
            with _without_interrupts():
                process.start()
            theirs.close()
            processes.append(process)
            ends.append(ours)
        waiting = list(reversed(tasks))
        for end in ends:
            _send(end, sent)
            _send(end, pickle.dumps(waiting.pop()))
        left = len(tasks)
        while left:
            ready = wait(ends, _LOOK)
            if stop():  # checked before the results: a signal to all processes may have ended the workers
                return
            for end in ready:
                state, value = _received(end)
                if state == _FAILED:
                    raise value
                left -= 1
                if waiting:
                    _send(end, pickle.dumps(waiting.pop()))
                yield value
        idle = True
    finally:
        for end in ends:
            end.close()
        for process in processes:
            if idle:
                process.join(_PATIENCE)
            if process.is_alive():
                process.terminate()
        for process in processes:
            process.join()


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Processes started here never receive Ctrl-C: they inherit the signals that their parent thread blocks."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # Python's own helper, whose start would undo the blocking
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _send(end: Connection, content: bytes) -> None:
    try:
        end.send_bytes(content)
    except ConnectionError as error:
        raise _died() from error


def _received(end: Connection) -> tuple[str, object]:
    try:
        return pickle.loads(end.recv_bytes())
    except (EOFError, ConnectionError) as error:
        raise _died() from error


def _died() -> TwodaslError:
    return TwodaslError(
        "a worker process died; found no result from it, expected one "
        "(usually there is too little memory for this number of workers)"
    )


def _serve(end: Connection) -> None:
    """A worker: task in, result out, until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    signal.signal(signal.SIGTERM, _unwind)
    torch.set_num_threads(1)
    work, context = None, None
    while True:
        try:
            if work is None:
                work, context = pickle.loads(end.recv_bytes())
            task = pickle.loads(end.recv_bytes())
        except (EOFError, ConnectionError):
            break
        try:
            answer = (_DONE, work(context, task))
        except Exception as error:
            answer = (_FAILED, error)
        try:
            end.send_bytes(pickle.dumps(answer))
        except ConnectionError:
            break
    # The worker is ending anyway. A function that does nothing, not SIG_IGN: when a signal has arrived and its handler
    # has not run yet, changing to SIG_IGN makes Python print "Signal 15 ignored due to race condition".
    signal.signal(signal.SIGTERM, lambda *_: None)


def _unwind(*_: object) -> None:
    """End at once, but cleanly: half-written files are removed, and a second signal is ignored."""
    signal.signal(signal.SIGTERM, lambda *_: None)
    sys.exit(1)
