"""What Triton Inference Server answers, as data, and the test that we answer the same."""
