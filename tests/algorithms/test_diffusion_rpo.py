from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rayalign.algorithms.diffusion_rpo import (
    Modality,
    Placement,
    contrast_weights,
    embedding_distance,
    rpo_loss,
)
from rayalign.algorithms.dpo import dpo_loss

PLACEMENTS: tuple[Placement, ...] = ("outside", "inside")
MODALITIES: tuple[Modality, ...] = ("prompt", "image", "joint")


def rewards(num_winners: int, num_losers: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    winner = torch.randn(num_winners, generator=generator, dtype=torch.float64)
    return winner, torch.randn(num_losers, generator=generator, dtype=torch.float64)


def prompts(num: int, seed: int = 5) -> Tensor:
    """Distinct embeddings (num, 8)."""
    return torch.randn((num, 8), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def prompt_distance(winner_MD: Tensor, loser_ND: Tensor) -> Tensor:
    return embedding_distance((winner_MD, None), (loser_ND, None), "prompt")


class TestDistance:
    # Angles 0 and 60 degrees against 0, 90, 180; lengths do not count.
    winner = torch.tensor([[2.0, 0.0], [1.0, math.sqrt(3)]]), torch.tensor([[1.0], [-2.0]])
    loser = torch.tensor([[1.0, 0], [0, 5], [-3, 0]]), torch.tensor([[1.0], [2.0], [-1.0]])
    # 1 - cos: 0, 1, 2 and 1 - 1/2, 1 - sqrt(3)/2, 1 + 1/2.
    by_prompt = torch.tensor([[0.0, 1.0, 2.0], [0.5, 1 - math.sqrt(3) / 2, 1.5]])
    by_image = torch.tensor([[0.0, 0.0, 2.0], [2.0, 2.0, 0.0]])

    def test_by_hand(self) -> None:
        joint = (self.by_prompt + self.by_image) / 2
        for modality, expected in zip(MODALITIES, (self.by_prompt, self.by_image, joint), strict=True):
            found = embedding_distance(self.winner, self.loser, modality)
            torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
        assert embedding_distance(self.winner, self.loser).equal(found)

    def test_only_what_the_modality_needs(self) -> None:
        winner, loser = ((prompt, None) for prompt, _ in (self.winner, self.loser))
        assert embedding_distance(winner, loser, "prompt").shape == (2, 3)
        for modality in MODALITIES[1:]:
            with pytest.raises(ValueError, match="needs the image embeddings"):
                embedding_distance(winner, loser, modality)

    def test_shapes_that_do_not_fit_are_refused(self) -> None:
        with pytest.raises(ValueError, match=r"prompt embeddings must be .*\(2, 2\) and \(3, 1\)"):
            embedding_distance(self.winner, (self.loser[1], None), "prompt")
        with pytest.raises(ValueError, match="modality must be"):
            embedding_distance(self.winner, self.loser, "both")  # type: ignore[arg-type]


class TestWeights:
    def test_rows_sum_to_one(self) -> None:
        weights = contrast_weights(prompt_distance(prompts(5), prompts(7, 6)), 0.1)
        assert weights.shape == (5, 7)
        torch.testing.assert_close(weights.sum(1), torch.ones(5, dtype=torch.float64), atol=1e-12, rtol=0)

    def test_by_hand(self) -> None:
        # Distances 0, 0.1 log 2, 0.1 log 4 at tau 0.1: 1 : 1/2 : 1/4.
        distance = torch.tensor([[0.0, 0.1 * math.log(2), 0.1 * math.log(4)]])
        torch.testing.assert_close(contrast_weights(distance, 0.1), torch.tensor([[4.0, 2.0, 1.0]]) / 7)

    @pytest.mark.parametrize(
        ("num", "tau", "expected"),
        [
            # The same prompt among losers at distance 0.4: 1 / (1 + (num - 1) e^(-0.4 / tau)).
            (16, 0.1, 0.784),  # 1 / (1 + 15 * 0.0183156) = 1 / 1.274735
            (16, 0.5, 0.129),  # 1 / (1 + 15 * 0.4493290) = 1 / 7.739934
            (32, 0.5, 0.067),  # 1 / (1 + 31 * 0.4493290) = 1 / 14.929198
        ],
    )
    def test_the_same_prompt_among_others(self, num: int, tau: float, expected: float) -> None:
        distance = torch.full((num, num), 0.4).fill_diagonal_(0)
        weights = contrast_weights(distance, tau)
        torch.testing.assert_close(weights.diagonal(), torch.full((num,), expected), atol=5e-4, rtol=0)

    def test_masked_columns_are_as_if_absent(self) -> None:
        distance = prompt_distance(prompts(4), prompts(6, 6))
        valid = torch.tensor([True, False, True, True, False, True])
        weights = contrast_weights(distance, 0.3, valid)
        assert weights[:, ~valid].eq(0).all()
        torch.testing.assert_close(weights[:, valid], contrast_weights(distance[:, valid], 0.3), atol=1e-15, rtol=0)
        # All padding: no weight at all, and no NaN.
        assert contrast_weights(distance, 0.3, torch.zeros(6, dtype=torch.bool)).eq(0).all()

    def test_what_is_refused(self) -> None:
        with pytest.raises(ValueError, match="tau must be above 0"):
            contrast_weights(torch.zeros(2, 2), 0.0)
        with pytest.raises(ValueError, match=r"distance must be \(M, N\)"):
            contrast_weights(torch.zeros(2), 0.1)
        with pytest.raises(ValueError, match=r"valid must be \(3,\)"):
            contrast_weights(torch.zeros(2, 3), 0.1, torch.ones(2, dtype=torch.bool))


class TestLoss:
    def test_by_hand(self) -> None:
        # h_w = (1, 0), h_l = (0, 2): margins (1, -1) and (0, -2). Weights (3/4, 1/4) and (1/2, 1/2).
        # -log sigmoid: 1 -> 0.3132617, -1 -> 1.3132617, 0 -> 0.6931472, -2 -> 2.1269280.
        winner, loser = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])
        weights = torch.tensor([[0.75, 0.25], [0.5, 0.5]])
        # 0.75 * 0.3132617 + 0.25 * 1.3132617 = 0.5632617; (0.6931472 + 2.1269280) / 2 = 1.4100376
        loss = rpo_loss(winner, loser, weights)
        torch.testing.assert_close(loss, torch.tensor([0.5632617, 1.4100376]), atol=1e-6, rtol=0)
        # Inside: arguments (0.75, -0.25) and (0, -1): 0.3868710, 0.8259394 and 0.6931472, 1.3132617; plain means.
        loss = rpo_loss(winner, loser, weights, "inside")
        torch.testing.assert_close(loss, torch.tensor([0.6064052, 1.0032045]), atol=1e-6, rtol=0)

    @pytest.mark.parametrize("placement", PLACEMENTS)
    @pytest.mark.parametrize("tau", [0.01, 0.5, 100.0])
    def test_one_pair_is_dpo(self, placement: Placement, tau: float) -> None:
        winner, loser = rewards(1, 1)
        scale = torch.tensor([1.7], dtype=torch.float64)
        weights = contrast_weights(torch.tensor([[0.6]], dtype=torch.float64), tau)
        loss = rpo_loss(winner, loser, weights, placement, scale)
        expected, _ = dpo_loss(winner - loser, scale)
        torch.testing.assert_close(loss, expected, atol=1e-15, rtol=0)

    def test_small_tau_with_distinct_prompts_is_dpo(self) -> None:
        winner, loser = (one.requires_grad_() for one in rewards(6, 6))
        same = prompts(6)
        loss = rpo_loss(winner, loser, contrast_weights(prompt_distance(same, same), 1e-3))
        expected, _ = dpo_loss(winner - loser)
        torch.testing.assert_close(loss, expected, atol=1e-12, rtol=0)
        grads, expected_grads = (torch.autograd.grad(one.mean(), (winner, loser)) for one in (loss, expected))
        torch.testing.assert_close(grads, expected_grads, atol=1e-12, rtol=0)

    def test_large_tau_is_the_mean_over_all_pairs(self) -> None:
        winner, loser = rewards(4, 6)
        distance = prompt_distance(prompts(4), prompts(6, 6))
        loss = rpo_loss(winner, loser, contrast_weights(distance, 1e9))
        every_pair = [-F.logsigmoid(w - lost) for w in winner for lost in loser]
        torch.testing.assert_close(loss.mean(), torch.stack(every_pair).mean(), atol=1e-9, rtol=0)

    def test_the_scale_multiplies_the_margin(self) -> None:
        winner, loser = rewards(2, 3)
        weights = contrast_weights(torch.rand((2, 3), generator=torch.Generator().manual_seed(1)).double(), 0.5)
        for placement in PLACEMENTS:
            scaled = rpo_loss(winner, loser, weights, placement, torch.full((2,), 1.5, dtype=torch.float64))
            expected = rpo_loss(1.5 * winner, 1.5 * loser, weights, placement)
            torch.testing.assert_close(scaled, expected, atol=1e-12, rtol=0)

    @pytest.mark.parametrize("placement", PLACEMENTS)
    def test_masked_losers_change_nothing(self, placement: Placement) -> None:
        winner, loser = rewards(3, 5)
        distance = prompt_distance(prompts(3), prompts(5, 6))
        valid = torch.tensor([True, True, False, True, False])
        loss = rpo_loss(winner, loser, contrast_weights(distance, 0.2, valid), placement, scale_M=None, valid_N=valid)
        expected = rpo_loss(winner, loser[valid], contrast_weights(distance[:, valid], 0.2), placement)
        torch.testing.assert_close(loss, expected, atol=1e-12, rtol=0)

    @pytest.mark.parametrize("placement", PLACEMENTS)
    def test_nothing_but_padding_costs_nothing(self, placement: Placement) -> None:
        winner, loser = (one.requires_grad_() for one in rewards(2, 2))
        valid = torch.zeros(2, dtype=torch.bool)
        weights = contrast_weights(torch.zeros((2, 2), dtype=torch.float64), 0.1, valid)
        loss = rpo_loss(winner, loser, weights, placement, valid_N=valid)
        assert loss.tolist() == [0.0, 0.0]
        assert [grad.tolist() for grad in torch.autograd.grad(loss.sum(), (winner, loser))] == [[0.0, 0.0]] * 2

    def test_two_workers_with_gathered_losers_are_one(self) -> None:
        """Each worker's own winners against everybody's losers: losses and gradients of the whole batch."""
        winner, loser = (one.requires_grad_() for one in rewards(4, 4))
        distance = prompt_distance(prompts(4), prompts(4, 6))
        whole = rpo_loss(winner, loser, contrast_weights(distance, 0.5))
        parts = [rpo_loss(winner[own], loser, contrast_weights(distance[own], 0.5)) for own in ([0, 1], [2, 3])]
        torch.testing.assert_close(torch.cat(parts), whole, atol=1e-15, rtol=0)
        grads = [torch.autograd.grad(one.sum(), (winner, loser)) for one in (whole, torch.cat(parts))]
        torch.testing.assert_close(grads[1], grads[0], atol=1e-15, rtol=0)

    def test_what_is_refused(self) -> None:
        winner, loser, weights = torch.zeros(2), torch.zeros(3), torch.zeros(2, 3)
        with pytest.raises(ValueError, match=r"weights must be \(2, 3\)"):
            rpo_loss(winner, loser, weights.T)
        with pytest.raises(ValueError, match=r"scale must be \(2,\)"):
            rpo_loss(winner, loser, weights, "outside", torch.ones(1))
        with pytest.raises(ValueError, match=r"valid must be \(3,\)"):
            rpo_loss(winner, loser, weights, "inside", valid_N=torch.ones(2, dtype=torch.bool))
        with pytest.raises(ValueError, match="placement must be"):
            rpo_loss(winner, loser, weights, "beside")  # type: ignore[arg-type]
