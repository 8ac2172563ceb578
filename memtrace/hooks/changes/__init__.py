"""What `memtrace fix` does in the program: it writes down what module calls cost, and changes what it is told to."""
