"""Tasks of Ray as an executor of Python, for builds in parts."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future, InvalidStateError
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import RayTaskError

from vicinal import _validate

__all__ = ["RayExecutor", "need_ray"]


class _Task(Future[Any]):
    """A task of Ray that is cancelled with its future."""

    ref: Any = None

    def cancel(self) -> bool:
        if self.done() or not super().cancel():
            return False
        self.set_running_or_notify_cancel()
        ray.cancel(self.ref, force=False)
        return True


class RayExecutor(Executor):
    """An executor for `vicinal.build(..., executor=)` whose tasks are those of Ray.

    Parameters
    ----------
    num_cpus : float
        CPUs that a task takes; each part is built by one thread.
    memory : int, optional
        Bytes that a task takes, so that no node gets more of them than fit. Give what is given to
        `build` as `memory`.
    max_retries : int
        How often Ray repeats a task whose worker or node died. Parts may be built twice: the file
        of one appears once it is whole, and is the same.
    **options
        Other options of `ray.remote`, for instance `resources`, `runtime_env`.

    Raises
    ------
    RuntimeError
        If Ray is not initialised (`ray.init`).

    Notes
    -----
    Tasks are spread over the nodes. All nodes must have vicinal installed and see the scratch
    folder and the rows under the same paths. Threads: safe at any time.
    """

    def __init__(
        self,
        num_cpus: float = 1,
        memory: int | None = None,
        *,
        max_retries: int = 3,
        **options: Any,
    ) -> None:
        need_ray()
        if memory is not None:
            options["memory"] = _validate.whole_number(memory, "memory", 1, 2**63 - 1)
        options = {"scheduling_strategy": "SPREAD", **options}
        self._call = ray.remote(num_cpus=num_cpus, max_retries=max_retries, **options)(_called)
        self._open: set[_Task] = set()
        self._closed = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Start a task; `cancel` of what comes back cancels it where it is not running yet."""
        if self._closed:
            raise RuntimeError("executor: it was shut down")
        task = _Task()
        self._open.add(task)
        task.add_done_callback(self._open.discard)
        task.ref = self._call.remote(fn, args, kwargs)
        task.ref.future().add_done_callback(lambda done: _hand_on(done, task))
        return task

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more tasks; wait for those that were taken, or cancel them."""
        self._closed = True
        for task in list(self._open):
            if cancel_futures:
                task.cancel()
            if wait and not task.cancelled():
                task.exception()


def _called(fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    return fn(*args, **kwargs)


def _hand_on(done: Future[Any], task: _Task) -> None:
    error = done.exception()
    with suppress(InvalidStateError):  # it was cancelled
        if error is None:
            task.set_result(done.result())
        else:  # as it was raised there, not as Ray wraps it
            task.set_exception(error.cause if isinstance(error, RayTaskError) else error)


def need_ray() -> None:
    """Raise RuntimeError if Ray is not initialised."""
    if not ray.is_initialized():
        raise RuntimeError("Ray is not initialised: call ray.init() first")
