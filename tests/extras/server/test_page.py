"""What the page on the server shows is run, and comes out as it shows it."""

from __future__ import annotations

import doctest
import re

import pytest

from support.pages import GUIDE, run_examples
from vicinal.server import Limits, Settings
from vicinal.server.app import make_app


def test_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    options = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL
    real = doctest.DocTestRunner
    monkeypatch.setattr(doctest, "DocTestRunner", lambda: real(optionflags=options))
    assert run_examples("server.md") == 4


def test_all_routes_and_limits_are_on_the_page(tmp_path: pytest.TempPathFactory) -> None:
    page = (GUIDE / "server.md").read_text(encoding="utf-8")
    for name in Limits.__dataclass_fields__:
        assert f"`{name}`" in page
    app = make_app(Settings(str(tmp_path)))
    for path in app.openapi()["paths"]:
        last = re.sub(r"^/v1", "", path).replace("/collections/{name}", "").strip("/")
        assert not last or last.split("/")[-1] in page, path
    app.state.store.close()
