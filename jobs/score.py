"""Scores pictures that exist, a folder or parquet with prompts, by any scorers: `rayalign score`, as a job.

python jobs/score.py pictures/ --scorer jpeg --scorer toy-clip --output scores          # here
ray job submit --working-dir . -- python jobs/score.py /shared/pictures --scorer pickscore --output /shared/scores
"""

import sys

from rayalign.commands.main import main

if __name__ == "__main__":
    sys.exit(main(["score", *sys.argv[1:]]))
