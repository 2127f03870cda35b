"""Mixed precision: a bit width for each quantizer, chosen by hand or by a search."""
