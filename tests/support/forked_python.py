"""An interpreter in a forked process, for programs that other programs start: torchrun's agents, the runs of a sweep.

`server_of(socket)` listens for such programs; the file that `script` returns takes the arguments of Python, sends them
to the server together with its streams, passes signals on, and ends as the program ends.
"""

import contextlib
import itertools
import json
import multiprocessing
import os
import runpy
import select
import signal
import socket
import sys
import threading
import traceback
from pathlib import Path
from typing import Any, NoReturn

CLIENT = """#!{python} -ISE
import contextlib, json, os, signal, socket, sys

def pass_on(number, frame):
    with contextlib.suppress(OSError):  # the program has ended
        server.send(bytes([number]))

with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
    server.connect({address!r})
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, pass_on)
    asked = json.dumps([sys.argv, dict(os.environ), os.getcwd(), os.getpid()])
    socket.send_fds(server, [asked.encode()], [0, 1, 2])
    status = int(server.recv(9) or b"9")  # 9: the server was killed
if os.WIFSIGNALED(status):
    with contextlib.suppress(OSError):  # SIGKILL has no handler
        signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
    os.kill(os.getpid(), os.WTERMSIG(status))
os._exit(os.waitstatus_to_exitcode(status))  # sys.exit would let a late signal end the process with its own status
"""
LONGEST_MESSAGE = 2**17


def script(path: Path, address: str) -> None:
    """Write the client of the server at `address`, an executable."""
    path.write_text(CLIENT.format(python=sys.executable, address=address))
    path.chmod(0o755)


def serve(address: str, parent: Any) -> None:
    """Start a program for each client, until the other end of the pipe `parent` is closed."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # keepers leave no zombies
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(address)
        listener.listen()
        parent.send("ready")
        while parent not in select.select([listener, parent], [], [])[0]:
            client, _ = listener.accept()
            with client:
                if os.fork() == 0:
                    listener.close()
                    parent.close()
                    _keep(client)


def _keep(client: socket.socket) -> NoReturn:
    """Run the client's program in a child, which gets its signals; send the status. Kill the child with the client."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    message, streams, _, _ = socket.recv_fds(client, LONGEST_MESSAGE, 3)
    child = os.fork()
    if child == 0:
        client.close()
        _become(*json.loads(message), streams)
    for stream in streams:
        os.close(stream)
    ended, waiting = os.pidfd_open(child), [client]
    while ended not in select.select([ended, *waiting], [], [])[0]:
        number = b""
        with contextlib.suppress(ConnectionError):  # the client was killed
            number = client.recv(1)
        os.kill(child, number[0] if number else signal.SIGKILL)
        waiting = waiting if number else []
    with contextlib.suppress(OSError):  # the client was killed
        client.send(str(os.waitpid(child, 0)[1]).encode())
    os._exit(0)


def _become(words: list[str], environment: dict[str, str], folder: str, client: int, streams: list[int]) -> NoReturn:
    """Become the program `words` of the process `client`; this process has no other work."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    for number, (name, mode) in enumerate({"stdin": "r", "stdout": "w", "stderr": "w"}.items()):
        setattr(sys, name, os.fdopen(number, mode, buffering=1, closefd=False))
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    os.getppid = lambda: int(Path(f"/proc/{client}/stat").read_text().rpartition(")")[2].split()[1])
    sys.executable = words[0]  # programs that this one starts are forked, too
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]  # it may have children
    status: Any = 1
    try:
        _run(list(itertools.dropwhile(("-P", "-u").__contains__, words[1:])))
        status = 0
    except SystemExit as ended:
        status = ended.code
    except BaseException:
        traceback.print_exc()
    if isinstance(status, str):
        print(status, file=sys.stderr)
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads as Python does
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(int(isinstance(status, str)) or status or 0)


def _run(words: list[str]) -> None:
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif words[0] == "-c":
        sys.argv = ["-c", *words[2:]]
        exec(words[1], {"__name__": "__main__"})  # noqa: S102 - as Python does
    else:
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")
