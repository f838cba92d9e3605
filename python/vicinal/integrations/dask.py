"""Dask: parts of a build as tasks of its workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor

from vicinal import _validate

try:
    from distributed import Client
except ImportError as error:
    raise ImportError(f"this module needs Dask: pip install 'vicinal[dask]' ({error})") from error

__all__ = ["dask_executor"]


def dask_executor(
    client: Client,
    *,
    resources: Mapping[str, float] | None = None,
    retries: int = 0,
    workers: Sequence[str] | None = None,
) -> Executor:
    """Return an executor for `vicinal.build(..., executor=)` whose tasks are those of Dask.

    Parameters
    ----------
    client : distributed.Client
        Of a running cluster, and not asynchronous.
    resources : dict, optional
        What of the workers' resources a part takes, for instance {"memory": 4e9}, so that no
        worker gets more of them at once than fit.
    retries : int
        How often a part that raised is tried again. Parts of workers that died go to others, as
        often as the scheduler's `allowed-failures` says, whatever is given here.
    workers : sequence of str, optional
        Addresses of the workers that may take part; all by default.

    Returns
    -------
    concurrent.futures.Executor
        What `client.get_executor` returns. Its results are never those of an earlier call with the
        same arguments, whose files may be gone.

    Raises
    ------
    TypeError
        If it is no client.
    ValueError
        If the client is asynchronous or closed.

    Notes
    -----
    All workers must have vicinal installed and see the scratch folder and the rows under the same
    paths. Each part is built by one thread: give a worker as many threads as it has cores. A part
    may be built twice, where a worker dies or is taken for dead; its file appears once it is whole,
    and is the same.
    """
    if not isinstance(client, Client):
        raise TypeError(f"client: expected a distributed.Client, got {type(client).__name__}")
    if client.asynchronous:
        raise ValueError("client: expected one that is not asynchronous")
    if client.status != "running":
        raise ValueError(f"client: expected one that is running, got one that is {client.status}")
    options = {
        "pure": False,
        "retries": _validate.whole_number(retries, "retries", 0, 1000),
        "resources": None if resources is None else dict(resources),
        "workers": None if workers is None else list(workers),
    }
    made: Executor = client.get_executor(
        **{name: value for name, value in options.items() if value is not None}
    )
    return made
