"""Mixed precision: a bit width for each quantizer, chosen by hand or by a search.

The algorithm calls `search`, and keeps in `space` what a search still has to choose from; HAWQ, AutoQ and lists of bit
widths stand side by side behind that. Nothing here moves a quantizer: places are given, and the formats that each may
have come from `placement`.
"""
