"""Rewriting of an exported graph into the form that runtimes compute rightly, and in integers."""
