"""What a person meets after ``fmnist fit``: the address that it prints, and TensorBoard's own dashboards."""

import contextlib
import io
import re

import pytest

from tests.browser.conftest import serve
from tests.browser.test_tab import open_tab, wait_until
from tests.soak.command import fit

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def trained(browser, tmp_path_factory):
    """The address of a TensorBoard on a run of a few steps, and what its training printed."""
    logs, printed = tmp_path_factory.mktemp("logs"), io.StringIO()
    with contextlib.redirect_stdout(printed):
        fit(logs)
    for address in serve(logs, "true"):
        yield address, printed.getvalue()


def test_the_address_that_the_training_prints_opens_the_tab(trained, open_page):
    served, printed = trained
    (hash_,) = re.findall(r"http://localhost:6006/(#\S+)", printed)
    page, frame = open_tab(open_page, served, hash_, least_rows=1)
    assert page.locator("[role=tab][aria-selected=true]:visible").inner_text().casefold() == "training health"
    assert frame.locator("#runs td.epochs").inner_text() == "4 / 4 finished"


def test_hparams_shows_the_options_by_which_runs_are_told_apart(trained, open_page):
    page = open_page(trained[0])
    page.goto(f"{trained[0]}#hparams")
    ticked = page.locator("paper-checkbox.hparam-checkbox[checked]")
    wait_until(lambda: ticked.count() > 0)
    assert sorted(ticked.all_inner_texts()) == ["dataset", "learning_rate", "optimizer", "seed", "variant"]


def test_the_list_of_scalars_has_no_counts_of_what_never_occurred_and_no_margins(trained, open_page):
    page = open_page(trained[0])
    page.goto(f"{trained[0]}#scalars")
    headings = page.locator("tf-category-paginated-view .heading")
    wait_until(lambda: headings.count() > 2)
    groups = [heading.split()[0] for heading in headings.all_inner_texts()]
    assert groups == ["dead_relu", "epoch", "gap", "rare_relu", "sparsity", "test", "train", "update_ratio", "val"]
    page.locator("tf-tag-filterer input").fill("nonfinite|margin|gap/accuracy$")
    found = page.locator("tf-category-paginated-view").first
    found.locator("tf-scalar-card").get_by_text("gap/accuracy", exact=True).first.wait_for()
    assert found.locator("tf-scalar-card").count() == 1
