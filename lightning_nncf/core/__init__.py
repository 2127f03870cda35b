"""What all algorithms share: their base class, registry, composition and checkpoints."""
