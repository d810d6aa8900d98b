"""What keeps a search over several processes going where one of them dies: keras-tuner's chief
hands out trials and its workers run them, each told its part by KERASTUNER_TUNER_ID,
KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT."""

import contextlib
import os
import socket
import threading
import time

import grpc
import keras_tuner
from keras_tuner.src.engine import conditions

# A trial goes from one process to another several times, and once a second as a sign of life; of
# each conditional hyperparameter in it keras-tuner prints a value then, for nobody.
# test_seams.py: test_conditions_print.
conditions.print = lambda *values: None

# Seconds between two signs of life, and between two questions of a worker that has no trial.
_PERIOD = 1.0


def is_chief():
    """Whether this process is to hand out the trials of others."""
    return "KERASTUNER_ORACLE_IP" in os.environ and "chief" in os.environ["KERASTUNER_TUNER_ID"]


class NoChief(ConnectionError, keras_tuner.errors.FatalError):
    """A worker has no chief. It ends the worker, and is no fault of the trial that it runs."""


class ChiefClient:
    """A worker's way to the chief: an `OracleClient` of keras-tuner, which by itself waits an hour
    for one, whose calls are made again where the chief died meanwhile. What a chief is told twice
    it does once.

    test_seams.py: test_a_worker_asks_a_client.

    Args:
        client: The `OracleClient`.
        timeout: Seconds to wait for a chief, at first and after it died.
    """

    def __init__(self, client, timeout):
        self._client, self._timeout = client, timeout

    def require_chief(self):
        """Raises a `NoChief` unless a chief answers in time."""
        address = _address()
        with grpc.insecure_channel(address) as channel:
            try:
                grpc.channel_ready_future(channel).result(timeout=self._timeout)
            except grpc.FutureTimeoutError:
                raise NoChief(
                    "A worker needs a chief, a process with this search and with "
                    "KERASTUNER_TUNER_ID=chief: none has answered for "
                    f"{self._timeout:g} seconds (`chief_timeout`). Received: "
                    f"KERASTUNER_TUNER_ID={os.environ['KERASTUNER_TUNER_ID']!r} and the address "
                    f"{address} by KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT"
                ) from None

    def __getattr__(self, name):
        there = getattr(self._client, name)
        return self._again(there) if callable(there) else there

    def _again(self, call):
        def called(*args, **kwargs):
            while True:
                # A call by itself would wait for an hour.
                if not _somebody_listens():
                    self.require_chief()
                try:
                    return call(*args, **kwargs)
                except grpc.RpcError as error:
                    if error.code() != grpc.StatusCode.UNAVAILABLE:
                        raise

        return called


@contextlib.contextmanager
def regularly(act):
    """Calls `act` now and then in a thread of its own, until the end of the context."""
    ended = threading.Event()

    def run():
        while not ended.wait(_PERIOD):
            act()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class Signs:
    """When each of several was last heard of.

    Args:
        timeout: Seconds after which one is lost; to be set before it is asked.
    """

    def __init__(self, timeout=float("inf")):
        self.timeout = timeout
        self._heard = {}

    def hear(self, name):
        self._heard[name] = time.monotonic()

    def is_lost(self, name):
        """Whether there was no sign for so long, counted from the first question at the latest."""
        return time.monotonic() - self._heard.setdefault(name, time.monotonic()) > self.timeout


def pause():
    """Waits until it is time to ask again."""
    time.sleep(_PERIOD)


def _somebody_listens():
    # What a channel of gRPC takes a good deal longer to say.
    host = os.environ["KERASTUNER_ORACLE_IP"].strip("[]")
    try:
        with socket.create_connection((host, os.environ["KERASTUNER_ORACLE_PORT"]), _PERIOD):
            return True
    except OSError:
        return False


def _address():
    return f"{os.environ['KERASTUNER_ORACLE_IP']}:{os.environ['KERASTUNER_ORACLE_PORT']}"
