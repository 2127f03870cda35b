"""The parts of the scripts that reproduce the zoo."""
