"""Rules about dead units, and about units whose output is not a number."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from training_health.health.finding import CLIPPING, CONVENTION, ENOUGH, LOWER_RATE, Finding, Rule, limit_of
from training_health.health.health_run import HealthRun, Site
from training_health.health.unit_life import dead_since
from training_health.log_format import CAUSE_WORDS

CS231N = 'Stanford CS231n notes, "Neural networks 1": up to 40% of a network dies when the learning rate is too high'
SMDEBUG = "Amazon SageMaker Debugger, DeadRelu (threshold_layer = 50%)"
MANY_DEAD_NETWORK = ("many_dead_network", 0.40, CS231N)
MANY_DEAD_SITE = ("many_dead_site", 0.50, SMDEBUG)
MASS_DEATH = ("mass_death", 0.20, CONVENTION)
MANY_RARE = ("many_rare", 0.30, CONVENTION)
SOME_DEAD = 0.30
MASS_DEATH_MIN_UNITS = 5  # below that, a fifth of a layer is one or two units
RARE = 0.01
HALF_SILENT = 6  # examples: silent on more, a layer is silent on more than half of all (95 %, 3/n)

LOWER_LR = f"{LOWER_RATE}, or a warm-up over the first steps."
HE_INIT = "He initialisation (`torch.nn.init.kaiming_normal_`) with zero biases{initialization}."
LEAKY = "LeakyReLU, whose units can't die{activation}."
NORMALIZE = "Batch normalisation before the ReLU{normalization}."
# What to do about a cause; the others have no cure of their own.
CURES = {
    "mean shift": (
        "Mean shift: standardise the inputs, so that their mean is 0; in deeper layers batch normalisation before the "
        "ReLU{normalization}, or biases with which each unit fires on half of its inputs at the start.",
    ),
    "bias": ("Bias: start with biases of 0{initialization}.",),
    "killed": (f"Killed between two epochs? {LOWER_RATE}, or a warm-up; {CLIPPING}.",),
    "dead inputs": ("Dead inputs: mend the layer before, whose dead units are all that these read.",),
    "any input": (
        "Dead for any input: in the first layer such a unit cannot come back; remove it, or draw its weights again.",
    ),
    "not a number": ("Not a number: look for the first layer that gives NaN or infinity.",),
}
MOST_CURES = 2
FEW_RULE = f" On fewer than {ENOUGH} examples only beyond what units that each fire on 1% can show by chance (95%)."


def not_a_number(run: HealthRun) -> Iterator[Finding]:
    """Units whose output is NaN: neither dead nor alive."""
    if bad := [site for site in run.sites if len(site.epochs) and site.counts.nan[-1]]:
        where = ", ".join(f"{site.name} {site.counts.nan[-1]} of {site.units}" for site in bad)
        first = min(int(site.epochs[np.argmax(site.counts.nan > 0)]) for site in bad)
        yield Finding(
            rule="units_not_a_number",
            severity="critical",
            title="Outputs are not numbers",
            evidence="Units whose output is NaN, neither dead nor alive: "
            f"{where}{run.dated(', first at epoch', first)}.",
            threshold="Critical from the first such unit at the last epoch.",
            source="no threshold: IEEE 754 NaN propagates through every sum and product",
            advice=(
                f"Weights NaN too? Back to the last checkpoint before that. {LOWER_RATE}; {CLIPPING}.",
                "All weights finite? Look for NaN in the inputs, or at `Trainer(detect_anomaly=True)`.",
            ),
            site=bad[0].name,
        )


def whole_layer_dead(run: HealthRun) -> Iterator[Finding]:
    """Every unit of a site is dead at the last epoch: no signal and no gradient pass."""
    for site in run.sites:
        if not len(site.epochs) or site.dead_now < site.units:
            continue
        since = int(site.epochs[dead_since(site.activity).max()])
        yield Finding(
            rule="whole_layer_dead",
            severity="critical" if site.n[-1] >= ENOUGH else "warning" if site.n[-1] > HALF_SILENT else "notice",
            title=f"{site.name} is dead",
            evidence=f"All {site.units} units of {site.name} output 0 on every example ({_n(site.n[-1])})"
            f"{run.dated(', since epoch', since)}. On these what follows sees a constant, and no gradient passes back "
            "through this layer." + _why([site], run),
            threshold="Critical when every unit of a layer is dead at the last epoch; on fewer than "
            f"{ENOUGH} examples a warning if it is then silent on more than half of all (95%, 3/n), else a notice.",
            source="Lu, Shin, Su, Karniadakis 2020, arXiv:1903.06733: a network with a dead layer is a constant",
            advice=_advice([site], (LOWER_LR, HE_INIT, LEAKY)),
            site=site.name,
        )


def many_dead_units(run: HealthRun) -> Iterator[Finding]:
    """A large part of the network, or half of a layer, is dead at the last epoch."""
    (of_network, source), (of_site, site_source) = limit_of(run, MANY_DEAD_NETWORK), limit_of(run, MANY_DEAD_SITE)
    network = run.counts
    dying = [site for site in run.sites if site.dead_now]
    partly = [site for site in dying if site.dead_now < site.units]
    over = [site for site in partly if site.dead_now >= of_site * site.counts.known]
    if not len(network.epochs) or not partly:  # where whole layers are dead and no other unit, the rule above says so
        return
    dead, known = int(network.dead[-1]), network.known
    if not known or (dead < min(SOME_DEAD, of_network) * known and not over):
        return
    alarm = dead >= max(of_network * known, _most_by_chance(*run.sites))
    alarm |= any(site.dead_now >= _most_by_chance(site) for site in over)
    silent = [(dead_since(site.activity) == 0) & (site.start is None or site.start.activity == 0) for site in dying]
    never_fired = sum(int(units.sum()) for units in silent)
    born_dead = run.history and never_fired >= dead / 2
    where = ", ".join(f"{site.name} {site.dead_now} of {site.units}" for site in dying)
    evidence = (
        f"{dead} of {known} units ({dead / known:.1%}) fired on no example ({_n(network.n[-1])})"
        f"{run.dated(' at epoch', network.epochs[-1])}: {where}."
    )
    if run.history:
        evidence += f" {never_fired} of them never fired at any record."
    if dead_first := sum(site.dead_now for site in run.sites if site.first_layer):
        evidence += f" The {dead_first} in the first layer rarely come back: their inputs, the data, stay the same."
    evidence += _why(dying, run)
    yield Finding(
        rule="dead_from_the_start" if born_dead else "many_dead_units",
        severity="warning" if alarm else "notice",
        title="Many units dead from the start" if born_dead else "Many dead units",
        evidence=evidence,
        threshold=f"Warning when {of_network:.0%} of the network or {of_site:.0%} of a layer is dead, a notice from "
        f"{min(SOME_DEAD, of_network):.0%} of the network; 'from the start' when at least half of the dead never fired "
        "at any record." + FEW_RULE,
        source=f"network: {source}; layer: {site_source}; notice: {CONVENTION}",
        advice=_advice(dying, (HE_INIT, LOWER_LR, LEAKY) if born_dead else (LOWER_LR, LEAKY, NORMALIZE)),
        site=over[0].name if over else "",
    )


def mass_death(run: HealthRun) -> Iterator[Finding]:
    """A fifth of a layer dies within one epoch, net of revivals: the mark of one step that was far too large."""
    limit, source = limit_of(run, MASS_DEATH)
    for site in run.sites:
        counts = site.counts
        if site.units * limit < MASS_DEATH_MIN_UNITS or len(counts.epochs) < 2:
            continue
        net = counts.deaths - counts.revivals
        row = int(np.argmax(net))
        if net[row] < limit * site.units:
            continue
        minor = site.dead_now <= counts.dead[row] / 2 or net[row] < _most_by_chance(site, row=row)
        yield Finding(
            rule="mass_death",
            severity="notice" if minor else "critical" if net[row] >= site.units / 2 else "warning",
            title=f"Sudden deaths in {site.name}",
            evidence=f"{counts.deaths[row]} of {site.units} units of {site.name} died between epochs "
            f"{counts.epochs[row - 1] + 1} and {counts.epochs[row] + 1} ({counts.revivals[row]} came back; "
            f"{_n(counts.n[row])}); {site.dead_now} are dead now." + _why([site], run),
            threshold=f"Warning when {limit:.0%} of a layer's units die, net of revivals, from one epoch to the next; "
            "critical from 50%; a notice if half of them have come back." + FEW_RULE,
            source=f"the limit: {source}; the idea: {CS231N}",
            advice=_advice([site], (LOWER_LR, f"{CLIPPING}, if single steps are to blame.", LEAKY)),
            site=site.name,
        )


def many_rare_units(run: HealthRun) -> Iterator[Finding]:
    """Many units fire on few inputs, by the monitor's limit: alive, but close to useless."""
    limit, source = limit_of(run, MANY_RARE)
    network = run.counts
    if not network.known or network.rare[-1] < limit * network.known:
        return
    below = f"{100 * max(site.rare_below for site in run.sites):.3g}%"
    yield Finding(
        rule="many_rare_units",
        severity="notice",
        title="Many rare units",
        evidence=f"{network.rare[-1]} of {network.known} units ({network.rare[-1] / network.known:.1%}) fire, but on "
        f"less than {below} of the inputs ({_n(network.n[-1])}){run.dated(' at epoch', network.epochs[-1])}.",
        threshold=f"Notice when {limit:.0%} of the network's units are rare: activity above 0 and below {below}.",
        source=f"the limit: {source}; 1%: Dohare et al. 2024, Loss of plasticity in deep continual learning, "
        "Nature 632",
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


def two_runs_in_a_folder(run: HealthRun) -> Iterator[Finding]:
    """Another run had written into the folder before: the later one is shown."""
    if run.replaced:
        yield Finding(
            rule="two_runs_in_a_folder",
            severity="notice",
            title="Two runs in one folder",
            evidence=f"The later of the runs in this folder is shown: {'; '.join(run.replaced)}.",
            threshold="Notice when epochs begin again, from the first one or with other sites or numbers of units.",
            source="no threshold: the log itself",
            advice=("A folder of its own for each run, such as Lightning's `version_0`, `version_1`.",),
        )


def _known_causes(sites: Sequence[Site]) -> Counter[str]:
    """How many units are dead at the last record for each cause that is known."""
    causes = Counter(name for site in sites for name in site.causes_now if name in CURES)
    nan = sum(int(site.counts.nan[-1]) for site in sites if len(site.epochs))
    causes["not a number"] -= nan  # which are not dead
    return +causes


def _why(sites: Sequence[Site], run: HealthRun) -> str:
    """The causes in words, with the median depth and what the optimiser did where units were killed."""
    causes = _known_causes(sites)
    if not causes:
        return ""
    text = " Why: " + ", ".join(f"{count} {CAUSE_WORDS[name]}" for name, count in causes.most_common())
    if len(depths := _depths(sites)):
        text += f"; the largest input of a dead unit lies {np.median(depths):.2g} standard deviations below 0 (median)"
    born = sum(int((site.died_in == -1).sum()) for site in sites)
    text += f"; born dead: {born}" if any(site.start is not None for site in sites) else ""
    if causes["killed"]:
        text += _killing(sites, run)
    return text + "."


def _killing(sites: Sequence[Site], run: HealthRun) -> str:
    """In which epochs units were killed, with the largest update ratio recorded in these."""
    died = [site.died_in[np.array(site.causes_now) == "killed"] for site in sites]
    epochs = sorted({int(epoch) for of_site in died for epoch in of_site if epoch >= 0})
    rows = np.isin(run.update_ratio.epochs, epochs)
    ratios = [ratio for column in run.update_ratio.columns.values() for ratio in column[rows] if np.isfinite(ratio)]
    text = f"; killed in epoch {', '.join(str(epoch + 1) for epoch in epochs)}" if epochs else ""
    return text + (f", where the largest update ratio recorded is {max(ratios):.2g}" if text and ratios else "")


def _depths(sites: Sequence[Site]) -> np.ndarray:
    rows = [site.causes.field("depth")[-1] for site in sites if site.causes is not None and len(site.causes.epochs)]
    depths = np.concatenate(rows) if rows else np.empty(0)
    return depths[np.isfinite(depths)]


def _advice(sites: Sequence[Site], otherwise: tuple[str, ...]) -> tuple[str, ...]:
    """Cures of the commonest causes; the general advice where no cause is known."""
    commonest = [name for name, _ in _known_causes(sites).most_common(MOST_CURES)]
    cures = tuple(cure for name in commonest for cure in CURES[name])
    return (*cures, LEAKY) if cures else otherwise


def _most_by_chance(*sites: Site, row: int = -1) -> float:
    """How many units may look dead at a record, at 95 %, if each fires on ``RARE`` of all examples, independently.

    None of a site with ``ENOUGH`` examples, where such a unit fires at least once; all where n is unknown.
    """
    units = expected = variance = 0.0
    for site in sites:
        known, n = site.units - site.counts.nan[row], site.n[row]
        silent = 0.0 if n >= ENOUGH else (1 - RARE) ** float(n)
        units, expected, variance = units + known, expected + known * silent, variance + known * silent * (1 - silent)
    return min(units, expected + 1.645 * math.sqrt(variance))


def _n(n: int) -> str:
    """What a statement was measured on, and what that leaves open."""
    if n >= ENOUGH:
        return f"n = {n:,}"
    bound = (
        f"n = {n}, few: a unit silent here fires on up to {min(1.0, 3 / n):.1%} of all (95%, 3/n)" if n else "n unknown"
    )
    return f"{bound}; how many would be dead on {ENOUGH} or more is unknown"


RULES: tuple[Rule, ...] = (
    not_a_number, whole_layer_dead, many_dead_units, mass_death, many_rare_units, unwatched_sites, two_runs_in_a_folder
)  # fmt: skip
