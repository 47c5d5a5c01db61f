"""Compiled hot path: tensors, requests, validation, the queue.

Imports nothing of this package but `errors` and `_dtypes`.
"""
