"""One node of Ray that talks to itself alone, for all tests of the folder."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import pytest

# before Ray is imported; its folder must have a short path, for the sockets in it
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
HOME = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
os.environ["HOME"] = HOME


@pytest.fixture(scope="session")
def engine() -> Iterator[None]:
    import shutil

    import ray

    ray.init(
        num_cpus=3,
        object_store_memory=100_000_000,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        _node_ip_address="127.0.0.1",
        _temp_dir=HOME,
    )
    yield
    ray.shutdown()
    shutil.rmtree(HOME, ignore_errors=True)
