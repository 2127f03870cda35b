"""Which entries of which parameters can only be removed together, followed through a captured graph."""
