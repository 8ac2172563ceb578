"""The words that recording and reading share: names, tables, records, options, version. Standard library, no I/O."""
