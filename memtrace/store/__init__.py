"""Reading: files of any known kind become one frozen `Trace`. The only reader; computes no statistics."""
