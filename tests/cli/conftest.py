import signal

import pytest


@pytest.fixture(autouse=True)
def a_terminal_that_can_hang_up():
    """Under nohup SIGHUP is ignored, by what a test starts, too."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)
