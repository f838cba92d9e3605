"""What several test files need: processes, events, memory, rows."""
