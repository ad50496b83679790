from multiprocessing.util import *
from multiprocessing.util import Finalize as Finalize
