"""Statistics of compressed networks as torchmetrics metrics."""
