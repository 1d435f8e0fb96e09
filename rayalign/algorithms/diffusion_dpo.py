"""Diffusion-DPO: a final image's implicit reward, from how well the policy denoises it.

"Diffusion Model Alignment Using Direct Preference Optimization" by Wallace et al. (arXiv 2311.12908), equation 14 in
the form of the paper's launchers, where beta absorbs the number of timesteps and their weight:

    D    = mean( (eps - eps_th)^2 ) - mean( (eps - eps_ref)^2 )
    loss = -log sigmoid( -0.5 beta (D^w - D^l) ) = dpo_loss( beta (h_w - h_l) ), h = -0.5 D

Winner and loser are re-noised with one noise and one timestep per pair; else the luck of the noise would be the margin.
`eps` stands for whatever the model predicts (`Kernel.target`): noise, v, or the velocity of a rectified flow.
"""

from __future__ import annotations

from torch import Tensor

from rayalign.algorithms.checks import check_batch, check_same_shape


def denoising_error(prediction: Tensor, target: Tensor) -> Tensor:
    """mean( (target - prediction)^2 ), (B,), over latent elements.

    The mean, not the sum, fixes the unit of beta: the papers' 2000 to 5000 belong to it.
    Args: prediction, target (B, C, H, W). Raises ValueError on shapes that differ.
    """
    check_same_shape(prediction=prediction, target=target)
    return ((target - prediction) ** 2).flatten(1).mean(1)


def implicit_reward(error_policy_B: Tensor, error_reference_B: Tensor) -> Tensor:
    """h / beta = -0.5 (error_policy - error_reference), (B,): above 0 where the policy denoises it better.

    Args: both (B,), from `denoising_error` on the same x_t and target. Raises ValueError on other shapes.
    """
    check_batch("error_policy", error_policy_B, error_policy_B.numel())
    check_batch("error_reference", error_reference_B, error_policy_B.numel())
    return -0.5 * (error_policy_B - error_reference_B)
