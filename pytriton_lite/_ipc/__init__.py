"""Between a server and the stub processes of its models: shared memory, wake-ups, processes."""
