from multiprocessing.forkserver import *
from multiprocessing.forkserver import ForkServer as _ForkServer

class ForkServer(_ForkServer):
    _forkserver_alive_fd: int | None

_forkserver: ForkServer
