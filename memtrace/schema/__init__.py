"""The words that recording and reading share: names, tables, records, options, version. Standard library only, no I/O."""
