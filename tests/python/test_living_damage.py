"""Journals that are torn or damaged: what was flushed is there, or an error names the place."""

from __future__ import annotations

import itertools
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import vicinal
from vicinal.living import records
from vicinal.living.records import HEADER_BYTES

PLACES = int(os.environ.get("VICINAL_PLACES", "300"))  # that are opened; 10,000 are read
DIM = 4
ROWS = np.random.default_rng(0).standard_normal((400, DIM)).astype(np.float32)

Model = dict[int, bytes]


class Journalled(NamedTuple):
    """A file, its journal, what the index held after each change, and how many were flushed."""

    path: Path
    journal: bytes
    states: list[Model]
    flushed: int


def put(model: Model, ids: list[int], rows: np.ndarray) -> Model:
    return {**model, **{id: row.tobytes() for id, row in zip(ids, rows, strict=True)}}


@pytest.fixture(scope="module")
def journalled(tmp_path_factory: pytest.TempPathFactory) -> Journalled:
    """Changes of all kinds, flushed now and then; the last three are written but not flushed."""
    path = tmp_path_factory.mktemp("journal") / "a.vicinal"
    first = vicinal.Index(DIM)
    first.add(ROWS[:20])
    first.save(path)
    index = vicinal.open(path, mode="rw")
    states = [put({}, list(range(20)), ROWS[:20])]
    draw = random.Random(1)
    for step in range(40):
        model = states[-1]
        kind = draw.randrange(3)
        some = ROWS[draw.randrange(100) :][: draw.randrange(1, 5)]
        known = draw.sample(sorted(model), min(len(some), len(model)))
        if kind == 0 or len(known) < len(some):
            states.append(put(model, index.add(some).tolist(), some))
        elif kind == 1:
            index.update(some, known)
            states.append(put(model, known, some))
        else:
            index.remove(known)
            states.append({id: row for id, row in model.items() if id not in known})
        if step % 4 == 0 or step == 36:
            index.flush()
            flushed = step + 1
    journal = index._log.journal
    with journal._disk:
        journal._write()
    data = Path(f"{path}.journal").read_bytes()
    index._log.journal.sync = lambda position: None  # type: ignore[method-assign]
    index.close(checkpoint=False)
    return Journalled(path, data, states, flushed)


@pytest.fixture
def opened(
    journalled: Journalled, tmp_path: Path
) -> Callable[[bytes], tuple[int, vicinal.LivingIndex]]:
    """Open the file beside the given bytes; return how many changes are there."""

    def open_it(data: bytes, damaged: str = "error") -> tuple[int, vicinal.LivingIndex]:
        path = tmp_path / "b.vicinal"
        shutil.copyfile(journalled.path, path)
        Path(f"{path}.journal").write_bytes(data)
        index = vicinal.open(path, mode="rw", damaged=damaged)
        ids = index.ids
        model = put({}, ids.tolist(), index.get(ids))
        index.check()
        index.close(checkpoint=False)
        return journalled.states.index(model), index

    return open_it


def ends(journalled: Journalled) -> list[int]:
    """Return where each record of the journal ends, that of the header first."""
    header = records.decode_header(journalled.journal, "")
    found = [HEADER_BYTES]
    for record in records.walk(memoryview(journalled.journal)[HEADER_BYTES:], header.salt):
        found.append(HEADER_BYTES + record.end)
    assert found[-1] == len(journalled.journal)
    return found


def last_flush(journalled: Journalled) -> int:
    """Return where the record of the last flush ends."""
    header = records.decode_header(journalled.journal, "")
    data = memoryview(journalled.journal)[HEADER_BYTES:]
    markers = [
        record.end for record in records.walk(data, header.salt) if record.kind == records.MARKER
    ]
    return HEADER_BYTES + markers[-1]


def test_whole(journalled: Journalled, opened: Callable[..., tuple[int, object]]) -> None:
    assert opened(journalled.journal)[0] == 40
    assert journalled.flushed == 37


def test_torn_at_every_record(
    journalled: Journalled, opened: Callable[..., tuple[int, object]]
) -> None:
    """A journal that ends anywhere is read up to the last whole change."""
    limits = ends(journalled)
    seen = []
    for begin, end in itertools.pairwise(limits):
        for place in (begin, begin + 1, (begin + end) // 2, end - 1):
            count, _ = opened(journalled.journal[:place])
            seen.append(count)
    assert seen == sorted(seen) and seen[0] == 0 and seen[-1] == 39
    count, _ = opened(journalled.journal[: limits[7]] + bytes(5000))
    assert count < 37  # what the system made longer and had not filled yet


def test_flipped_at_every_record(
    journalled: Journalled, opened: Callable[..., tuple[int, object]]
) -> None:
    sure = last_flush(journalled)
    for place in ends(journalled)[:-1]:
        for byte in (place, place + 8, place + 31):
            data = bytearray(journalled.journal)
            data[byte] ^= 0x10
            expect(journalled, opened, bytes(data), byte, sure)


def expect(
    journalled: Journalled,
    opened: Callable[..., tuple[int, object]],
    data: bytes,
    byte: int,
    sure: int,
) -> None:
    """What was flushed is there, or an error names the record that the byte is in."""
    marker = max(end for end in ends(journalled) if end < sure)
    try:
        count, _ = opened(data)
    except vicinal.CorruptError as error:
        assert byte < marker
        begin = max((end for end in ends(journalled) if end <= byte), default=0)
        assert f"byte {begin}" in str(error) or "byte 0" in str(error)
    else:
        assert byte >= marker and count >= journalled.flushed


def test_flipped_at_random_places(
    journalled: Journalled, opened: Callable[..., tuple[int, object]]
) -> None:
    sure = last_flush(journalled)
    draw = random.Random(0)
    for _ in range(PLACES):
        data = bytearray(journalled.journal)
        byte = draw.randrange(len(data))
        data[byte] ^= 1 << draw.randrange(8)
        expect(journalled, opened, bytes(data), byte, sure)


def test_read_at_ten_thousand_places(journalled: Journalled) -> None:
    """Flipped bits, bytes that are cut out, overwritten, or doubled: never other changes."""
    header = records.decode_header(journalled.journal, "")
    good = journalled.journal[HEADER_BYTES:]
    whole = records.scan(memoryview(good), header.salt)
    assert len(whole.changes) == 40 and whole.damaged is None and whole.synced == 37
    contents = [bytes(change.content) for change in whole.changes]
    marker = last_flush(journalled) - HEADER_BYTES - 32
    draw = random.Random(0)
    told = 0
    for turn in range(10_000):
        data = bytearray(good)
        place = draw.randrange(len(data))
        kind = turn % 5
        if kind == 0:
            data[place] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del data[place : place + draw.randrange(1, 200)]
        elif kind == 2:
            length = min(draw.randrange(1, 200), len(data) - place)
            data[place : place + length] = draw.randbytes(length)
        elif kind == 3:
            data[place:place] = data[place : place + draw.randrange(1, 200)]
        else:
            del data[place:]
        found = records.scan(memoryview(bytes(data)), header.salt)
        mine = [bytes(change.content) for change in found.changes]
        assert mine == contents[: len(mine)]
        told += found.damaged is not None
        if kind != 4 and place < marker - 200:
            assert found.damaged is not None or len(mine) >= 37
    assert told > 5000


def test_cut_at_the_damage_when_asked(
    journalled: Journalled, opened: Callable[..., tuple[int, vicinal.LivingIndex]]
) -> None:
    limits = ends(journalled)
    data = bytearray(journalled.journal)
    data[limits[20] + 40] ^= 1
    with pytest.raises(vicinal.CorruptError, match=f"damaged at byte {limits[20]}, before"):
        opened(bytes(data))
    count, index = opened(bytes(data), damaged="cut")
    assert 0 < count < 37
    kept = Path(f"{index._log.path}.journal.damaged")
    assert kept.read_bytes() == data
    again = vicinal.open(index._log.path, mode="rw")
    again.add(ROWS[:1])
    again.close()
    data[3] ^= 1
    with pytest.raises(vicinal.CorruptError, match="byte 0 on, fails its checksum"):
        opened(bytes(data))
    assert opened(bytes(data), damaged="cut")[0] == 0


def test_a_follower_reads_up_to_the_damage(journalled: Journalled, tmp_path: Path) -> None:
    """Never an error, and never more than what was flushed."""
    path = tmp_path / "b.vicinal"
    draw = random.Random(0)
    for turn in range(60):
        data = bytearray(journalled.journal)
        if turn:
            place = draw.randrange(len(data))
            data[place] ^= 1 << draw.randrange(8)
            if turn % 3 == 0:
                del data[place:]
        shutil.copyfile(journalled.path, path)
        Path(f"{path}.journal").write_bytes(data)
        follower = vicinal.open(path, follow=True)
        ids = follower.ids
        count = journalled.states.index(put({}, ids.tolist(), follower.get(ids)))
        assert count <= 37 and (turn or count == 37)
        follower.search(ROWS[:2], 3)


def test_a_large_change_is_whole_or_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change of several records."""
    monkeypatch.setattr(records, "MOST_BYTES", 1000)
    path = tmp_path / "a.vicinal"
    vicinal.Index(DIM).save(path)
    index = vicinal.open(path, mode="rw")
    index.add(ROWS[:1])
    index.add(ROWS)
    index.flush()
    data = Path(f"{path}.journal").read_bytes()
    index.close(checkpoint=False)
    follower = vicinal.open(path, follow=True)
    assert len(follower) == 401
    for place in range(HEADER_BYTES, len(data), 97):
        Path(f"{path}.journal").write_bytes(data[:place])
        cut = vicinal.open(path, mode="rw")
        assert len(cut) in (0, 1)
        cut.close(checkpoint=False)
    Path(f"{path}.journal").write_bytes(data)
    with vicinal.open(path, mode="rw") as whole:
        assert len(whole) == 401
