"""What a network looks like: ops, the tensors between them, and the names by which they are found.

Here are plain descriptions: the graph and its points, addresses, kinds of modules, arguments of ops, scopes that users
write, FLOPs. Everything above may import them. Nothing here runs a network, holds a hook or knows an algorithm.
"""
