"""A LightningModule's network outside of the training loop: alone, or by its steps with stand-ins for the Trainer.

What a step changes is noted and put back. Where batches come from is not known here.
"""
