"""An estimate of one run, and a recording held against it."""
