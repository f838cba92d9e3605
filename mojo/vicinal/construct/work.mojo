"""What every step of work on the links of a graph needs, and the rows that are to be linked."""
from vicinal.construct.build_statistics import BuildStatistics
from vicinal.construct.merge_order import StartNodes
from vicinal.graph.links import Graph
from vicinal.graph.undo import UndoLog
from vicinal.kernels.space import Rows
from vicinal.system.memory import Ptr
from vicinal.system.parallel import Team
from vicinal.walk.interleaved import MAX_SEARCHES
from vicinal.walk.scratch import Scratch, any_failed


@fieldwise_init
struct LinkWork(TrivialRegisterPassable):
    """Work on the links of a graph; whoever made it keeps all that it points to."""

    var graph: Ptr[Graph]
    """The links; readers may search them meanwhile."""
    var rows: Rows
    """What is measured, stored rows or codes: those that `AnyLink` measures."""
    var states: Int
    """Address of the rows' states, 0 if none has any."""
    var ef_construction: Int
    """Candidates that walks for links keep."""
    var seed: Int
    """What the order of linking is drawn from."""
    var team: Ptr[Team]
    """Workers; no result depends on their number."""
    var scratches: Ptr[Ptr[Scratch]]
    """MAX_SEARCHES for each worker."""
    var log: Ptr[UndoLog]
    """Made of the same graph; receives what an undo needs, and word of memory that was refused."""
    var statistics: Ptr[BuildStatistics]
    """Receives what it costs."""

    @always_inline
    def scratch(self, worker: Int) -> Ptr[Scratch]:
        """Returns the first scratch of a worker."""
        return self.scratches[unsafe_offset=worker * MAX_SEARCHES]

    def out_of_memory(self) -> Bool:
        """Tells whether memory was refused to any worker, and lets the log know."""
        if any_failed(self.scratches, self.team[].size() * MAX_SEARCHES):
            self.log[].fail()
        return self.log[].failed()


@fieldwise_init
struct NewRows(TrivialRegisterPassable):
    """Rows that are to be linked."""

    var places: Ptr[UInt32]
    """The rows, in the order of linking if there are seeds. No link leads to them; their blocks are empty, or they have none yet. If
    no row takes part, the first must reach level 1: it becomes the entry point."""
    var count: Int
    """Their number."""
    var until: Int
    """The rows that the graph shall have; all of them get blocks."""
    var levels: Ptr[UInt8]
    """The level of each row from `graph.linked` on; 0 for those that are not to be linked."""
    var present: Int
    """Rows that take part in the graph already."""
    var seeds: StartNodes
    """Where walks for some of the rows start."""
