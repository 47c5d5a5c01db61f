"""Model instances: loading `model.py`, and the homes that run it."""
