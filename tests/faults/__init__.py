"""Memory refused to the native module, request by request, over the whole API."""
