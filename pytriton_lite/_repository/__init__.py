"""The model repository: folders, versions, states, and which loaded version a call reaches.

`Repository` loads and unloads; what it is made of, each below the one before:

* `polled`: a model as it was found, with its configuration;
* `table`: the models, the states of their versions, and who answers;
* `operations`: loads and unloads of one model wait for each other;
* `folders`: where the models are, and `files`: what changes there;
* `poller`: when to look for changes.
"""

from pytriton_lite._repository.repository import MODEL_CONTROL_OFF, Repository
from pytriton_lite._repository.table import ModelTable

__all__ = ["MODEL_CONTROL_OFF", "ModelTable", "Repository"]
