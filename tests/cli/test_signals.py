"""Who handles Ctrl-C and SIGTERM, and that it is handed back."""

import signal
import threading

import pytest

from bbb.cli.signals import SIGNALS, noticing_signals, stopped_by_signals
from bbb.system import LostError, StoppedError


def handlers():
    return [signal.getsignal(number) for number in SIGNALS]


@pytest.fixture
def mine(monkeypatch):
    """Handlers that are not the default, so that it matters who restores them."""
    before = handlers()
    for number in SIGNALS:
        signal.signal(number, lambda number, frame: None)
    yield handlers()
    for number, handler in zip(SIGNALS, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("context", [noticing_signals, stopped_by_signals])
@pytest.mark.parametrize("error", [None, KeyError, KeyboardInterrupt])
def test_the_handlers_of_before_are_restored(mine, context, error):
    def work():
        with context():
            assert not {*handlers()} & {*mine}
            if error is not None:
                raise error

    if error is None:
        work()
    else:
        with pytest.raises(error):
            work()
    assert handlers() == mine


def test_the_first_signal_is_noticed_and_a_second_ctrl_c_interrupts(mine):
    with noticing_signals() as received:
        signal.raise_signal(signal.SIGTERM)
        assert received == [signal.SIGTERM]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert handlers() == mine


@pytest.mark.parametrize("number", SIGNALS)
def test_work_is_stopped_once(mine, number):
    with stopped_by_signals():
        with pytest.raises(StoppedError) as stopped:
            signal.raise_signal(number)
        assert stopped.value.number == number
        assert handlers() == [signal.SIG_IGN] * 2, "while work is being stopped"
    assert handlers() == mine


def test_a_process_that_lost_another_ignores_the_sigterm_of_torchrun(mine):
    with pytest.raises(LostError), noticing_signals():
        raise LostError
    assert handlers() == [mine[0], signal.SIG_IGN]


@pytest.mark.parametrize("context", [noticing_signals, stopped_by_signals])
def test_another_thread_leaves_the_handlers_alone(mine, context):
    found = []

    def work():
        with context():
            found.append(handlers())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [mine]
