"""Rules about dead units."""

from collections.abc import Iterator

import numpy as np

from training_health.health.finding import CLIPPING, LOWER_RATE, Finding, Rule
from training_health.health.health_run import HealthRun
from training_health.health.unit_life import Counts, dead_since

MANY_DEAD_NETWORK = 0.30
MANY_DEAD_SITE = 0.50
MASS_DEATH = 0.20
MASS_DEATH_MIN_UNITS = 5  # below that, a fifth of a layer is one or two units
MANY_RARE = 0.30

SMDEBUG = "layer limit: Amazon SageMaker Debugger, DeadRelu (threshold_layer = 50%)"
CS231N = 'Stanford CS231n notes, "Neural networks 1": up to 40% of a network dies when the learning rate is too high'
LOWER_LR = f"{LOWER_RATE}, or a warm-up over the first steps."
HE_INIT = "He initialisation (`torch.nn.init.kaiming_normal_`) with zero biases."
LEAKY = "LeakyReLU, whose units can't die."


def whole_layer_dead(run: HealthRun) -> Iterator[Finding]:
    """Every unit of a site is dead at the last epoch: no signal and no gradient pass."""
    for site in run.sites:
        if site.dead_now < site.units:
            continue
        since = int(site.epochs[dead_since(site.activity).max()])
        yield Finding(
            rule="whole_layer_dead",
            severity="critical",
            title=f"{site.name} is dead",
            evidence=f"All {site.units} units of {site.name} output 0 on all {_n(site.counts)}, since epoch "
            f"{since + 1}. What follows sees a constant, and no gradient passes back through this layer.",
            threshold="Critical when every unit of a layer is dead at the last epoch.",
            source="Lu, Shin, Su, Karniadakis 2020, arXiv:1903.06733: a network with a dead layer is a constant",
            advice=(LOWER_LR, HE_INIT, LEAKY),
            site=site.name,
        )


def many_dead_units(run: HealthRun) -> Iterator[Finding]:
    """A large part of the network, or half of a layer, is dead at the last epoch."""
    network = run.counts
    dying = [site for site in run.sites if site.dead_now]
    partly = [site for site in dying if site.dead_now < site.units]
    over = [site for site in partly if site.dead_now >= MANY_DEAD_SITE * site.units]
    if not len(network.epochs) or not partly:  # where whole layers are dead and no other unit, the rule above says so
        return
    dead = int(network.dead[-1])
    if dead < MANY_DEAD_NETWORK * network.units and not over:
        return
    since_start = sum(int((dead_since(site.activity) == 0).sum()) for site in dying)
    born_dead = since_start >= dead / 2
    where = ", ".join(f"{site.name} {site.dead_now} of {site.units}" for site in dying)
    evidence = (
        f"{dead} of {network.units} units ({dead / network.units:.1%}) fired on none of the {_n(network)} at "
        f"epoch {network.epochs[-1] + 1}: {where}. {since_start} of them were dead at the first record already and "
        "never came back."
    )
    if dead_first := sum(site.dead_now for site in run.sites if site.first_layer):
        evidence += f" The {dead_first} in the first layer can't come back by themselves, for their inputs, the data, "
        evidence += "never change; deeper ones may."
    yield Finding(
        rule="dead_from_the_start" if born_dead else "many_dead_units",
        severity="warning",
        title="Many units dead from the start" if born_dead else "Many dead units",
        evidence=evidence,
        threshold=f"Warning when {MANY_DEAD_NETWORK:.0%} of the network or {MANY_DEAD_SITE:.0%} of a layer is dead; "
        "'from the start' when at least half of the dead never fired at any record.",
        source=f"{SMDEBUG}; network limit: healthy runs of the examples stay below 20%, and {CS231N}",
        advice=(HE_INIT, LOWER_LR, LEAKY) if born_dead else (LOWER_LR, LEAKY, "Batch normalisation before the ReLU."),
        site=over[0].name if over else "",
    )


def mass_death(run: HealthRun) -> Iterator[Finding]:
    """A fifth of a layer dies within one epoch, net of revivals: the mark of one step that was far too large."""
    for site in run.sites:
        counts = site.counts
        if site.units * MASS_DEATH < MASS_DEATH_MIN_UNITS or len(counts.epochs) < 2:
            continue
        net = counts.deaths - counts.revivals
        row = int(np.argmax(net))
        if net[row] < MASS_DEATH * site.units:
            continue
        recovered = site.dead_now <= counts.dead[row] / 2
        yield Finding(
            rule="mass_death",
            severity="notice" if recovered else "critical" if net[row] >= site.units / 2 else "warning",
            title=f"Sudden deaths in {site.name}",
            evidence=f"{counts.deaths[row]} of {site.units} units of {site.name} died between epochs "
            f"{counts.epochs[row - 1] + 1} and {counts.epochs[row] + 1} ({counts.revivals[row]} came back), measured "
            f"on {_n(counts)}; {site.dead_now} are dead now.",
            threshold=f"Warning when {MASS_DEATH:.0%} of a layer's units die, net of revivals, from one epoch to the "
            "next; critical from 50%; a notice if half of them have come back.",
            source=CS231N,
            advice=(LOWER_LR, f"{CLIPPING}, if single steps are to blame.", LEAKY),
            site=site.name,
        )


def many_rare_units(run: HealthRun) -> Iterator[Finding]:
    """Many units fire on less than 1% of inputs: alive, but close to useless."""
    network = run.counts
    if not len(network.epochs) or network.rare[-1] < MANY_RARE * network.units:
        return
    yield Finding(
        rule="many_rare_units",
        severity="notice",
        title="Many rare units",
        evidence=f"{network.rare[-1]} of {network.units} units ({network.rare[-1] / network.units:.1%}) fire, but on "
        f"less than 1% of the inputs ({_n(network)}, epoch {network.epochs[-1] + 1}). They live and learn, slowly.",
        threshold=f"Notice when {MANY_RARE:.0%} of the network's units are rare: activity above 0 and below 1%.",
        source="the 1% limit: Dohare et al. 2024, Loss of plasticity in deep continual learning, Nature 632",
        advice=("A narrower layer may do as well.", LEAKY),
    )


def unwatched_sites(run: HealthRun) -> Iterator[Finding]:
    """ReLUs that the monitor could not watch: named, so that nothing is silently missed."""
    if run.unwatched:
        names = [f"{entry.get('name', '?')} ({entry.get('reason', 'no reason given')})" for entry in run.unwatched]
        yield Finding(
            rule="unwatched_sites",
            severity="notice",
            title="Some ReLUs are not watched",
            evidence=f"No activity was measured for {', '.join(names)}: dead units there are not counted.",
            threshold="Notice whenever the monitor names a ReLU that it could not watch.",
            source="the monitor's own coverage report",
        )


def _n(counts: Counts) -> str:
    return f"{counts.n[-1]:,} examples"


RULES: tuple[Rule, ...] = (whole_layer_dead, many_dead_units, mass_death, many_rare_units, unwatched_sites)
