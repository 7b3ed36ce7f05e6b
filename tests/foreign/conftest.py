"""What a project of the foreign suite is checked with, and the table at its end."""

import pytest


@pytest.fixture
def check(record_property, tmp_path):
    """Fits a project under the monitors, keeps its line of the table and fails with what is not right."""
    from tests.foreign.harness import Watched  # only here: other suites pass by this file

    def run(project, truth, fit, **keys):
        watched = Watched(truth, tmp_path, fit, **keys)
        record_property("line", {"project": project} | watched.line())
        if faults := list(watched.faults()):
            pytest.fail("\n".join(faults), pytrace=False)

    return run


def pytest_terminal_summary(terminalreporter):
    """Print a line for each project."""
    reports = terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
    lines = [line for report in reports for name, line in report.user_properties if name == "line"]
    rows = [dict(zip(line, line, strict=True)) for line in lines[:1]] + sorted(lines, key=lambda line: line["project"])
    for row in rows:
        cells = [row[name].ljust(max(len(other[name]) for other in rows)) for name in row]
        terminalreporter.write_line("  ".join(cells))
