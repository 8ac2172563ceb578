"""`memtrace predict`: which engine runs a program, and its runs on one GPU after the other."""
