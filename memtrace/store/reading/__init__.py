"""Any input, a file or a folder, as a trace."""
