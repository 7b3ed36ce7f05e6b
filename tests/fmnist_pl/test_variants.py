"""Names and files of variants."""

import pytest

from fmnist_pl.variants import CONFIGS, overlay_path, packaged_variants, variant_name
from training_health.errors import UserError


def test_the_notebooks_variants_are_packaged():
    assert {"baseline", "no_dropout", "sgd"} <= set(packaged_variants())


def test_a_name_leads_to_its_overlay():
    assert overlay_path("sgd") == CONFIGS / "sgd.yaml"


def test_a_path_leads_to_itself(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("variant: mine\n")

    assert overlay_path(str(mine)) == mine
    assert variant_name(str(mine)) == "mine"


def test_an_unknown_name_is_refused_with_the_nearest_one():
    with pytest.raises(UserError, match=r"no variant named 'no_dropuot'. Did you mean no_dropout\? Packaged") as raised:
        overlay_path("no_dropuot")

    assert raised.value.exit_code == 2


def test_a_missing_file_is_refused():
    with pytest.raises(UserError, match=r"no variant file missing\.yaml"):
        overlay_path("missing.yaml")


@pytest.mark.parametrize("name", packaged_variants())
def test_an_overlay_has_at_most_ten_lines_and_says_why(name):
    lines = (CONFIGS / f"{name}.yaml").read_text().splitlines()

    assert len(lines) <= 10
    assert lines[0].startswith("# ")
