"""What model code in a stub has from its server, both ends of each in one module.

The stub asks and tells through its `Asker`; the server's end is added to its `Answerer`.
"""
