"""A program that stands in for a training: it waits for SIGTERM, or ends as its argument says."""

import os
import signal
import sys
import time

if __name__ == "__main__":
    print("arguments:", *sys.argv[1:], flush=True)
    if sys.argv[1] == "wait":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
        print(f"ready {os.getpid()}", file=sys.stderr, flush=True)
        time.sleep(60)
    if sys.argv[1] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    sys.exit(int(sys.argv[1]))
