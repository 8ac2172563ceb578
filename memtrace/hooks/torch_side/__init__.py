"""What is hung onto torch, and taken off again."""
