"""Base against tuned models on the same prompts and seeds: what `rayalign evaluate` does, as a job to submit.

  ray job submit --working-dir . -- python jobs/evaluate.py /shared/runs/first --prompts partiprompts --pool.gpus 1
"""

import sys

from rayalign.commands.main import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
