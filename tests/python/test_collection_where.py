"""The filter language means what a few lines of Python say; searches find all that it allows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vicinal.collection import Collection, _searching
from vicinal.collection._where import OPERATORS, compile_where

DIM = 3
FIELDS = ["a", "b", "it's", "é x"]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([2**53 + 1, 2**62, -(2**63)]),
    st.sampled_from([0.5, -1.5, 2.0, 1e300]),
    st.sampled_from(["", "a", "ab", "b", "Ä", "ä", "1", "true", "[1]", "null", "%", "x'y"]),
)
VALUES = st.one_of(SCALARS, st.lists(SCALARS, max_size=3), st.just({"a": 1}))
METADATA = st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=4)


# ---- the reference


def kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    return {int: "number", float: "number", str: "text"}.get(type(value), type(value).__name__)


def same(value: Any, wanted: Any) -> bool:
    return kind(value) == kind(wanted) and value == wanted


def of_field(where: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a tree below "some" as one about a field."""
    if "op" in where:
        return {**where, "field": name}
    ((key, inner),) = where.items()
    if key == "not":
        return {key: of_field(inner, name)}
    return {key: [of_field(each, name) for each in inner]}


def holds(where: dict[str, Any], metadata: dict[str, Any], text: str | None, id: str) -> bool:
    """Tell whether a filter finds a document."""
    if "and" in where:
        return all(holds(each, metadata, text, id) for each in where["and"])
    if "or" in where:
        return any(holds(each, metadata, text, id) for each in where["or"])
    if "not" in where:
        return not holds(where["not"], metadata, text, id)
    op, wanted = where["op"], where.get("value", True)
    if "field" in where:
        there, value = where["field"] in metadata, metadata.get(where["field"])
    else:
        value = {"id": id, "text": text}[where.get("attribute", "text")]
        there = value is not None
    if op == "exists":
        return there == wanted
    if op == "eq":
        if isinstance(wanted, list):
            return isinstance(value, list) and json.dumps(value) == json.dumps(wanted)
        return same(value, wanted)
    if op in ("ne", "nin"):
        return not holds({**where, "op": {"ne": "eq", "nin": "in"}[op]}, metadata, text, id)
    if op == "in":
        return any(same(value, each) for each in wanted)
    if op in ("gt", "gte", "lt", "lte"):
        if kind(value) != kind(wanted):
            return False
        return bool(
            {
                "gt": value > wanted,
                "gte": value >= wanted,
                "lt": value < wanted,
                "lte": value <= wanted,
            }[op]
        )
    if op == "type":
        names = {bool: "boolean", int: "integer", float: "real", str: "string", dict: "object"}
        names.update({list: "list", type(None): "null"})
        return there and names[type(value)] == wanted
    if op == "text":
        return isinstance(value, str) and wanted.casefold() in value.casefold()
    if op == "contains":
        if isinstance(value, list):
            return any(same(each, wanted) for each in value)
        return isinstance(value, str) and isinstance(wanted, str) and wanted in value
    elements = value if isinstance(value, list) else [value]
    if not there or isinstance(value, dict):
        elements = []
    if op == "some":
        return any(holds(of_field(wanted, "it"), {"it": each}, None, "") for each in elements)
    if op == "any":
        return any(same(each, one) for each in elements for one in wanted)
    assert op == "all"
    return all(any(same(each, one) for each in elements) for one in wanted)


ORDERED = st.one_of(st.integers(-3, 3), st.sampled_from([0.5, "a", "ab", "Ä", 2**53]))


ELEMENT = st.one_of(  # conditions on an element of a list
    st.builds(lambda op, value: {"op": op, "value": value}, st.sampled_from(["eq", "ne"]), SCALARS),
    st.builds(
        lambda op, value: {"op": op, "value": value},
        st.sampled_from(["gt", "gte", "lt", "lte"]),
        ORDERED,
    ),
    st.builds(lambda value: {"op": "nin", "value": value}, st.lists(SCALARS, max_size=3)),
    st.builds(
        lambda value: {"op": "type", "value": value}, st.sampled_from(["null", "integer", "string"])
    ),
    st.builds(lambda value: {"op": "contains", "value": value}, st.sampled_from(["a", "b"])),
)


def nested(leaves: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.builds(lambda parts: {"and": parts}, st.lists(inner, max_size=3)),
            st.builds(lambda parts: {"or": parts}, st.lists(inner, max_size=3)),
            st.builds(lambda part: {"not": part}, inner),
        ),
        max_leaves=6,
    )


def conditions(subject: dict[str, str]) -> st.SearchStrategy[dict[str, Any]]:
    """Return conditions on a field or an attribute."""
    wanted = {
        **dict.fromkeys(("eq", "ne"), st.one_of(SCALARS, st.lists(SCALARS, max_size=2))),
        **dict.fromkeys(("gt", "gte", "lt", "lte"), ORDERED),
        **dict.fromkeys(("in", "nin"), st.lists(SCALARS, max_size=4)),
        "contains": SCALARS,
        "any": st.lists(SCALARS, max_size=3),
        "all": st.lists(SCALARS, max_size=2),
        "exists": st.booleans(),
        "text": st.sampled_from(["", "a", "Ä", "%", "B"]),
        "type": st.sampled_from(["null", "boolean", "integer", "real", "string", "list", "object"]),
        "some": nested(ELEMENT),
    }
    assert set(wanted) == set(OPERATORS)
    if "attribute" in subject:
        for name in ("any", "all", "some"):
            del wanted[name]
        wanted["eq"] = wanted["ne"] = st.one_of(st.none(), st.sampled_from(["a", "1", ""]))
    return st.one_of(
        *(
            st.builds(lambda value, op=op: {**subject, "op": op, "value": value}, values)
            for op, values in wanted.items()
        )
    )


LEAVES = st.one_of(
    *(conditions({"field": name}) for name in FIELDS),
    conditions({"attribute": "text"}),
    conditions({"attribute": "id"}),
)
TREES = nested(LEAVES)
DOCUMENTS = st.lists(
    st.tuples(METADATA, st.sampled_from([None, "", "a b", "Äpfel", "100 %"])), max_size=12
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    made = Collection(tmp_path_factory.mktemp("where") / "c", DIM, "l2", synchronous="normal")
    for name in FIELDS[1:3]:
        made.create_index(name)
    return made


@settings(max_examples=60, deadline=None)
@given(DOCUMENTS, st.lists(TREES, min_size=8, max_size=8))
def test_any_filter(shared: Collection, documents: Any, trees: list[dict[str, Any]]) -> None:
    shared.delete(where={"and": []})
    ids = [str(i) for i in range(len(documents))]
    rows = np.arange(len(ids) * DIM).reshape(-1, DIM)
    shared.upsert(ids, rows, [text for _, text in documents], [item for item, _ in documents])
    for where in trees:
        wanted = [
            id
            for id, (metadata, text) in zip(ids, documents, strict=True)
            if holds(where, metadata, text, id)
        ]
        assert [document.id for document in shared.get(where=where)] == wanted
        assert shared.count(where) == len(wanted)
        assert [hit.id for hit in shared.search([0] * DIM, 20, where)] == wanted


# ---- searches


@pytest.mark.parametrize("share", [1.0, 0.5, 0.1, 0.01, 0.001, 0.0])
def test_always_as_many_as_match(
    tmp_path: Path, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the plan: the nearest on which the filter is tried first, or all that it finds."""
    count = 3000
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((count, DIM)).astype(np.float32)
    with Collection(tmp_path / "c", DIM, "l2", checkpoint_rows=None) as made:
        made.upsert([str(i) for i in range(count)], rows, metadata=[{"n": i} for i in range(count)])
        made.checkpoint()
        made.delete([str(i) for i in range(0, count, 10)])
        made.update(["1"], rows[2000:2001])
        rows[1] = rows[2000]
        where = {"field": "n", "op": "lt", "value": int(count * share)}
        allowed = np.array([i for i in range(int(count * share)) if i % 10])
        asked: list[Any] = []
        real = _searching._reading.all_rows
        monkeypatch.setattr(
            _searching._reading, "all_rows", lambda *given: asked.append(given) or real(*given)
        )
        for query in rng.standard_normal((5, DIM)):
            found = made.search(query, 10, where, ef_search=3000)
            far = ((rows[allowed] - query) ** 2).sum(axis=1) if len(allowed) else np.empty(0)
            wanted = allowed[np.argsort(far, kind="stable")[:10]].tolist() if len(allowed) else []
            assert [int(hit.id) for hit in found] == wanted
        # a filter that most rows pass is never asked for all, another one once for all searches
        assert len(asked) == (share <= 0.1)
        (batch,) = made.search(rng.standard_normal((1, DIM)), 5000, where)
        assert len(batch) == len(allowed)


def test_filters_are_asked_again_after_a_change(tmp_path: Path) -> None:
    where = {"field": "n", "op": "eq", "value": 1}
    with Collection(tmp_path / "c", DIM, "l2") as made:
        made.upsert(["a", "b"], np.eye(DIM)[:2], metadata=[{"n": 1}, {"n": 2}])
        assert [hit.id for hit in made.search([1, 0, 0], 5, where)] == ["a"]
        made.update_metadata({"field": "n", "op": "eq", "value": 2}, {"n": 1})
        assert [hit.id for hit in made.search([1, 0, 0], 5, where)] == ["a", "b"]
        made.delete(["a"])
        assert [hit.id for hit in made.search([1, 0, 0], 5, where)] == ["b"]


def test_an_index_is_used(tmp_path: Path) -> None:
    with Collection(tmp_path / "c", DIM, "l2") as made:
        made.upsert(["a"], [[0] * DIM], metadata=[{"it's": {"deep": 1}}])
        field = ["it's", "deep"]
        wheres = [
            {"field": field, "op": "eq", "value": 1},
            {"field": field, "op": "gt", "value": 0},
            {"field": field, "op": "in", "value": [1, 2]},
        ]
        before = [made.count(where) for where in wheres]
        made.create_index(field)
        made.create_index(field)  # once is enough
        for where in wheres:
            condition = made._condition(where)
            assert condition is not None
            with made._database.reading() as connection:
                plan = connection.execute(
                    f"EXPLAIN QUERY PLAN SELECT row FROM documents WHERE {condition.sql}",
                    condition.parameters,
                ).fetchall()
            assert "USING INDEX field_1" in plan[0][3]
        assert [made.count(where) for where in wheres] == before == [1, 1, 1]


def test_nested_fields_and_infinity(tmp_path: Path) -> None:
    with Collection(tmp_path / "c", DIM, "l2") as made:
        made.upsert(["a", "b"], np.eye(DIM)[:2], metadata=[{"o": {"x": {"y": 5}}}, {"o.x": 5}])
        assert made.count({"field": ["o", "x", "y"], "op": "eq", "value": 5}) == 1
        assert made.count({"field": "o.x", "op": "eq", "value": 5}) == 1
        assert made.count({"field": "o.x", "op": "lt", "value": float("inf")}) == 1
        assert made.count({"field": "o.x", "op": "in", "value": [float("-inf"), 5]}) == 1
        assert made.count({"field": "o.x", "op": "eq", "value": 10**30}) == 0


def test_lists_of_any_length(tmp_path: Path) -> None:
    with Collection(tmp_path / "c", DIM, "l2") as made:
        made.upsert(
            [str(i) for i in range(100)],
            np.ones((100, DIM)),
            metadata=[{"n": i} for i in range(100)],
        )
        assert made.count({"field": "n", "op": "in", "value": list(range(50, 200_000))}) == 50
        assert made.count({"field": "n", "op": "nin", "value": list(range(50, 200_000))}) == 50
        many = {"or": [{"field": "n", "op": "eq", "value": i} for i in range(900)]}
        assert made.count(many) == 100


# ---- what is refused


WRONG = [
    ([], TypeError, "where: expected a dict, got []"),
    (
        {},
        ValueError,
        'where: expected "and", "or", "not", or "field" with "op" and "value", got {}',
    ),
    ({"n": 1}, ValueError, 'where: expected "and"'),
    ({"and": {}}, TypeError, "where.and: expected a list, got {}"),
    ({"and": [{"not": 5}]}, TypeError, "where.and[0].not: expected a dict, got 5"),
    ({"field": "a", "op": "like", "value": 1}, ValueError, "where.op: expected one of eq, ne, gt"),
    ({"field": "a", "op": "eq"}, ValueError, "where: expected a \"value\" for 'eq', got none"),
    ({"op": "eq", "value": 1}, ValueError, "where: expected a \"field\" for 'eq', got none"),
    ({"field": 5, "op": "eq", "value": 1}, TypeError, "where.field: expected a name or a list"),
    ({"field": 'a"', "op": "eq", "value": 1}, ValueError, "where.field: expected names"),
    ({"field": "", "op": "eq", "value": 1}, ValueError, "where.field: expected names"),
    ({"field": [], "op": "eq", "value": 1}, ValueError, "where.field: expected a name"),
    ({"field": "a", "op": "lt", "value": None}, TypeError, "where.value: expected a string or"),
    ({"field": "a", "op": "lt", "value": [1]}, TypeError, "where.value: expected a string, a"),
    ({"field": "a", "op": "lt", "value": float("nan")}, ValueError, "where.value: expected a str"),
    ({"field": "a", "op": "in", "value": "abc"}, TypeError, "where.value: expected a list"),
    ({"field": "a", "op": "in", "value": [{}]}, TypeError, "where.value[0]: expected a string, a"),
    ({"field": "a", "op": "eq", "value": {}}, TypeError, "where.value: expected a string, a"),
    ({"field": "a", "op": "exists", "value": 1}, TypeError, "where.value: expected True or False"),
    ({"field": "a", "op": "text", "value": 1}, TypeError, "where.value: expected a string, got 1"),
    ({"attribute": "x", "op": "eq", "value": 1}, ValueError, "where: expected a field, or attr"),
    ({"attribute": "id", "op": "any", "value": []}, ValueError, "where.value: expected a field"),
    ({"field": "a", "op": "eq", "value": "\ud800"}, ValueError, "where.value: expected Unicode"),
]


@pytest.mark.parametrize(("where", "error", "message"), WRONG)
def test_wrong_filters(tmp_path: Path, where: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}"):
        compile_where(where)


def test_filters_that_are_too_large() -> None:
    leaf: dict[str, Any] = {"field": "a", "op": "eq", "value": 1}
    deep = leaf
    for _ in range(60):
        deep = {"not": deep}
    for where in (deep, {"and": [leaf] * 1001}):
        with pytest.raises(ValueError, match="where: expected at most 1000 nodes, 50 deep"):
            compile_where(where)


def test_nothing_of_a_caller_stands_in_the_sql(tmp_path: Path) -> None:
    evil = "x' OR 1=1; DROP TABLE documents; --"
    for where in (
        {"field": evil, "op": "eq", "value": evil},
        {"field": [evil, evil], "op": "any", "value": [evil]},
        {"attribute": "text", "op": "text", "value": evil},
    ):
        assert "DROP" not in compile_where(where).sql
    with Collection(tmp_path / "c", DIM, "l2") as made:
        made.create_index(evil)  # the one place where a name has to be written out
        made.upsert(["a"], [[0] * DIM], metadata=[{evil: evil}])
        assert made.count({"field": evil, "op": "eq", "value": evil}) == 1
        assert made.count({"field": evil, "op": "ne", "value": evil}) == 0
