"""Python-based backend `calibration`: turns sensor readings into physical values.

A model of this backend is a file `calibration.json` in its version folder.
"""

import triton_python_backend_utils as pb_utils
from utils.piecewise import Piecewise


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        curve = Piecewise.from_folder(pb_utils.get_model_dir())
        config.set_max_batch_size(0)
        config.add_input({"name": curve.input_name, "data_type": "TYPE_FP64", "dims": [-1]})
        config.add_output({"name": curve.output_name, "data_type": "TYPE_FP64", "dims": [-1]})
        return config

    def initialize(self, args):
        self.curve = Piecewise.from_folder(pb_utils.get_model_dir())
        pb_utils.Logger.log_info(
            f"{args['model_name']}: {self.curve.input_name} to {self.curve.output_name}"
        )

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        readings = pb_utils.get_input_tensor_by_name(request, self.curve.input_name).as_numpy()
        try:
            values = self.curve(readings)
        except ValueError as error:
            # Fails this request only, with a status code of the author's choice.
            return pb_utils.InferenceResponse(
                error=pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG)
            )
        return pb_utils.InferenceResponse([pb_utils.Tensor(self.curve.output_name, values)])
