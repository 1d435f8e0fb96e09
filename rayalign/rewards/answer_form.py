"""What a scorer's answer must look like, for `rayalign.rewards.testing`."""

from __future__ import annotations

from typing import Any

import numpy as np


def form_problem(method: str, answer: Any, shape: tuple[int, ...], what: str) -> str:
    """What is wrong with the type of an answer, or nothing."""
    wanted = f"a float32 numpy array of shape {shape}"
    if not isinstance(answer, np.ndarray):
        fix = ".detach().cpu().numpy()" if hasattr(answer, "detach") else "np.asarray(..., dtype=np.float32)"
        return f"{method} gave a {type(answer).__name__} for {what}; give {wanted}, by {fix}"
    if answer.shape != shape:
        hint = "; drop the length-1 axis by .reshape(-1)" if answer.size == shape[0] and len(shape) == 1 else ""
        return f"{method} gave shape {answer.shape} for {what}; give {wanted}, in the order of the images{hint}"
    if answer.dtype != np.float32:
        return f"{method} gave {answer.dtype}; give {wanted}, by .astype(np.float32)"
    return ""
