"""What kernels need beside their outputs."""
