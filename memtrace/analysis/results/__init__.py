"""Result types only: what reports, commands and servers may import."""
