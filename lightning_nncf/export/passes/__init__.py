"""Rewriting of an exported graph into the form that runtimes compute rightly, and in integers.

Each file holds one pass, or what several share. A pass is a function that takes one opened `OnnxGraph` and returns what
it found, or how many places it rewrote; `order.py` lists all in the order in which they run, with the reasons, and
`findings.py` hands the result of one on to the others and to the report. The rest of the export imports `PASSES` and
`run_passes`. Never in here: opening, checking and writing of files, what a quantizer of torch becomes (`lowering`,
`formats`), and a pass that calls another.
"""
