"""Model configuration: schema, text and JSON forms, defaults, validation.

Modules, in the order in which a configuration passes through them:

``schema``         descriptors of ``inference.ModelConfig`` in a private pool
``pbtxt``          ``config.pbtxt`` to message and back
``json_form``      message to JSON as Triton prints it, and JSON to message
``normalize``      backend, defaults, instance groups
``validate``       Triton's checks, with Triton's texts
``ensemble``       the same for ensembles, and for how they fit to their models
``autocomplete``   takes over what ``auto_complete_config`` returned
``model_files``    checks of labels, warmup samples and first values of states
``model_config``   the typed, frozen view that the rest of the package reads

Nothing here imports protobuf before the first configuration is read.
"""
