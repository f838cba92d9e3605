"""Three nodes of Ray on one machine: a build over them, shards on them, and one that goes.

Ray's nodes take the machine's own address, where they may not find each other; so they run in a
network of their own that has only a loopback, for which the system has to allow `unshare -n`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

GUARD = 500.0

SCRIPT = """
    import fcntl, json, os, socket, struct, sys
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:  # ip link set lo up
        fcntl.ioctl(link, 0x8914, struct.pack("16sh14x", b"lo", 0x41))
    import numpy as np, ray, vicinal
    from ray.cluster_utils import Cluster
    from vicinal.integrations.ray import RayExecutor, ShardedIndex

    folder = sys.argv[1]
    os.makedirs(os.environ["RAY_TMPDIR"] + "/ray")
    rows = np.random.default_rng(1).standard_normal((6000, 12)).astype("f4")
    small = {"num_cpus": 1, "object_store_memory": 80_000_000, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={**small, "num_cpus": 0})
    nodes = [cluster.add_node(**small) for _ in range(3)]
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    told = {"nodes": len(ray.nodes())}

    vicinal.build(rows, f"{folder}/one", parts=6, num_threads=1)
    with RayExecutor() as executor:
        where = lambda: ray.get_runtime_context().get_node_id()
        told["on"] = len({each.result() for each in [executor.submit(where) for _ in range(12)]})
        vicinal.build(rows, f"{folder}/all", parts=6, executor=executor)
    told["same bytes"] = open(f"{folder}/one", "rb").read() == open(f"{folder}/all", "rb").read()

    paths = []
    for i in range(3):
        paths.append(f"{folder}/{i}.vicinal")
        vicinal.build(rows[i::3], paths[-1], ids=np.arange(6000)[i::3])
    wanted = vicinal.open_shards(paths).search(rows[:50])
    made = ShardedIndex(paths, timeout=400, start_timeout=400)
    told["answers"] = bool((made.search(rows[:50]).ids == wanted.ids).all())
    cluster.remove_node(nodes[0], allow_graceful=False)
    told["answers without a node"] = bool((made.search(rows[:50]).ids == wanted.ids).all())
    made.close()
    ray.shutdown()
    cluster.shutdown()
    print(json.dumps(told))
"""


def _isolated() -> list[str] | None:
    """Return what starts a program in a network of its own, if the system lets us."""
    if shutil.which("unshare"):
        for way in (["unshare", "-n"], ["unshare", "-rn"]):
            if not subprocess.run([*way, "true"], capture_output=True).returncode:
                return way
    return None


@pytest.fixture
def temporary() -> Iterator[str]:
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # short, for the sockets in it
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_three_nodes(tmp_path: Path, temporary: str) -> None:
    way = _isolated()
    if way is None:
        pytest.skip("the system does not allow a network of its own (unshare -n)")
    done = subprocess.run(
        [*way, sys.executable, "-c", textwrap.dedent(SCRIPT), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=GUARD,
        env={
            **os.environ,
            "HOME": temporary,
            "RAY_TMPDIR": temporary,
            "RAY_USAGE_STATS_ENABLED": "0",
        },
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told.pop("nodes") == 4  # the head takes no tasks
    assert told.pop("on") == 3
    assert told == {"same bytes": True, "answers": True, "answers without a node": True}
