"""Planted faults are found, healthy runs raise no alarm. Runs are built from numbers, not from files."""

from dataclasses import replace

import numpy as np
import pytest

from training_health.health.finding import ALARMS, Finding
from training_health.health.findings import find_all, verdict
from training_health.health.health_run import GAP_COLUMNS, Causes, Columns, Gap, HealthRun, Site, Start

EPOCHS = 10
N = 5000
WEIGHTS = ["conv1.weight", "conv1.bias", "fc1.weight", "fc1.bias"]
NAN = float("nan")


def site(name: str, units: int, dead_by_epoch: list[int], first: bool = False, n: int = N) -> Site:
    """The first ``dead_by_epoch[e]`` units are dead at epoch e."""
    activity = np.full((len(dead_by_epoch), units), 0.3)
    for epoch, dead in enumerate(dead_by_epoch):
        activity[epoch, :dead] = 0.0
    epochs = np.arange(len(dead_by_epoch))
    return Site(name, activity, epochs, np.full(len(epochs), n), first_layer=first)


def ramp(last: int) -> list[int]:
    """Dead units of a healthy run: slowly more, from half of the final number."""
    return [round(last / 2 + last / 2 * epoch / (EPOCHS - 1)) for epoch in range(EPOCHS)]


def gap(running: float, train: float, val: float, val_loss: list[float], n: int = N) -> Gap:
    """Constant accuracies; the loss over epochs as given."""
    known = {
        "running_accuracy": running,
        "train_eval_accuracy": train,
        "val_accuracy": val,
        "accuracy_gap": train - val,
        "accuracy_gap_se": (train * (1 - train) / n + val * (1 - val) / n) ** 0.5,
        "mode_effect": train - running,
        "train_eval_loss": 0.2,
    }
    columns = {name: np.full(len(val_loss), known.get(name, np.nan)) for name in GAP_COLUMNS}
    columns["val_loss"] = np.array(val_loss)
    return Gap(np.arange(len(val_loss)), columns, n, n)


def parameters(*values: float, epochs: int = EPOCHS) -> Columns:
    """One number for each of four parameters, or one for all, at every epoch."""
    values = values * (4 // len(values))
    return Columns(np.arange(epochs), {name: np.full(epochs, v) for name, v in zip(WEIGHTS, values, strict=True)})


def falling(first: float, last: float) -> list[float]:
    return np.linspace(first, last, EPOCHS).tolist()


def run(conv1: int, conv2: int, fc1: int, the_gap: Gap, ratio: float = 1e-3) -> HealthRun:
    """A 10-epoch run of the example's network with so many dead units at its end."""
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


def severities(judged: HealthRun) -> dict[str, str]:
    return {finding.rule: finding.severity for finding in find_all(judged)}


def alarms(judged: HealthRun) -> set[str]:
    return {rule for rule, severity in severities(judged).items() if severity in ALARMS}


def the(judged: HealthRun, rule: str) -> Finding:
    (finding,) = [finding for finding in find_all(judged) if finding.rule == rule]
    return finding


def of_sites(*sites: Site) -> HealthRun:
    return HealthRun("a", list(sites))


def of_gap(*numbers, **more) -> HealthRun:
    return HealthRun("a", gap=gap(*numbers, **more))


def of_ratios(*values: float) -> HealthRun:
    return HealthRun("a", update_ratio=parameters(*values))


def swapping() -> HealthRun:
    """29 units die and 30 come back."""
    one = site("fc1", 100, [30, 0])
    one.activity[1, 30:59] = 0
    return of_sites(one)


def quiet() -> HealthRun:
    one = site("fc1", 10, [0])
    one.activity[:, :4] = 0.001
    return of_sites(one)


def broken(name: str, units: int) -> Site:
    """NaN outputs in every unit."""
    one = site(name, units, [0])
    one.activity[:] = NAN
    return one


def of_losses(train: list[float], val: list[float], se: float, n: int = N) -> HealthRun:
    """A run without an accuracy."""
    losses = np.array([train, val])
    columns = {name: np.full(len(val), NAN) for name in GAP_COLUMNS} | {"loss_gap_se": np.full(len(val), se)}
    columns |= {"train_eval_loss": losses[0], "val_loss": losses[1], "loss_gap": losses[1] - losses[0]}
    return HealthRun("a", gap=Gap(np.arange(len(val)), columns, n, n))


def of_accuracies(train: list[float], val: list[float], se: float) -> HealthRun:
    """A run without a loss."""
    accuracies = np.array([train, val])
    columns = {name: np.full(len(val), NAN) for name in GAP_COLUMNS} | {"accuracy_gap_se": np.full(len(val), se)}
    columns |= {"train_eval_accuracy": accuracies[0], "val_accuracy": accuracies[1]}
    columns["accuracy_gap"] = accuracies[0] - accuracies[1]
    return HealthRun("a", gap=Gap(np.arange(len(val)), columns, N, N))


def by_heart() -> HealthRun:
    """Training accuracy is 100 %, validation is at chance, whose loss climbs."""
    learned = of_gap(0.99, 1.0, 0.1, [2.30, 2.31, 2.40, 2.60])
    learned.gap.columns["train_eval_loss"] = np.array([1.5, 0.5, 0.1, 0.01])
    return learned


def nan_counted_as_dead() -> HealthRun:
    """What earlier versions of the monitors wrote after weights became NaN."""
    old = HealthRun("a", [site("fc1", 64, [3, 64, 64])], nonfinite=parameters(0.0, epochs=3))
    old.nonfinite.columns["fc1.weight"][1:] = 64
    return old


def annealed() -> HealthRun:
    done = of_ratios(1e-3)
    for column in done.update_ratio.columns.values():
        column[-2:] = 0.0
    return done


FAULTS = {
    "two fifths of the network born dead": (of_sites(site("fc1", 100, [40])), "dead_from_the_start", "warning"),
    "a third of the network born dead": (of_sites(site("fc1", 100, [33])), "dead_from_the_start", "notice"),
    "a third where the run's limit is 0.3": (
        HealthRun("a", [site("fc1", 100, [33])], info={"limits": {"many_dead_network": 0.3}}),
        "dead_from_the_start",
        "warning",
    ),
    "40 % on 100 examples": (of_sites(site("fc1", 100, [40], n=100)), "dead_from_the_start", "notice"),
    "46 % on 100 examples": (of_sites(site("fc1", 100, [46], n=100)), "dead_from_the_start", "warning"),
    "n unknown": (of_sites(site("fc1", 100, [46], n=0)), "dead_from_the_start", "notice"),
    "a layer dead on 7 examples": (of_sites(site("fc1", 4, [4], n=7)), "whole_layer_dead", "warning"),
    "a layer dead on 6 examples": (of_sites(site("fc1", 512, [512], n=6)), "whole_layer_dead", "notice"),
    "a fifth at once on 20 examples": (of_sites(site("fc1", 100, [0, 24, 24], n=20)), "mass_death", "notice"),
    "NaN outputs": (of_sites(site("conv1", 8, [0]), broken("fc1", 64)), "units_not_a_number", "critical"),
    "regression by heart": (of_losses([2.0, 0.5, 0.0095], [25.0, 20.0, 19.69], se=0.5), "large_loss_gap", "notice"),
    "overfit regression": (
        of_losses([2.0, 0.5, 0.1, 0.01], [21.0, 17.0, 19.0, 20.0], se=0.5), "overfitting", "warning"
    ),
    "flat loss, no accuracy": (of_losses([2.0] * 3, [2.0] * 3, se=0.1), "not_learning", "notice"),
    "half of a layer of a large network": (
        of_sites(site("conv", 1000, [0]), site("fc1", 100, [50])), "dead_from_the_start", "warning"
    ),
    "dying slowly": (of_sites(site("fc1", 100, [2, 8, 14, 20, 26, 32, 42])), "many_dead_units", "warning"),
    "a fifth at once": (of_sites(site("fc1", 100, [0, 24, 24])), "mass_death", "warning"),
    "half at once": (of_sites(site("fc1", 100, [0, 60, 60])), "mass_death", "critical"),
    "healed": (of_sites(site("fc1", 100, [0, 24, 4])), "mass_death", "notice"),
    "no unit left": (of_sites(site("conv1", 64, [0, 1, 1]), site("fc1", 9, [0, 9, 9])), "whole_layer_dead", "critical"),
    "hardly firing": (quiet(), "many_rare_units", "notice"),
    "a ReLU unseen": (HealthRun("a", unwatched=[{"name": "act", "reason": "fused"}]), "unwatched_sites", "notice"),
    "overfit": (
        of_gap(0.97, 0.98, 0.83, [0.60, 0.45, 0.40, 0.42, 0.46, 0.50, 0.55, 0.60]), "overfitting", "warning"
    ),
    "a little overfit": (HEALTHY["no_dropout"](), "mild_overfitting", "notice"),
    "loss became NaN": (of_gap(0.8, 0.8, 0.8, [0.9, 0.8, NAN]), "loss_not_finite", "critical"),
    "stuck": (of_gap(0.1, 0.1, 0.1, [2.31, 2.303, 2.303, 2.303]), "not_learning", "critical"),
    "frozen": (of_ratios(0.0, 0.0, 1e-3, 1e-3), "frozen_layer", "warning"),
    "nothing moves": (of_ratios(0.0), "frozen_layer", "warning"),
    "thrown about": (of_ratios(0.3, 1e-3, 1e-3, 1e-3), "update_ratio_large", "warning"),
    "hardly moving": (of_ratios(2e-6, 1e-3, 1e-3, 1e-3), "update_ratio_small", "notice"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault):
    judged, rule, severity = FAULTS[fault]
    assert severities(judged)[rule] == severity


@pytest.mark.parametrize(
    ("kind", "rule", "severity"),
    [("nonfinite", "nonfinite_weights", "critical"), ("nonfinite_gradients", "nonfinite_gradients", "warning")],
)
def test_a_number_that_is_no_number_is_found(kind, rule, severity):
    broken = HEALTHY["baseline"]()
    getattr(broken, kind).columns["fc1.weight"][7:] = 64
    assert the(broken, rule).severity == severity
    assert "fc1.weight, first at epoch 8 and at 3 of 10 records; up to 64 elements" in the(broken, rule).evidence


SILENT = {
    "units that take turns": swapping(),
    "almost half of a layer": of_sites(site("conv", 1000, [0]), site("fc1", 100, [49])),
    "almost two fifths of a network": of_sites(site("fc1", 100, [39])),
    "dead for want of examples": of_sites(site("fc1", 1000, [59], n=4)),
    "regression that learns": of_losses([2.0, 1.0, 0.5], [2.1, 1.1, 0.6], se=0.1),
    "a loss gap without an error": of_losses([2.0, 1.0, 0.5, 0.1], [2.1, 1.1, 2.6, 3.0], se=NAN),
    "a large gap and falling loss": of_gap(0.97, 0.98, 0.83, falling(0.6, 0.4)),
    "rising loss and a gap of noise": of_gap(0.8, 0.85, 0.73, [0.5, 0.4, 0.5, 0.6, 0.6], n=20),
    "loss never measured": of_gap(0.8, 0.8, 0.8, [NAN] * 3),
    "converged": of_gap(0.93, 0.93, 0.92, [0.22, 0.219, 0.22]),
    "learning rate decayed to zero": annealed(),
    "a bias in front of a normalisation": of_ratios(1e-3, 0.0, 1e-3, 1e-3),
    "young biases": of_ratios(1e-3, 0.3, 1e-3, 0.3),
    "unknown ratios": of_ratios(NAN),
    "one epoch": HealthRun("a", [site("fc1", 256, [20])], gap(0.6, 0.7, 0.71, [0.9]), parameters(3e-3, epochs=1)),
    "no record": HealthRun("a"),
} | {name: healthy() for name, healthy in HEALTHY.items()}


@pytest.mark.parametrize("name", SILENT)
def test_what_is_no_fault_raises_no_alarm(name):
    assert alarms(SILENT[name]) == set()


def test_every_finding_names_its_rule_its_source_and_its_evidence():
    found = [finding for judged, *_ in FAULTS.values() for finding in find_all(judged)]
    assert all(finding.threshold and finding.source and finding.evidence.endswith(".") for finding in found)


def test_units_dead_from_the_start_are_counted_per_layer():
    evidence = the(
        of_sites(site("conv1", 64, [15] * 3, first=True), site("fc1", 256, [102] * 3)), "dead_from_the_start"
    )
    assert "117 of 320 units (36.6%)" in evidence.evidence
    assert "conv1 15 of 64, fc1 102 of 256" in evidence.evidence
    assert "The 15 in the first layer" in evidence.evidence
    assert "kaiming_normal_" in evidence.advice[0]


def test_units_that_fired_before_the_first_step_are_not_dead_from_the_start():
    start = Start(np.full(100, 0.3), N)
    dead = of_sites(replace(site("fc1", 100, [60, 60]), start=start))
    assert " 0 of them never fired at any record" in the(dead, "many_dead_units").evidence

    start.activity[:40] = 0.0
    assert " 40 of them never fired at any record" in the(dead, "dead_from_the_start").evidence


def test_a_rare_unit_is_one_below_the_monitors_own_limit():
    often = of_sites(Site("fc1", np.full((1, 10), 0.05), np.arange(1), np.full(1, N), rare_below=0.125))
    assert (
        "10 of 10 units (100.0%) fire, but on less than 12.5% of the inputs" in the(often, "many_rare_units").evidence
    )
    assert "below 12.5%" in the(often, "many_rare_units").threshold


def test_a_dead_layer_is_said_once():
    dead = of_sites(site("conv1", 64, [0, 1, 1]), site("fc1", 256, [0, 256, 256]))
    assert "since epoch 2" in the(dead, "whole_layer_dead").evidence


def test_few_and_unknown_numbers_of_examples_are_said():
    few = the(of_sites(site("fc1", 512, [512], n=4)), "whole_layer_dead").evidence
    assert "n = 4" in few
    assert "up to 75.0% of all (95%, 3/n)" in few
    assert "n unknown" in the(of_sites(site("fc1", 100, [46], n=0)), "dead_from_the_start").evidence
    assert "only 20 training" in the(of_gap(0.8, 0.85, 0.73, [0.5], n=20), "gap_in_words").evidence


def test_a_small_site_that_few_examples_reach_does_not_hide_what_many_say_of_the_others():
    sites = [site(name, 100, [45]) for name in ("a", "b", "c")]
    assert the(of_sites(*sites), "dead_from_the_start").severity == "warning"
    assert the(of_sites(*sites, site("expert", 4, [0], n=3)), "dead_from_the_start").severity == "warning"


@pytest.mark.parametrize(("dead", "severity"), [(42, "warning"), (41, "notice")])
def test_what_chance_leaves_dead_in_a_network_is_counted_over_all_its_units(dead, severity):
    # Of 300 units that fire on 1 % of the examples 0.366 are silent on 100, at 95 % fewer than 0.412.
    sites = [site(name, 100, [dead], n=100) for name in ("a", "b", "c")]
    assert the(of_sites(*sites), "dead_from_the_start").severity == severity


def test_nan_is_not_death():
    nan = FAULTS["NaN outputs"][0]
    assert alarms(nan) == {"units_not_a_number"}
    assert "fc1 64 of 64" in the(nan, "units_not_a_number").evidence
    assert alarms(nan_counted_as_dead()) == {"nonfinite_weights"}


def test_what_has_learned_its_training_examples_is_not_called_not_learning():
    assert alarms(by_heart()) == {"overfitting"}
    assert "still_improving" not in severities(FAULTS["stuck"][0])


def test_more_epochs_are_no_advice_where_no_weight_moves():
    falling = of_losses([1.0, 0.9, 0.8, 0.7], [1.0, 0.9, 0.8, 0.7], se=0.1)
    assert "still_improving" in severities(falling)
    falling.update_ratio = parameters(0.0)
    assert "still_improving" not in severities(falling)
    assert the(falling, "frozen_layer").title == "No weight moves"


def test_loss_findings_name_the_runs_own_metrics_and_both_losses():
    judged = of_losses([2.0, 0.5, 0.1, 0.01], [21.0, 17.0, 19.0, 20.0], se=0.5)
    judged.gap.metrics["val_loss"] = "valid_mse"
    finding = the(judged, "overfitting")
    assert "`valid_mse` is +19.99 ± 1 (20 and 0.01)" in finding.evidence
    assert finding.evidence.endswith("and `valid_mse` is 18% above its minimum of epoch 2.")
    assert "(`EarlyStopping` on `valid_mse`)" in finding.advice[0]


def test_options_are_named_only_where_the_runs_own_record_supplies_them():
    judged = of_sites(site("fc1", 100, [46]))
    assert the(judged, "dead_from_the_start").advice[1] == (
        "A learning rate 3 to 10 times lower, or a warm-up over the first steps."
    )
    judged.info = {"advice": {"learning_rate": "`--model.learning_rate`", "dropout": 3}}
    assert (
        the(judged, "dead_from_the_start")
        .advice[1]
        .startswith("A learning rate 3 to 10 times lower (here: `--model.learning_rate`), or")
    )


def test_overfitting_gives_its_numbers():
    evidence = the(FAULTS["overfit"][0], "overfitting").evidence
    assert "+15.0 ± 1.1 points" in evidence
    assert "50% above its minimum of epoch 3" in evidence
    assert "5,000 training and 5,000 validation examples" in evidence


def test_a_validation_loss_that_rose_in_the_last_epoch_alone_is_said_to():
    finding = the(of_losses([1.0, 0.7, 0.5, 0.3], [1.0, 0.8, 0.7, 3.0], se=0.01), "large_loss_gap")
    assert finding.evidence.endswith("and validation loss is 329% above its minimum of epoch 3, not for 2 epochs yet.")


def test_a_validation_loss_that_falls_is_said_not_to_climb():
    finding = the(of_losses([1.0, 0.5, 0.2], [1.0, 0.8, 0.7], se=0.01), "large_loss_gap")
    assert finding.evidence.endswith("and validation loss has not climbed for 2 epochs.")


def test_a_rise_of_a_loss_below_zero_is_measured_by_its_fall():
    evidence = the(of_losses([-1.0, -2.0, -3.0, -4.0], [-1.0, -2.0, -1.5, -0.5], se=0.01), "overfitting").evidence
    assert evidence.endswith(
        "and validation loss is 1.5 above its minimum of epoch 2 (-2), 150% of its fall until then."
    )


def test_a_rise_of_a_loss_below_zero_within_its_band_is_no_alarm():
    judged = of_losses([-1.0, -2.0, -2.5, -3.0], [-1.0, -2.0, -1.9, -1.8], se=0.2)
    assert the(judged, "gap_in_words").evidence.endswith("without the marks of harmful overfitting.")


def test_a_loss_below_zero_that_never_fell_is_not_judged():
    judged = of_losses([-1.0, -2.0, -3.0], [-1.0, -0.9, 0.5], se=0.01)
    assert the(judged, "gap_in_words").evidence.endswith(
        "more than chance, and whether validation gets worse can't be judged here."
    )


def test_a_training_loss_of_zero_is_far_below_validations():
    assert "overfitting" in severities(of_losses([1.0, 0.1, 0.0, 0.0], [1.0, 0.5, 0.6, 0.9], se=0.01))


def test_without_a_loss_overfitting_shows_in_the_accuracy_that_validation_lost():
    finding = the(of_accuracies([0.5, 0.8, 0.9, 1.0], [0.5, 0.75, 0.7, 0.55], se=0.01), "overfitting")
    assert finding.evidence.endswith("and validation accuracy is 20.0 points below its maximum of epoch 2.")
    assert "(`EarlyStopping` on validation accuracy)" in finding.advice[0]


def test_without_a_loss_an_accuracy_that_fell_within_the_band_is_no_alarm():
    judged = of_accuracies([0.5, 0.8, 0.9, 1.0], [0.5, 0.75, 0.74, 0.74], se=0.01)
    assert the(judged, "gap_in_words").evidence.endswith("without the marks of harmful overfitting.")


@pytest.mark.parametrize(
    ("val", "title"), [(0.838, "Gap is within noise"), (0.87, "Validation is better than training")]
)
def test_a_gap_that_is_no_alarm_is_put_into_words(val, title):
    finding = the(of_gap(0.8, 0.835, val, [0.5]), "gap_in_words")
    assert (finding.severity, finding.title) == ("info", title)


def test_dropouts_effect_on_the_running_curve_is_explained():
    finding = the(HEALTHY["baseline"](), "mode_effect")
    assert finding.severity == "info"
    assert "90.1%, below validation (91.5%)" in finding.evidence
    assert "+2.7 points" in finding.evidence


def test_the_worst_finding_comes_first():
    broken = HEALTHY["no_dropout"]()
    broken.nonfinite_gradients.columns["fc1.bias"][9] = 1
    broken.nonfinite.columns["fc1.bias"][9] = 1
    assert list(severities(broken).values())[:3] == ["critical", "warning", "notice"]
    assert verdict(broken, find_all(broken)) == ("critical", "Weights are NaN or infinite, and 1 more")


def test_verdicts_without_an_alarm():
    healthy = HEALTHY["baseline"]()
    assert verdict(healthy, find_all(healthy)) == ("healthy", "No alarm")
    assert verdict(HealthRun("a"), []) == ("unknown", "No epoch yet")


CAUSES = ("unknown", "not a number", "dead inputs", "killed", "any input", "mean shift", "bias")


def with_causes(codes: list[int], depth: float = 0.5, since: float = -1) -> Site:
    """A site of 10 units, all of them dead at the last of two epochs and alive before, where ``since`` is 1."""
    codes_now, first = np.array([codes], float), 0.0 if since == -1 else 0.5
    fields = {"cause": codes_now, "depth": np.full((1, 10), depth), "since": np.full((1, 10), since)}
    activity = np.stack([np.full(10, first), np.zeros(10)])
    causes, start = Causes(np.array([1]), CAUSES, fields), Start(np.full(10, first), N)
    return Site("fc", activity, np.arange(2), np.full(2, N), causes=causes, start=start)


@pytest.mark.parametrize(
    ("code", "words", "advice"),
    [
        (5, "10 by mean shift", "standardise the inputs"), (6, "10 by their bias", "biases of 0"),
        (2, "10 by dead inputs", "mend the layer before"), (4, "10 for any input", "cannot come back"),
    ],
)  # fmt: skip
def test_a_cause_is_said_and_chooses_the_advice(code, words, advice):
    (finding,) = find_all(HealthRun("a", [with_causes([code] * 10)]))

    assert f"Why: {words}" in finding.evidence
    assert "0.5 standard deviations below 0" in finding.evidence
    assert "born dead: 10" in finding.evidence
    assert advice in finding.advice[0]


def test_the_epoch_of_a_killing_comes_with_its_update_ratio():
    ratios = Columns(np.arange(2), {"fc.weight": np.array([9.0, 1.5])})

    findings = find_all(HealthRun("a", [with_causes([3] * 10, since=1)], update_ratio=ratios))
    dead = next(finding for finding in findings if finding.rule == "whole_layer_dead")

    assert "killed in epoch 2, where the largest update ratio recorded is 1.5." in dead.evidence
    assert "warm-up" in dead.advice[0]


def test_without_a_known_cause_the_advice_is_general():
    (finding,) = find_all(HealthRun("a", [with_causes([0] * 10)]))

    assert "Why" not in finding.evidence
    assert "learning rate" in finding.advice[0]
