"""Processes that talk to each other on this machine."""

import contextlib
import os
import pathlib
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parents[1]


def free_ports(count):
    """Numbers of ports that nobody listened to a moment ago, each another one."""
    with contextlib.ExitStack() as open_ones:
        sockets = [open_ones.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


class Started:
    """A Python process that writes its output to a file; to be used as a context, at whose end it
    is killed if it runs still."""

    def __init__(self, output, *arguments, **environment):
        self.output = pathlib.Path(output)
        self._file = self.output.open("w")
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", *map(str, arguments)],
            cwd=ROOT,
            stdout=self._file,
            stderr=subprocess.STDOUT,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "PYTHONUNBUFFERED": "1",
                "TF_CPP_MIN_LOG_LEVEL": "3",
                **environment,
            },
        )

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.kill()
        self._file.close()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def printed(self):
        return self.output.read_text()

    def wait(self, seconds=120):
        return self.process.wait(seconds)

    def wait_for(self, text, seconds=120):
        """Until it has printed `text`."""
        until = time.monotonic() + seconds
        while text not in self.printed():
            assert self.process.poll() is None, self.printed()
            assert time.monotonic() < until, self.printed()
            time.sleep(0.05)
