"""Counts words, and tells Prometheus about the texts: how many, how long, how long the longest."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        # A series is gone with the objects that made it: the families stay here, too. Instances
        # that make a series of the same name and labels share it.
        labels = {"model": args["model_name"]}
        self.texts_family = pb_utils.MetricFamily(
            name="texts_total", description="Texts seen", kind=pb_utils.MetricFamily.COUNTER
        )
        self.good = self.texts_family.Metric(labels={**labels, "result": "counted"})
        self.bad = self.texts_family.Metric(labels={**labels, "result": "refused"})
        self.longest_family = pb_utils.MetricFamily(
            name="text_words_longest",
            description="Words of the longest text",
            kind=pb_utils.MetricFamily.GAUGE,
        )
        # A series of its own, since another instance could come between `value` and `set`.
        self.longest = self.longest_family.Metric(
            labels={**labels, "instance": args["model_instance_name"]}
        )
        self.words_family = pb_utils.MetricFamily(
            name="text_words",
            description="Words of a text",
            kind=pb_utils.MetricFamily.HISTOGRAM,
        )
        self.words = self.words_family.Metric(labels=labels, buckets=[1, 10, 100])

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        texts = pb_utils.get_input_tensor_by_name(request, "TEXT").as_numpy()
        try:
            counts = [len(text.decode().split()) for text in texts]
        except UnicodeDecodeError:
            self.bad.increment(len(texts))
            error = pb_utils.TritonError("TEXT is not UTF-8", pb_utils.TritonError.INVALID_ARG)
            return pb_utils.InferenceResponse(error=error)
        self.good.increment(len(texts))
        for count in counts:
            self.words.observe(count)
            if count > self.longest.value():
                self.longest.set(count)
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor("WORDS", np.array(counts, dtype=np.int32))]
        )
