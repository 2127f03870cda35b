"""Which channels of which parameters can only be removed together, from the graph alone.

`groups` and `propagation` are what pruning and structured sparsity ask; `rules` holds what each kind of op does to
channels. Nothing here removes anything or looks at values of parameters.
"""
