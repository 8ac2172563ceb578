"""What `memtrace fix` changes of steps of optimizers, and what a program does with gradients that speaks against it."""
