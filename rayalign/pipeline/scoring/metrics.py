"""What the reward services tell Prometheus: `ray_rayalign_score_*` at every node's metrics port, by run and scorer.

Ray gathers these from every process of a node and drops those of a process that has ended.
"""

from __future__ import annotations

from ray.util.metrics import Counter, Gauge, Histogram

TAGS = ("run", "scorer")
SECONDS = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0]  # upper ends of a histogram's bins
IMAGES = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0]


class ReplicaMetrics:
    """What a replica sees of its work. `replicas` is 1 in each: their sum is how many there are."""

    def __init__(self, run: str, scorer: str) -> None:
        tags = {"run": run, "scorer": scorer}
        self.replicas = Gauge("rayalign_score_replicas", "1 for each replica that is up", TAGS)
        self.queue_images = Gauge("rayalign_score_queue_images", "images waiting at a replica", TAGS)
        self.batch_images = Histogram("rayalign_score_batch_images", "images scored together", IMAGES, TAGS)
        self.batch_seconds = Histogram("rayalign_score_batch_seconds", "scoring of one batch", SECONDS, TAGS)
        self.text_encodings = Counter("rayalign_score_text_encodings", "runs of the text tower", TAGS)
        for metric in (self.replicas, self.queue_images, self.batch_images, self.batch_seconds, self.text_encodings):
            metric.set_default_tags(tags)
        self.replicas.set(1)
        self._text_runs_told = 0

    def batch(self, num_images: int, seconds: float, images_left: int, text_runs: int) -> None:
        """A batch is done. `images_left` wait for the next; the text tower ran `text_runs` times since it was built."""
        self.batch_images.observe(num_images)
        self.batch_seconds.observe(seconds)
        self.queue_images.set(images_left)
        if text_runs > self._text_runs_told:
            self.text_encodings.inc(text_runs - self._text_runs_told)
            self._text_runs_told = text_runs


class ClientMetrics:
    """What one who asks sees: retries, failures and waiting show here only."""

    def __init__(self, run: str, scorer: str) -> None:
        tags = {"run": run, "scorer": scorer}
        self.call_seconds = Histogram("rayalign_score_call_seconds", "a call, all its tries together", SECONDS, TAGS)
        self.queued_seconds = Counter("rayalign_score_queued_seconds", "calls held back by service.max_queued", TAGS)
        self.failures = Counter("rayalign_score_failures", "images left without a score", (*TAGS, "reason"))
        self.retries = Counter("rayalign_score_retries", "tries after a call's first", (*TAGS, "reason"))
        for metric in (self.call_seconds, self.queued_seconds, self.failures, self.retries):
            metric.set_default_tags(tags)

    def call(self, seconds: float, queued_s: float) -> None:
        """A call is answered, `seconds` after it was let in, before which it waited `queued_s`."""
        self.call_seconds.observe(seconds)
        if queued_s > 0:
            self.queued_seconds.inc(queued_s)
