"""The capsule that stands for an index in Python."""
from bindings.python_api import Fail, Obj, capsule_get
from vicinal.index.vector_index import Index
from vicinal.system.memory import Ptr

comptime TAG = "vicinal.Index"


def handle_of(o: Obj) raises Fail -> Ptr[Index]:
    """Returns the index of a handle."""
    return capsule_get[Index, TAG](o)
