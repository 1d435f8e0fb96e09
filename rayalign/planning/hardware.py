"""GPUs to plan for: those of this cluster, or of one that a user names."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rayalign.errors import ConfigError


@dataclass(frozen=True)
class Card:
    """One kind of GPU. Memory in 10^9 bytes as sold; dense bfloat16 operations a second, in 10^12."""

    name: str
    memory_gb: float
    tflops: float


# From the makers' data sheets, dense, without sparsity.
CARDS = {
    card.name: card
    for card in (
        Card("l4", 24, 121),
        Card("a10g", 24, 70),
        Card("rtx4090", 24, 165),
        Card("l40s", 48, 362),
        Card("a100", 80, 312),
        Card("h100", 80, 989),
        Card("h200", 141, 989),
    )
}
BY_MEMORY = {24: "rtx4090", 48: "l40s", 80: "h100", 141: "h200"}


@dataclass(frozen=True)
class Hardware:
    """`count` GPUs of one kind; none is a machine without."""

    count: int
    card: Card | None

    def __str__(self) -> str:
        if self.card is None or not self.count:
            return "no GPU"
        return f"{self.count} x {self.card.name} ({self.card.memory_gb:g} GB)"


def parse_hardware(text: str) -> Hardware:
    """ "8xh100", or "1x24" for a card of so many GB. Raises ConfigError for anything else."""
    found = re.fullmatch(r"(\d+)\s*[x*]\s*([a-z0-9]+)", text.strip().lower())
    names = ", ".join(CARDS)
    if not found:
        raise ConfigError("--dry-run", text, f"set NUMBERxCARD, such as 1xh100 or 8x80; cards: {names}, or GB")
    count, card = int(found[1]), found[2]
    if card.isdigit():
        card = BY_MEMORY.get(int(card), card)
    if card not in CARDS:
        sizes = ", ".join(map(str, BY_MEMORY))
        raise ConfigError("--dry-run", text, f"no such card is known; set one of {names}, or one of {sizes} (GB)")
    return Hardware(count, CARDS[card])


def local_hardware() -> Hardware:
    """The GPUs of this machine, by their own names."""
    import torch

    if not torch.cuda.is_available():
        return Hardware(0, None)
    properties = torch.cuda.get_device_properties(0)
    name = properties.name.lower()
    known = next((card for card in CARDS.values() if card.name in name.replace(" ", "")), None)
    # An unknown card gets no time estimate, but its memory is its own.
    card = Card(properties.name, properties.total_memory / 1e9, known.tflops if known else float("nan"))
    return Hardware(torch.cuda.device_count(), card)
