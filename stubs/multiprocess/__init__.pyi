from multiprocessing import *
from multiprocessing import context as context
from multiprocessing import process as process
