"""Filter pruning: groups of filters that depend on each other, masked while training and then removed."""
