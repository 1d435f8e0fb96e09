"""Align text-to-image diffusion models with human preference, online, on Ray."""

__version__ = "0.1.0"
