"""Traces without what tells on a person, or without the names of files: host, user, arguments, messages, paths."""
