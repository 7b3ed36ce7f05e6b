"""Options on a command line that is not parsed yet."""

import pytest

from fmnist_pl.arguments import option


@pytest.mark.parametrize(
    ("args", "value"),
    [
        (["--resume", "last"], "last"),
        (["--resume=a=b"], "a=b"),
        (["--resume=x", "--resume", "y"], "y"),
        (["--resumed=x"], None),
        (["--resume"], None),
    ],
)
def test_an_option_is_found_on_the_command_line(args, value):
    assert option(args, "resume") == value
