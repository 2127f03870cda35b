"""Plain LightningModules and DataModules to compress; they know nothing of lightning_nncf."""
