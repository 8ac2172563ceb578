"""What the command line has beside its commands: streams, exit codes, settings, suggestions for what was mistyped."""
