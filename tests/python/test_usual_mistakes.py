"""What people write who come from elsewhere: taken as it is meant, or refused with a way out."""

from __future__ import annotations

import copy
import pickle
import re
from enum import Enum
from typing import Any

import numpy as np
import pytest

import vicinal
from vicinal import _filters

ROWS = np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)


def made(given: Any = None, **options: Any) -> vicinal.Index:
    """Make an index of 50 rows."""
    index = vicinal.Index(4, **options)
    index.add(ROWS, given)
    return index


# ---- filters


@pytest.mark.parametrize("ids", [list(range(20)), tuple(range(20)), [np.int64(3), 4, 5]])
def test_a_list_of_ids_is_not_asked_item_by_item(ids: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same as the array, and what NumPy is asked about it does not grow with it."""
    index = made()
    expected = index.search(ROWS[:3], 5, filter=np.array(ids)).ids
    asked = []
    monkeypatch.setattr(
        _filters.np, "ndim", lambda item: asked.append(item) or np.asarray(item).ndim
    )
    np.testing.assert_array_equal(index.search(ROWS[:3], 5, filter=ids).ids, expected)
    assert asked == []


def test_lists_of_filters_are_still_lists() -> None:
    index = made()
    found = index.search(ROWS[:3], 1, filter=[None, [7], np.arange(50) == 9]).ids
    assert found[1:, 0].tolist() == [7, 9]
    assert index.search(ROWS[:1], 1, filter=[range(3, 4)]).ids.tolist() == [[3]]
    # 0-d arrays are ids
    assert index.search(ROWS[0], 1, filter=[np.array(6)]).ids.tolist() == [6]


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.int32])
@pytest.mark.parametrize("as_list", [False, True])
def test_a_mask_of_integers_is_refused(dtype: Any, as_list: bool) -> None:
    index = made()
    mask: Any = (np.arange(50) % 3 == 0).astype(dtype)
    given = mask.tolist() if as_list else mask
    message = "filter: expected booleans of shape (50,) or ids of shape (n,), got 50 integers"
    with pytest.raises(ValueError, match=re.escape(message) + ".*dtype=bool"):
        index.search(ROWS[0], 5, filter=given)
    with pytest.raises(ValueError, match=r"^filter: item 1: expected booleans.*dtype=bool"):
        index.search(ROWS[:2], 5, filter=[None, given])
    with pytest.raises(ValueError, match="dtype=bool"):
        index.range_search(ROWS[0], 5.0, filter=given)
    found = index.search(ROWS[0], 50, filter=np.asarray(given, dtype=bool)).ids
    assert sorted(found[found >= 0]) == list(range(0, 50, 3))
    # of another length they are ids
    assert set(index.search(ROWS[0], 3, filter=mask[:-1]).ids.tolist()) == {0, 1, -1}


def test_ids_0_and_1_of_an_index_of_two_rows() -> None:
    index = vicinal.Index(4)
    index.add(ROWS[:1])
    assert index.search(ROWS[0], 1, filter=[0]).ids.tolist() == [0]
    index.add(ROWS[1:2])
    assert index.search(ROWS[1], 2, filter=[1, 0]).ids.tolist() == [1, 0]
    with pytest.raises(ValueError, match="dtype=bool"):
        index.search(ROWS[1], 2, filter=[1, 1])


# ---- ids


def test_one_id_for_one_vector() -> None:
    index = vicinal.Index(4)
    assert index.add(ROWS[0], ids=7).tolist() == [7]
    assert index.add(ROWS[1:2], ids=np.int32(8)).tolist() == [8]
    index.update(ROWS[2], 7)
    np.testing.assert_array_equal(index.get(7), ROWS[2])
    with pytest.raises(ValueError, match=re.escape("ids: expected (2,), got ()")):
        index.add(ROWS[3:5], ids=9)
    names = vicinal.Index(4, ids="str")
    assert names.add(ROWS[0], ids="seven").tolist() == ["seven"]


@pytest.mark.parametrize("kind", ["int64", "str"])
def test_remove_may_leave_out_what_is_not_there(kind: str) -> None:
    ids: Any = np.arange(50) if kind == "int64" else [f"n{i}" for i in range(50)]
    index = made(ids, ids=kind)
    gone: Any = [3, 99, 4] if kind == "int64" else ["n3", "never", "n4"]
    with pytest.raises(KeyError, match=r"^.ids: .*(99|never).* is not in the index"):
        index.remove(gone)
    index.remove(gone, missing="ignore")
    assert len(index) == 48 and gone[0] not in index
    index.remove(gone, missing="ignore")
    index.remove([], missing="ignore")
    assert len(index) == 48
    with pytest.raises(ValueError, match="stands at position 0 and again at 1"):
        index.remove([gone[1], gone[1]], missing="ignore")
    with pytest.raises(ValueError, match=r"^missing: expected 'error' or 'ignore', got 'skip'"):
        index.remove(gone, missing="skip")


def test_members_of_an_enum_are_the_strings_they_hold() -> None:
    class K(str, Enum):
        A = "first"
        B = "second"

    index = vicinal.Index(4, ids="str")
    assert index.add(ROWS[:2], ids=[K.A, K.B]).tolist() == ["first", "second"]
    assert "first" in index and K.B in index and "K.A" not in index
    assert index.ids.tolist() == ["first", "second"] and type(index.ids[0]) is str
    np.testing.assert_array_equal(index.get(K.B), ROWS[1])


def test_long_ids_are_shortened_in_messages() -> None:
    long = "x" * 10_000
    index = made([long, *(f"n{i}" for i in range(49))], ids="str")
    calls = (
        lambda: index.get("y" + long),
        lambda: index.remove("y" + long),
        lambda: index.update(ROWS[0], "y" + long),
        lambda: index.add(ROWS[:1], [long]),
        lambda: index.add(ROWS[:2], [long + "z"] * 2),
        lambda: index.remove([long, long]),
        lambda: index.get("\ud800" + long),
        lambda: index.why_not(ROWS[0], "y" + long),
    )
    for call in calls:
        with pytest.raises((KeyError, ValueError)) as raised:
            call()
        assert "..." in str(raised.value) and len(str(raised.value)) < 200


@pytest.mark.parametrize("kind", ["int64", "str"])
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (set, "set"),
        (frozenset, "frozenset"),
        (iter, "list_iterator"),
        (dict.fromkeys, "dict"),
        (lambda ids: dict.fromkeys(ids).keys(), "dict_keys"),
        (lambda ids: (i for i in ids), "generator"),
    ],
)
def test_ids_without_an_order_are_named(kind: str, make: Any, name: str) -> None:
    ids: Any = [1, 2] if kind == "int64" else ["a", "b"]
    index = made(None if kind == "int64" else [f"n{i}" for i in range(50)], ids=kind)
    wanted = "integers" if kind == "int64" else "strings"
    message = (
        f"^ids: expected {wanted} in a list or an array, got a {name}; list\\(ids\\) makes one"
    )
    for call in (index.get, index.remove, lambda given: index.add(ROWS[:2], given)):
        with pytest.raises(TypeError, match=message):
            call(make(ids))
    with pytest.raises(TypeError, match=f"^filter: .* got a {name}; list\\(filter\\) makes one"):
        index.search(ROWS[0], filter=make(ids))
    assert len(index) == 50


# ---- empty batches


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_an_empty_list_is_an_empty_batch(dtype: str) -> None:
    index = vicinal.Index(4, dtype=dtype)
    for nothing in ([], np.zeros((0, 4)), np.array([])):
        assert index.add(nothing).tolist() == []
        assert index.add(nothing, ids=[]).tolist() == []
        index.update(nothing, [])
        index.remove([])
        for found in (index.search(nothing, 3), index.search(nothing, 3, filter=[1])):
            assert found.ids.shape == found.distances.shape == (0, 3)
        assert index.range_search(nothing, 1.0).offsets.tolist() == [0]
        assert index.get([]).shape == (0, 4)
    assert vicinal.exact_search(np.zeros((3, 4)), [], 2).ids.shape == (0, 2)
    assert len(index) == 0
    with pytest.raises(ValueError, match=re.escape("got (0, 3)")):
        index.add(np.zeros((0, 3)))


# ---- metrics


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("dot", "ip"),
        ("inner_product", "ip"),
        ("Inner-Product", "ip"),
        ("IP", "ip"),
        ("cos", "cosine"),
        ("cosinesimil", "cosine"),
        ("angular", "cosine"),
        ("COSINE", "cosine"),
        ("euclidean", "l2"),
        ("sqeuclidean", "l2"),
        ("l2_squared", "l2"),
        ("L2", "l2"),
    ],
)
def test_other_names_of_metrics(name: str, meant: str) -> None:
    known = "'l2', 'ip', 'cosine', 'hamming' or 'jaccard'"
    message = f"^metric: expected {known}, got '{name}'; .* is '{meant}'"
    with pytest.raises(ValueError, match=message):
        vicinal.Index(4, name)
    with pytest.raises(ValueError, match=message):
        vicinal.exact_search(ROWS, ROWS[0], 1, metric=name)


def test_another_name_of_hamming() -> None:
    with pytest.raises(ValueError, match=r"got 'bit_hamming'; .*np\.packbits.* is 'hamming'"):
        vicinal.Index(4, "bit_hamming")


@pytest.mark.parametrize("name", ["Tanimoto", "jaccard_distance", "dice"])
def test_metrics_of_sets(name: str) -> None:
    """The message says what to take instead."""
    with pytest.raises(ValueError, match=rf"got '{name}'; .*np\.packbits.* 'jaccard'"):
        vicinal.Index(8, name)


def test_hamming_is_l2_of_bits_apart() -> None:
    bits = np.random.default_rng(3).integers(0, 256, (60, 5)).astype(np.uint8)
    values = np.unpackbits(bits, axis=1)
    found = vicinal.exact_search(values, values[:4], 60)
    hamming = (values[:4, None] != values[None]).sum(2)
    np.testing.assert_array_equal(found.distances, np.sort(hamming, axis=1))


@pytest.mark.parametrize("name", ["manhattan", "", "l"])
def test_unknown_metrics(name: str) -> None:
    with pytest.raises(
        ValueError,
        match=f"^metric: expected 'l2', 'ip', 'cosine', 'hamming' or 'jaccard', got '{name}'$",
    ):
        vicinal.Index(4, name)


# ---- subclasses


class Named(vicinal.Index):
    """An index with attributes of its own: in a dictionary, a slot and a private slot."""

    __slots__ = ("__dict__", "__secret", "slot")

    def set(self) -> Named:
        self.name, self.slot, self.__secret = ["images"], [1], [2]
        return self

    def held(self) -> list[Any]:
        return [self.name, self.slot, self.__secret]


class Plain(vicinal.Index):
    pass


def test_attributes_of_a_subclass_go_with_copies_and_pickles() -> None:
    index = Named(4).set()
    index.add(ROWS)
    copies = [pickle.loads(pickle.dumps(index, p)) for p in range(2, pickle.HIGHEST_PROTOCOL + 1)]
    for new in (*copies, copy.copy(index), copy.deepcopy(index), index.copy()):
        assert type(new) is Named and new.held() == [["images"], [1], [2]]
        np.testing.assert_array_equal(new.get(new.ids), ROWS)
        new.add(ROWS[:1])
        assert len(index) == 50
    assert copy.copy(index).name is index.name
    assert all(a is not b for a, b in zip(copy.deepcopy(index).held(), index.held(), strict=True))
    other = Named(4)
    other.add(np.tile(ROWS, (3, 1)), ids=np.arange(1000, 1150))
    assert vicinal.merge(index, other).held() == index.held()


def test_an_attribute_that_leads_back_to_its_index() -> None:
    index = Plain(4)
    index.me, index.others = index, [index]
    new = copy.deepcopy(index)
    assert new.me is new and new.others == [new] and new is not index
    again = pickle.loads(pickle.dumps(index))
    assert again.me is again and again.others == [again]


def test_an_index_itself_has_no_more_state_than_its_file() -> None:
    assert len(made().__reduce__()) == 2
