#!/usr/bin/env python3
"""CPU that Redis takes for an order, by the number of orders in a step of lua/reserve.lua.

    python3 bench/reserve.py [orders in a step ...]

Starts a redis-server of its own with an append-only file in a temporary folder, and ends it. One connection, one step
after the other; user and system time from /proc/PID/stat.
"""

import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

PORT = 21095
ORDERS = 150_000
LUA = pathlib.Path(__file__).resolve().parent.parent / "lua"
EPOCH = "00000000000000aa"


def command(*words):
    """A command as Redis reads it (RESP)."""
    words = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


class Redis:
    def __init__(self, folder):
        options = ["--port", str(PORT), "--save", "", "--appendonly", "yes", "--dir", folder]
        self.process = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
        while True:
            try:
                self.socket = socket.create_connection(("127.0.0.1", PORT))
                break
            except ConnectionRefusedError:
                time.sleep(0.01)
        self.replies = self.socket.makefile("rb", 1 << 20)

    def ask(self, request):
        self.socket.sendall(request)
        return self.read()

    def read(self):
        line = self.replies.readline()
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            raise RuntimeError(rest.decode())
        if kind == b"$" and rest != b"-1":
            return self.replies.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self.read() for _ in range(int(rest))]
        return rest

    def cpu_us(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) * 1_000_000 / os.sysconf("SC_CLK_TCK")

    def end(self):
        self.process.terminate()
        self.process.wait()


def script(redis, name):
    return redis.ask(command("SCRIPT", "LOAD", (LUA / "sale.lua").read_text() + (LUA / name).read_text()))


def measure(redis, size):
    sale = f"sale{size}"
    keys = [sale, *(f"{{{sale}}}:{name}" for name in ("orders", "due", "buyers", "log", "changes"))]
    put_away = [f"{{{sale}}}:before:{number}" for number in range(5)]
    redis.ask(command("EVALSHA", script(redis, "open.lua"), 11, *keys, *put_away, 1_000_000_000, EPOCH, "00" * 32))
    reserve = script(redis, "reserve.lua")
    # The epoch, then hold, limits and times.
    head = ["EVALSHA", reserve, 5, *keys[:5], EPOCH, 300_000, 0, 0, -1, -1]
    steps = []
    for _ in range(max(1, min(ORDERS, 10_000 * size) // size)):
        purchases = (word for _ in range(size) for word in (os.urandom(16).hex(), "1 "))
        steps.append(command(*head, *purchases))
    before = redis.cpu_us()
    for step in steps:
        redis.ask(step)
    return (redis.cpu_us() - before) / (len(steps) * size)


def main():
    sizes = [int(word) for word in sys.argv[1:]] or [1, 16, 64, 256, 512]
    with tempfile.TemporaryDirectory() as folder:
        redis = Redis(folder)
        try:
            for size in sizes:
                print(f"{size:4} orders in a step: {measure(redis, size):6.1f} us of CPU an order")
        finally:
            redis.end()


main()
