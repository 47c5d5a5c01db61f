"""Compiled hot path: tensors, requests, validation, the queue. Imports nothing but `errors` and `_dtypes`."""
