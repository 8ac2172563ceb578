"""Many files as one run: each is read and analysed where a processor is free, and only what was found travels back."""
