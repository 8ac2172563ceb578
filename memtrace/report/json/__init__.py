"""The document that report --json prints."""
