"""Planted faults are found, healthy runs raise no alarm. Runs are built from numbers, not from files."""

import numpy as np
import pytest

from training_health.health.finding import ALARMS, Finding
from training_health.health.findings import find_all, verdict
from training_health.health.health_run import GAP_COLUMNS, Gap, HealthRun, Parameters, Site

EPOCHS = 10
N = 5000
WEIGHTS = ["conv1.weight", "conv1.bias", "fc1.weight", "fc1.bias"]


def site(name: str, units: int, dead_by_epoch: list[int], first: bool = False) -> Site:
    """The first ``dead_by_epoch[e]`` units are dead at epoch e."""
    activity = np.full((len(dead_by_epoch), units), 0.3)
    for epoch, dead in enumerate(dead_by_epoch):
        activity[epoch, :dead] = 0.0
    n = np.full(len(dead_by_epoch), N)
    return Site(name, 0, units, 1, "validation", "relu", first, 0.01, np.arange(len(dead_by_epoch)), n, activity)


def ramp(last: int) -> list[int]:
    """Dead units of a healthy run: slowly more, from half of the final number."""
    return [round(last / 2 + last / 2 * epoch / (EPOCHS - 1)) for epoch in range(EPOCHS)]


def gap(running: float, train: float, val: float, val_loss: list[float], n: int = N) -> Gap:
    """Constant accuracies; the loss over epochs as given."""
    size = len(val_loss)
    se = (train * (1 - train) / n + val * (1 - val) / n) ** 0.5
    known = {
        "running_accuracy": running,
        "train_eval_accuracy": train,
        "val_accuracy": val,
        "accuracy_gap": train - val,
        "accuracy_gap_se": se,
        "mode_effect": train - running,
        "train_eval_loss": 0.2,
    }
    columns = {name: np.full(size, known.get(name, np.nan)) for name in GAP_COLUMNS}
    columns["val_loss"] = np.array(val_loss)
    return Gap(np.arange(size), columns, n, n, "binomial")


def parameters(values: float | list[float], epochs: int = EPOCHS) -> Parameters:
    return Parameters(WEIGHTS, np.arange(epochs), np.broadcast_to(np.array(values, dtype=float), (epochs, 4)).copy())


def falling(first: float, last: float) -> list[float]:
    return np.linspace(first, last, EPOCHS).tolist()


def run(conv1: int, conv2: int, fc1: int, the_gap: Gap, ratio: float = 1e-3) -> HealthRun:
    """A 10-epoch run of the notebooks' network with so many dead units at its end."""
    sites = [site("conv1", 64, ramp(conv1), first=True), site("conv2", 32, ramp(conv2)), site("fc1", 256, ramp(fc1))]
    return HealthRun("a", sites, the_gap, parameters(ratio), parameters(0.0), parameters(0.0))


# numbers of real 10-epoch runs: dead units, running / eval-mode / validation accuracy, validation loss
HEALTHY = {
    "baseline": lambda: run(6, 0, 39, gap(0.9012, 0.9280, 0.9146, falling(0.42, 0.2184))),
    "no_dropout": lambda: run(
        4, 1, 58, gap(0.9545, 0.9658, 0.9194, [*np.linspace(0.36, 0.2176, 8), 0.2240, 0.2300]), ratio=2e-3
    ),
    "sgd": lambda: run(3, 0, 7, gap(0.7981, 0.8350, 0.8382, falling(0.95, 0.4586)), ratio=1.4e-4),
}


def rules(found: list[Finding]) -> set[str]:
    return {finding.rule for finding in found}


def the(found: list[Finding], rule: str) -> Finding:
    (finding,) = [finding for finding in found if finding.rule == rule]
    return finding


@pytest.mark.parametrize("variant", HEALTHY)
def test_a_healthy_variant_raises_no_alarm(variant):
    assert [finding.title for finding in find_all(HEALTHY[variant]()) if finding.severity in ALARMS] == []


def test_the_verdict_of_a_healthy_run_is_healthy():
    healthy = HEALTHY["baseline"]()
    assert verdict(healthy, find_all(healthy)) == ("healthy", "Healthy")


def test_no_dropout_is_called_mildly_overfit_and_no_more():
    found = find_all(HEALTHY["no_dropout"]())
    assert the(found, "mild_overfitting").severity == "notice"
    assert "+4.6 ± 0.9 points" in the(found, "mild_overfitting").evidence


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_young_healthy_run_raises_no_alarm(epochs):
    young = HealthRun("a", [site("fc1", 256, [20] * epochs)], gap(0.6, 0.7, 0.71, [0.9, 0.7][:epochs]))
    young.update_ratio = parameters(3e-3, epochs)
    assert not [finding for finding in find_all(young) if finding.severity in ALARMS]


def test_every_finding_names_its_rule_source_and_evidence():
    for healthy in HEALTHY.values():
        for finding in find_all(healthy()):
            assert finding.threshold
            assert finding.source
            assert finding.evidence.endswith(".")


def test_pytorchs_initialisation_is_called_dead_from_the_start():
    born = run(0, 0, 0, gap(0.8977, 0.9267, 0.9168, falling(0.4, 0.22)))
    born.sites = [site("conv1", 64, [15] * EPOCHS, first=True), site("fc1", 256, [102] * EPOCHS)]
    finding = the(find_all(born), "dead_from_the_start")
    assert finding.severity == "warning"
    assert "117 of 320 units (36.6%)" in finding.evidence
    assert "conv1 15 of 64, fc1 102 of 256" in finding.evidence
    assert "The 15 in the first layer can't come back" in finding.evidence
    assert "`--model.initialization he`" in finding.advice[0]


def test_units_that_die_later_are_not_blamed_on_the_start():
    dying = HealthRun("a", [site("fc1", 100, [2, 8, 14, 20, 26, 32, 38])])
    assert the(find_all(dying), "many_dead_units").severity == "warning"


@pytest.mark.parametrize(("dead", "alarmed"), [(49, False), (50, True)])
def test_half_of_a_layer_is_the_limit_in_a_large_network(dead, alarmed):
    large = HealthRun("a", [site("conv", 1000, [0]), site("fc1", 100, [dead])])
    assert ("dead_from_the_start" in rules(find_all(large))) == alarmed


@pytest.mark.parametrize(("dead", "alarmed"), [(29, False), (30, True)])
def test_three_tenths_are_the_limit_for_a_network(dead, alarmed):
    assert ("dead_from_the_start" in rules(find_all(HealthRun("a", [site("fc1", 100, [dead])])))) == alarmed


def test_a_learning_rate_far_too_high_is_found_by_its_mass_death():
    found = find_all(HealthRun("a", [site("fc1", 256, [10, 12, 180, 181])]))
    finding = the(found, "mass_death")
    assert finding.severity == "critical"
    assert "168 of 256 units of fc1 died between epochs 2 and 3" in finding.evidence
    assert "learning rate" in finding.advice[0]


def test_a_fifth_of_a_layer_dying_at_once_is_a_warning():
    assert the(find_all(HealthRun("a", [site("fc1", 100, [0, 20])])), "mass_death").severity == "warning"
    assert "mass_death" not in rules(find_all(HealthRun("a", [site("fc1", 100, [0, 19])])))


def test_a_mass_death_that_healed_is_a_notice():
    assert the(find_all(HealthRun("a", [site("fc1", 100, [0, 24, 4])])), "mass_death").severity == "notice"


def test_units_that_swap_places_are_no_mass_death():
    swapping = np.full((2, 100), 0.3)
    swapping[0, :30] = 0
    swapping[1, 30:59] = 0
    one = site("fc1", 100, [0, 0])
    object.__setattr__(one, "activity", swapping)
    assert "mass_death" not in rules(find_all(HealthRun("a", [one])))


def test_a_dead_layer_is_critical_and_said_once():
    found = find_all(HealthRun("a", [site("conv1", 64, [0, 1, 1]), site("fc1", 256, [0, 256, 256])]))
    finding = the(found, "whole_layer_dead")
    assert finding.severity == "critical"
    assert "All 256 units of fc1 output 0 on all 5,000 images, since epoch 2" in finding.evidence


def test_bad_initialisation_kills_a_layer_at_the_first_record():
    bad = HealthRun("a", [site("conv1", 64, [64] * 3, first=True)], gap(0.1, 0.1, 0.1, [2.303, 2.303, 2.303]))
    assert {"whole_layer_dead", "not_learning"} <= rules(find_all(bad))


def test_overfitting_is_found():
    losses = [0.60, 0.45, 0.40, 0.42, 0.46, 0.50, 0.55, 0.60]
    over = HealthRun("a", gap=gap(0.97, 0.98, 0.83, losses))
    finding = the(find_all(over), "overfitting")
    assert finding.severity == "warning"
    assert "+15.0 ± 1.1 points" in finding.evidence
    assert "validation loss is 50% above its minimum of epoch 3" in finding.evidence


def test_a_large_gap_without_rising_loss_is_no_alarm():
    fine = HealthRun("a", gap=gap(0.97, 0.98, 0.83, falling(0.6, 0.4)))
    assert not [finding for finding in find_all(fine) if finding.severity in ALARMS]


def test_a_rising_loss_with_a_gap_of_noise_is_no_alarm():
    noisy = HealthRun("a", gap=gap(0.8, 0.85, 0.73, [0.5, 0.4, 0.5, 0.6, 0.6], n=20))
    assert "overfitting" not in rules(find_all(noisy))


def test_a_gap_within_two_standard_errors_is_called_noise():
    finding = the(find_all(HealthRun("a", gap=gap(0.8, 0.835, 0.838, [0.5]))), "gap_in_words")
    assert (finding.severity, finding.title) == ("info", "Gap is within noise")
    assert "-0.3 ± 1.5 points" in finding.evidence


def test_validation_better_than_training_is_explained():
    finding = the(find_all(HealthRun("a", gap=gap(0.8, 0.83, 0.87, [0.5]))), "gap_in_words")
    assert finding.title == "Validation is better than training"


def test_dropouts_effect_on_the_running_curve_is_explained_not_alarmed():
    finding = the(find_all(HEALTHY["baseline"]()), "mode_effect")
    assert finding.severity == "info"
    assert "Running accuracy is 90.1%, below validation (91.5%)" in finding.evidence
    assert "+2.7 points are the effect of dropout" in finding.evidence


def test_nan_weights_are_critical():
    broken = HEALTHY["baseline"]()
    broken.nonfinite.values[7:, 2] = 64
    finding = the(find_all(broken), "nonfinite_weights")
    assert finding.severity == "critical"
    assert "fc1.weight, first at epoch 8 and at 3 of 10 records; up to 64 elements" in finding.evidence
    assert verdict(broken, find_all(broken)) == ("critical", "Weights are NaN or infinite")


def test_nan_gradients_are_a_warning():
    broken = HEALTHY["baseline"]()
    broken.nonfinite_gradients.values[9, 0] = 1
    assert the(find_all(broken), "nonfinite_gradients").severity == "warning"


def test_a_loss_that_became_nan_is_critical():
    found = find_all(HealthRun("a", gap=gap(0.8, 0.8, 0.8, [0.9, 0.8, np.nan])))
    assert "first such epoch is 3" in the(found, "loss_not_finite").evidence


def test_a_loss_that_was_never_measured_is_no_alarm():
    assert "loss_not_finite" not in rules(find_all(HealthRun("a", gap=gap(0.8, 0.8, 0.8, [np.nan] * 3))))


def test_a_frozen_layer_is_found():
    frozen = HEALTHY["baseline"]()
    frozen.update_ratio = parameters([0.0, 0.0, 1e-3, 1e-3])
    finding = the(find_all(frozen), "frozen_layer")
    assert finding.severity == "warning"
    assert finding.evidence.startswith("conv1.weight, conv1.bias: each update is below 1e-08")


def test_weights_that_never_move_are_found():
    still = HealthRun("a", update_ratio=parameters(0.0))
    assert the(find_all(still), "frozen_layer").title == "No weight moves"


def test_a_learning_rate_that_decayed_to_zero_is_no_alarm():
    annealed = HealthRun("a", update_ratio=parameters(1e-3))
    annealed.update_ratio.values[-2:] = 0.0
    assert find_all(annealed) == []


def test_updates_far_too_large_are_found_in_weights_not_in_young_biases():
    assert "update_ratio_large" in rules(find_all(HealthRun("a", update_ratio=parameters([0.3, 1e-3, 1e-3, 1e-3]))))
    assert find_all(HealthRun("a", update_ratio=parameters([1e-3, 0.3, 1e-3, 0.3]))) == []


def test_very_small_updates_are_a_notice():
    tiny = find_all(HealthRun("a", update_ratio=parameters([2e-6, 1e-3, 1e-3, 1e-3])))
    assert the(tiny, "update_ratio_small").severity == "notice"


def test_unknown_ratios_are_no_finding():
    assert find_all(HealthRun("a", update_ratio=parameters(np.nan))) == []


def test_a_run_that_learns_nothing_is_critical():
    stuck = HealthRun("a", gap=gap(0.1, 0.1, 0.1, [2.31, 2.303, 2.303, 2.303]))
    finding = the(find_all(stuck), "not_learning")
    assert finding.severity == "critical"
    assert "fallen by 0.3% (from 2.310 to at best 2.303)" in finding.evidence


def test_a_converged_accurate_model_is_not_called_stuck():
    assert "not_learning" not in rules(find_all(HealthRun("a", gap=gap(0.93, 0.93, 0.92, [0.22, 0.219, 0.22]))))


def test_an_unwatched_relu_is_named():
    found = find_all(HealthRun("a", unwatched=[{"name": "block.act", "reason": "fused"}]))
    assert "block.act (fused)" in the(found, "unwatched_sites").evidence


def test_rare_units_are_a_notice_and_not_called_dead():
    quiet = site("fc1", 10, [0])
    quiet.activity[:, :4] = 0.001
    found = find_all(HealthRun("a", [quiet]))
    assert rules(found) == {"many_rare_units"}
    assert the(found, "many_rare_units").severity == "notice"


def test_a_run_without_records_has_no_findings_and_no_verdict():
    assert find_all(HealthRun("a")) == []
    assert verdict(HealthRun("a"), []) == ("unknown", "No epoch yet")


def test_the_worst_finding_comes_first():
    broken = HEALTHY["no_dropout"]()
    broken.nonfinite_gradients.values[9, 0] = 1
    broken.nonfinite.values[9, 0] = 1
    severities = [finding.severity for finding in find_all(broken)]
    assert severities[:3] == ["critical", "warning", "notice"]
