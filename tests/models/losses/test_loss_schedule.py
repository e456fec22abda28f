"""The powers of each schedule and their loss, compared with the formulas in numpy."""

import math

import numpy as np
import pytest
import torch

from derain.models.losses.loss_schedule import KINDS, LossSchedule, RunningError, Statistics
from derain.models.losses.total_loss import TotalLoss

HALFWAY = Statistics(error=0.02, first_error=0.08)


def images():
    generator = torch.Generator().manual_seed(6)
    return torch.rand(2, 2, 3, 8, 8, generator=generator).unbind()


def exponent(schedule, progress, statistics=None):
    ((weight, found),) = schedule(progress, statistics)
    assert weight == 1.0
    return found


@pytest.mark.parametrize("progress", [0.0, 0.2, 0.5, 1.0])
def test_annealing_follows_half_a_cosine(progress):
    half = 0.5 + 0.5 * math.cos(progress * math.pi)
    assert exponent(LossSchedule(), progress) == pytest.approx(1 + half)
    assert exponent(LossSchedule("power_anneal_rev"), progress) == pytest.approx(2 - half)
    other = LossSchedule("power_anneal", start=1.5, end=0.5)
    assert exponent(other, progress) == pytest.approx(0.5 + half)


def test_annealing_starts_with_the_square_and_ends_with_charbonnier():
    output, clean = images()
    (first, last) = (LossSchedule().loss(output, clean, s).item() for s in (0.0, 1.0))
    mse, _ = TotalLoss("mse")(output, clean)
    charbonnier, _ = TotalLoss("charbonnier")(output, clean)
    assert first == pytest.approx(mse.item() + 1e-6, rel=1e-5)
    assert last == pytest.approx(charbonnier.item(), rel=1e-5)


def test_a_constant_power_needs_no_progress():
    assert exponent(LossSchedule("constant", start=1.3), None) == 1.3


def test_the_mixture_moves_from_start_to_end():
    (a, p), (b, q) = LossSchedule("convex_mix")(0.25)
    assert (p, q) == (2.0, 1.0)
    assert a == pytest.approx((1 + math.sqrt(0.5)) / 2)
    assert a + b == pytest.approx(1.0)


@pytest.mark.parametrize(("error", "expected"), [(0.02, 1.25), (0.08, 2.0), (0.5, 2.0), (0.0, 1.0)])
def test_the_adaptive_power_follows_the_error(error, expected):
    statistics = Statistics(error, first_error=0.08)
    assert exponent(LossSchedule("progress_adaptive"), None, statistics) == pytest.approx(expected)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradient_match_numpy(kind, normalize):
    schedule = LossSchedule(kind, start=1.8, end=1.2, normalize=normalize, reference_error=0.1)
    output, clean = images()
    output.requires_grad_()
    loss = schedule.loss(output, clean, 0.3, HALFWAY)
    loss.backward()
    e = (output.detach() - clean).double().numpy()
    expected, slope = 0.0, np.zeros_like(e)
    for w, p in schedule(0.3, HALFWAY):
        w = w / (p * 0.1 ** (p - 1)) if normalize else w
        expected += w * np.mean((e**2 + 1e-6) ** (p / 2))
        slope += w * p * e * (e**2 + 1e-6) ** (p / 2 - 1) / e.size
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(output.grad.numpy(), slope, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("power", [0.5, 1.0, 1.5, 2.0])
def test_the_gradient_is_finite_at_zero_error(power):
    schedule = LossSchedule("constant", start=power)
    errors = torch.tensor([0.0, 1e-8, -1e-8, 1e-3, -1.0]).repeat(3).view(1, 3, 1, 5)
    errors.requires_grad_()
    schedule.loss(errors, torch.zeros(1, 3, 1, 5)).backward()
    assert torch.isfinite(errors.grad).all()
    assert torch.equal(errors.grad.sign(), errors.detach().sign())


def test_normalised_powers_have_the_same_gradient_at_the_reference_error():
    gradients = []
    for power in (1.0, 1.5, 2.0):
        schedule = LossSchedule(
            "constant", start=power, normalize=True, reference_error=0.2, eps=1e-6
        )
        output = torch.full((1, 3, 1, 1), 0.2, requires_grad=True)
        schedule.loss(output, torch.zeros(1, 3, 1, 1)).backward()
        gradients.append(output.grad.sum().item())
    assert gradients == pytest.approx([1.0, 1.0, 1.0], rel=1e-4)


def test_half_precision_keeps_small_errors():
    clean = torch.full((1, 3, 4, 4), 0.5)
    output = (clean + 1e-3).half().float()
    exact = LossSchedule("constant").loss(output, clean)
    assert LossSchedule("constant").loss(output.half(), clean.half()).item() == exact.item()


@pytest.mark.parametrize("progress", [None, -0.1, 1.1, math.nan])
def test_a_progress_outside_the_run_is_refused(progress):
    with pytest.raises(ValueError, match="progress"):
        LossSchedule()(progress)


def test_the_adaptive_schedule_needs_statistics():
    with pytest.raises(ValueError, match="RunningError"):
        LossSchedule("progress_adaptive")(0.5)


@pytest.mark.parametrize("options", [{"kind": "dls"}, {"start": 0.0}, {"end": -1.0}, {"eps": 0.0}])
@pytest.mark.usefixtures("unchecked")
def test_invalid_values_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        LossSchedule(**options)


def test_the_running_error_is_a_moving_average():
    running = RunningError(decay=0.9, warmup=3)
    for error in (0.3, 0.1, 0.2):
        statistics = running.update(error)
    assert statistics.error == pytest.approx(0.2)
    assert statistics.first_error == pytest.approx(0.2)
    for _ in range(200):
        statistics = running.update(0.05)
    assert statistics.error == pytest.approx(0.05, rel=1e-3)
    assert statistics.first_error == pytest.approx(0.2)


def test_a_running_error_continues_from_its_numbers():
    whole = RunningError(warmup=5)
    errors = np.linspace(0.3, 0.1, 20)
    for error in errors[:10]:
        whole.update(float(error))
    resumed = RunningError(**vars(whole))
    for error in errors[10:]:
        assert whole.update(float(error)) == resumed.update(float(error))


def test_the_total_loss_accepts_a_schedule():
    output, clean = images()
    loss = TotalLoss("power", LossSchedule())
    total, terms = loss(output, clean, progress=0.4)
    assert terms == {"power": total}
    assert total.item() == pytest.approx(LossSchedule().loss(output, clean, 0.4).item())
    with pytest.raises(ValueError, match="progress"):
        loss(output, clean)


@pytest.mark.parametrize(("pixel", "schedule"), [("power", None), ("l1", LossSchedule())])
def test_a_schedule_and_the_power_loss_go_together(pixel, schedule):
    with pytest.raises(ValueError, match="schedule"):
        TotalLoss(pixel, schedule=schedule)
