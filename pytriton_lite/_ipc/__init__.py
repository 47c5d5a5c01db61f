"""Between a server and the stub processes of its models: shared memory, wake-ups, processes.

Nothing here knows what a stub does. The parts are for Linux.
"""
