"""What a person sees while a run goes: a live display in a terminal, one plain line an iteration in a log."""

from rayalign.progress.display import Progress
from rayalign.progress.lines import clock, dropped_words

__all__ = ["Progress", "clock", "dropped_words"]
