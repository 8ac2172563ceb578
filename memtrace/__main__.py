"""`python -m memtrace` is the `memtrace` command."""

from memtrace.cli import main

if __name__ == "__main__":
    main()
