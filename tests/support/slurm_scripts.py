"""Training scripts of the jobs that tests submit. WHERE is a job's folder of /fsx."""

#: Every rank adds 1 over the network and tells what it was given.
SUM = """
import json, os, sys
import torch, torch.distributed as dist
dist.init_process_group("gloo")
tensor = torch.ones(2)
dist.all_reduce(tensor)
print("sum", json.dumps({
    "sum": tensor.tolist(), "argv": sys.argv[1:], "cpus": len(os.sched_getaffinity(0)),
    "unbuffered": os.environ["PYTHONUNBUFFERED"], "secret": os.environ["SECRET"],
    "path": os.environ.get("PYTHONPATH"), "data": open("/data/words").read(),
    "rules": [eval(probe) for probe in json.load(open("/data/probes"))],
    "scratch": os.environ["LAUNCH_SCRATCH"].split("/launch-")[0],
}), flush=True)
open(f"/made/rank{os.environ['RANK']}", "w").close()
try:
    open("/data/new", "w").close()
except OSError as error:
    print("read-only:", error.strerror, flush=True)
dist.destroy_process_group()
"""

#: Saves on the first SIGTERM for argv[1] seconds. Its data loader has argv[2] workers: the death of
#: one is an error in its rank. Once it has been resumed it ends by itself, after argv[3] seconds.
SAVES = """
import os, signal, sys, time
from torch.utils.data import DataLoader
rank, resume = os.environ["RANK"], os.environ.get("LAUNCH_RESUME_FROM")
if resume:
    print("resumed from", resume, "attempt", os.environ["LAUNCH_ATTEMPT"], flush=True)
    time.sleep(float("".join(sys.argv[3:]) or 0))
    sys.exit(0)
told = []
def save(number, frame):
    if told:
        return
    told.append(number)
    time.sleep(float(sys.argv[1]))
    if rank == "0":
        os.makedirs("/fsx/WHERE/ck/step-7")
        open("/fsx/WHERE/ck/step-7/whole", "w").close()
    print("saved", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
loader = iter(DataLoader(range(10**9), num_workers=int(sys.argv[2])))
next(loader)
print("up", flush=True)
while True:
    next(loader)
    time.sleep(0.05)
"""

#: Rank 1 fails, and rank 0 would wait forever.
FAILS = """
import os, signal
if os.environ["RANK"] == "1":
    raise ValueError("bad batch")
signal.pause()
"""

#: All processes of the step on a node, as Slurm signals them, but not this shell.
TERMINATE = """
for process in /proc/[0-9]*; do
    if [[ ${process#/proc/} != "$$" ]] && grep -qaE 'stoppable|launcher/' "$process/cmdline"; then
        kill -TERM "${process#/proc/}"
    fi
done
"""
