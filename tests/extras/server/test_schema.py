"""schemathesis with all its checks: requests made from OpenAPI, right ones and wrong ones.

    pip install 'schemathesis==4.32.*'
    VICINAL_SCHEMA_EXAMPLES=50 python -m pytest test_schema.py

By hand: it takes many minutes. From 50 on each route also gets all requests that cover its schema.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from serving import Served

from vicinal.server.auth import new_key

schemathesis = pytest.importorskip("schemathesis")
from schemathesis.config import SchemathesisConfig  # noqa: E402

EXAMPLES = int(os.environ.get("VICINAL_SCHEMA_EXAMPLES", "0"))
if not EXAMPLES:
    pytest.skip("by hand: VICINAL_SCHEMA_EXAMPLES=50", allow_module_level=True)
KEY = new_key()
FOLDER = tempfile.TemporaryDirectory()
OPTIONS = ("--limit=dim=64", "--limit=collections=50")
SERVER = Served(Path(FOLDER.name), *OPTIONS, VICINAL_API_KEY=KEY)
# A body that the schema allows is refused where it contradicts the collection, whose dimension no
# schema knows; so 400 counts as an answer to what is right.
CONFIG = SchemathesisConfig.from_dict(
    {
        "headers": {"api-key": KEY},
        "generation": {"max-examples": EXAMPLES},
        "phases": {"coverage": {"enabled": EXAMPLES >= 50}},
        "checks": {
            "positive_data_acceptance": {
                "expected-statuses": ["2xx", "400", "401", "403", "404", "409", "501"]
            }
        },
    }
)
schema = schemathesis.openapi.from_url(
    f"{SERVER.url}/openapi.json", config=CONFIG, headers={"api-key": KEY}
)


@pytest.fixture(scope="module", autouse=True)
def closed() -> Iterator[None]:
    yield
    assert SERVER.stop() == 0
    FOLDER.cleanup()


@schema.parametrize()
@settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None
)
def test_all_checks(case: Any) -> None:
    case.call_and_validate()
