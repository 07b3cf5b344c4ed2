"""The only place where models, losses and data meet."""
