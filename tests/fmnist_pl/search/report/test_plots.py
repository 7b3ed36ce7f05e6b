"""The charts' content."""

from fmnist_pl.search.report.chart import label
from fmnist_pl.search.report.pareto import pareto_front
from fmnist_pl.search.report.plots import against_cost, best_against_trials, dead_against_accuracy
from fmnist_pl.search.report.plots_of_choices import choices_plot
from fmnist_pl.search.report.trial_records import trial_records
from tests.fmnist_pl.search.made_studies import failed, pruned, study, trial


def records(*trials):
    return trial_records(study(*trials))


def trace(figure, name):
    (found,) = [one for one in figure.data if one.name.startswith(name)]
    return list(found.x), list(found.y)


def test_the_best_so_far_never_falls_and_lasts_to_the_end():
    figure = best_against_trials(records(trial(0.5), trial(0.25), trial(0.75), failed()), None)

    assert trace(figure, "best so far") == ([0, 1, 2, 3], [50, 50, 75, 75])
    assert trace(figure, "completed") == ([0, 1, 2], [50, 25, 75])


def test_pruned_trials_are_drawn_where_they_were_given_up():
    assert trace(best_against_trials(records(pruned([0.25, 0.5])), None), "pruned") == ([0], [50])


def test_the_front_is_drawn_with_its_numbers():
    trials = records(trial(0.5, parameters=1), trial(0.25, parameters=2), trial(0.75, parameters=3))
    figure = against_cost(trials, pareto_front(trials, lambda r: r.parameters), lambda r: r.parameters, "parameters")

    assert trace(figure, "Pareto front") == ([1, 3], [50, 75])
    assert list(figure.data[1].text) == ["0", "2"]


def test_dead_shares_are_in_percent_and_the_unknown_left_out():
    figure = dead_against_accuracy(records(trial(0.5, dead_share=0.25), trial(0.5), pruned([0.25], dead_share=0.5)))

    assert trace(figure, "completed") == ([25], [50])
    assert trace(figure, "pruned") == ([50], [25])


def test_choices_beyond_chance_have_a_colour_of_their_own():
    figure = choices_plot([("a", 0.02, True), ("b", 0.03, False)])

    assert trace(figure, "beyond chance") == ([2.0], [0])
    assert trace(figure, "not told from chance") == ([3.0], [1])


def test_trials_far_below_the_others_do_not_set_the_scale():
    figure = best_against_trials(records(*(trial(0.9 + i / 1000) for i in range(20)), trial(0.1)), None)

    assert figure.layout.yaxis.range[0] > 85
    assert figure.layout.annotations[-1].text == "1 below the axis"


def test_labels_are_short_and_hold_no_markup():
    assert label('<a href="x">&') == '&lt;a href="x"&gt;&amp;'
    assert label("a" * 40) == "a" * 31 + "…"


def test_two_long_names_with_one_beginning_stay_two():
    long = "a" * 40
    figure = choices_plot([(long + "1", 0.02, True), (long + "2", 0.03, True)])

    assert trace(figure, "beyond chance")[1] == [0, 1]
    assert list(figure.layout.yaxis.ticktext) == [label(long), label(long)]


def test_a_hover_text_names_the_choices_without_markup():
    figure = best_against_trials(records(trial(0.5, {"conv_layers": 2})), None)

    assert figure.data[1].text[0] == "trial 0: 50.00 % after 1 epochs<br>conv_layers = 2"
