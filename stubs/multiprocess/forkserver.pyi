from threading import Lock
from multiprocessing.forkserver import *
from multiprocessing.forkserver import ForkServer as _ForkServer

class ForkServer(_ForkServer):
    _lock: Lock
    _forkserver_address: str | None
    _forkserver_pid: int | None
    _forkserver_alive_fd: int | None

_forkserver: ForkServer
