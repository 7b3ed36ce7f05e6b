"""What several files of tests start from."""

import pytest


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Where the synthetic images are made once for all tests of a file."""
    return tmp_path_factory.mktemp("data")
