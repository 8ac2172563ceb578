"""The history of one device, and the plain questions about it at one moment."""
