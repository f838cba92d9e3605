"""A join of rows with themselves, step by step; whoever has begun it decides how many steps it takes."""
from vicinal.kernels.space import COSINE, Rows, Space
from vicinal.self_join.codes import Codes
from vicinal.self_join.join_groups import GroupScratch, JoinGroups
from vicinal.self_join.join_neighbours import MOST, Invite, JoinNeighbours, OfferBack
from vicinal.self_join.nearest_lists import NearestLists
from vicinal.self_join.order_exactly import OrderExactly
from vicinal.self_join.partition import Partition
from vicinal.system.memory import Ptr, allocate, missing, release
from vicinal.system.outcome import DONE, NO_MEMORY, STOPPED, Outcome
from vicinal.system.parallel import Team, Watch

comptime PIECE = 64
"""Rows of a piece of a round, or of the last step."""


@always_inline
def _address[T: AnyType](mut value: T) -> Ptr[T]:
    return Pointer(to=value).unsafe_origin_cast[MutUntrackedOrigin]()


struct SelfJoin(Movable):
    """What there is between steps; one caller at a time."""

    var codes: Codes
    var lists: NearestLists
    var partition: Partition
    """The latest one."""
    var pairs: Int64
    """Pairs compared so far, those that came again included."""

    def __init__(out self, count: Int, dim: Int, metric: Int, keep: Int):
        """Makes room for a join of `count` rows, each of which keeps at least `keep` others."""
        self.codes = Codes(count, dim, metric == COSINE)
        self.lists = NearestLists(count, keep)
        self.partition = Partition()
        self.pairs = 0

    def failed(self) -> Bool:
        """Tells whether memory was refused; nothing may be done with it then."""
        return self.codes.failed or self.lists.failed

    def join_groups[
        V: Watch
    ](mut self, wanted: Int, overlap: Int, seed: Int, team: Team, mut watch: V) -> Outcome:
        """Makes groups of about `wanted` rows, each row in `overlap` of them, and compares all pairs of each.

        Returns:
            DONE, STOPPED or NO_MEMORY; the lists are right for what has been compared in any case.
        """
        var status = self.partition.make(_address(self.codes), wanted, overlap, seed, team, watch)
        if status != DONE:
            return status
        var scratches = allocate[GroupScratch](team.size())
        if missing(scratches):
            return NO_MEMORY
        var made = 0
        var there = True
        for w in range(team.size()):
            var scratch = GroupScratch(
                self.partition.largest(), self.codes.dim, self.codes.stride, self.lists.room
            )
            there = there and not scratch.failed
            scratches.unsafe_offset(w).unsafe_write(scratch^)
            made += 1
        if there:
            var task = JoinGroups(
                _address(self.codes),
                _address(self.lists),
                _address(self.partition),
                scratches,
                _address(self.pairs),
            )
            if not team.run(self.partition.count(), 1, task, watch):
                status = STOPPED
        else:
            status = NO_MEMORY
        for w in range(made):
            scratches.unsafe_offset(w).unsafe_deinit_pointee()
        release(scratches)
        return status

    def join_neighbours[
        V: Watch
    ](mut self, width: Int, team: Team, mut watch: V, mut fresh: Int64) -> Outcome:
        """Compares, once there were groups, rows that have a neighbour in common.

        Args:
            width: How many of the nearest of each row take part, and of those that have it among theirs.
            team: Workers; the result does not depend on them.
            watch: May end it early.
            fresh: Set to the number of guests that rows have brought together for the first time.

        Returns:
            DONE, STOPPED or NO_MEMORY; the lists are right for what has been compared in any case.
        """
        var n = self.codes.count
        var used = min(width, self.lists.room, MOST // 2)
        var back = NearestLists(n, used)
        var room = min(used + back.room, MOST)
        var guests = allocate[UInt32](n * room)
        var status = DONE
        fresh = 0
        if back.failed or missing(guests):
            status = NO_MEMORY
        else:
            var offer = OfferBack(_address(self.lists), _address(back), self.partition.order, used)
            var invite = Invite(
                _address(self.lists), _address(back), used, room, guests, _address(fresh)
            )
            var join = JoinNeighbours(
                _address(self.codes),
                _address(self.lists),
                _address(self.partition),
                room,
                guests,
                _address(self.pairs),
            )
            if (
                not team.run(n, PIECE, offer, watch)
                or not team.run(n, PIECE, invite, watch)
                or not team.run(n, PIECE, join, watch)
            ):
                status = STOPPED
        release(guests)
        _ = back^
        return status

    def take[
        S: Space, V: Watch
    ](
        mut self,
        rows: Rows,
        chosen: Ptr[UInt32],
        places: Ptr[UInt32],
        count: Int,
        k: Int,
        ids: Ptr[Int64],
        distances: Ptr[Float32],
        team: Team,
        mut watch: V,
    ) -> Outcome:
        """Writes the nearest k that some rows have kept, by their distances in the space.

        Args:
            rows: The rows, as they were when they were encoded.
            chosen: Rows whose neighbours are wanted.
            places: Where in the result each of them goes.
            count: Their number.
            k: Neighbours of each.
            ids: Receives them, nearest first, equal ones in order of row, -1 where there are no more.
            distances: Receives how far they are.
            team: Workers.
            watch: May end it early.

        Returns:
            DONE, STOPPED or NO_MEMORY.
        """
        var room = (rows.dim + 15) // 16 * 16
        var entries = allocate[Int64](team.size() * self.lists.room)
        var queries = allocate[Float32](team.size() * room)
        var status = NO_MEMORY
        if not (missing(entries) or missing(queries)):
            var task = OrderExactly[S](
                rows,
                self.codes.norms,
                _address(self.lists),
                chosen,
                places,
                k,
                ids,
                distances,
                entries,
                queries,
                room,
            )
            status = DONE if team.run(count, PIECE, task, watch) else STOPPED
        release(entries)
        release(queries)
        return status
