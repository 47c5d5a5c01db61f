"""Execution environments: the interpreter that a model's stub runs in.

A model names one by its parameter ``EXECUTION_ENV_PATH``, or its Python-based backend brings
one along. `setting.environment_setting` finds which, `cache.EnvironmentCache` makes it ready. Where
Triton 2.51 runs ``bin/activate`` in a shell, the variables are computed here, as its newest
sources do, and no shell is ever started. So what the script exports beyond the usual does not
reach the model. Its lines are not parsed either: scripts have conditions and functions, and one
that is obeyed by half is worse than one that is not; a warning tells which names are lost.

``bin/conda-unpack`` is not run, as on Triton (observed on 2.51). Archives of an environment that
was moved work better than there: Triton's activate script leads back to the old place.
"""
