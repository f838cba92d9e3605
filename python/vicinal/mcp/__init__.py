"""Collections as tools of language models: a server of the Model Context Protocol.

Needs the extra `mcp`, which is the official SDK. `vicinal mcp DIR` is the command; `make_server`
returns a server to run or to test in a program. docs/guide/mcp.md says how it is used.
"""

from __future__ import annotations

try:
    import mcp.server.mcpserver  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"this module needs the SDK of MCP, 2.0 or newer: pip install 'vicinal[mcp]' ({error})"
    ) from error

from vicinal.mcp._embed import embed_by_command, embed_by_name
from vicinal.mcp._folder import Folder
from vicinal.mcp._http import serve_http
from vicinal.mcp._tools import make_server

__all__ = ["Folder", "embed_by_command", "embed_by_name", "make_server", "serve_http"]
