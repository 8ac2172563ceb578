"""How long a step of training takes: computation, communication, and what of the two is hidden."""
