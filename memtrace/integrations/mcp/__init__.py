"""A server of the Model Context Protocol: coding agents ask it about traces. `memtrace mcp` runs it over stdio."""
