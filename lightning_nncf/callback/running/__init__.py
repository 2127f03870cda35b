"""A LightningModule's network outside of the training loop: alone, or by its steps with stand-ins for the Trainer.

`steps` runs, `snapshot` notes what a step changes and puts it back, `stand_ins` is what a step finds instead of loggers
and optimizers. Where batches come from is not known here.
"""
