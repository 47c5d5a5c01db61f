import queue
import threading

import triton_python_backend_utils as pb_utils


class Metrics:
    """Counted on a thread of their own; of no effect when the server has none."""

    def __init__(self, model):
        labels = {"model": model}
        self.tokens = queue.Queue()
        self.thread = None
        self.families = []  # a metric is of use while its family lives
        self.requests = self.cancelled = _Nothing()
        try:
            self.requests = self.metric("engine:requests", "COUNTER", labels)
            self.cancelled = self.metric("engine:cancelled", "COUNTER", labels)
            self.histogram = self.metric("engine:tokens", "HISTOGRAM", labels, buckets=[0.5, 2, 8])
        except pb_utils.TritonModelException as error:
            if "metrics not supported" not in str(error):
                raise
            return
        self.thread = threading.Thread(target=self.count, name=f"{model}-metrics")
        self.thread.start()

    def metric(self, name, kind, labels, **options):
        kind = getattr(pb_utils.MetricFamily, kind)
        family = pb_utils.MetricFamily(name=name, description="of the engine", kind=kind)
        self.families.append(family)
        return family.Metric(labels=labels, **options)

    def count(self):
        while (number := self.tokens.get()) is not None:
            self.histogram.observe(number)

    def close(self):
        self.tokens.put(None)
        if self.thread is not None:
            self.thread.join()


class _Nothing:
    def increment(self, number):
        pass
