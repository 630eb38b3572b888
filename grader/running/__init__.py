"""Running an answer's checks: a driver runs the learner's code on one case after another, a judge says what came of it.

judge.py goes through an exercise's properties with any driver. local.py drives in this process, and hands answers that
launch kernels to kernel_client.py, which has them run in the process of kernel_host.py (watched by kernel_access.py).
What a driver tells (report.py) crosses between processes as wire.py writes it.
"""

from grader.running.judge import PUBLIC_SEED, missing_requirement, run
from grader.running.local import LocalDriver
from grader.running.report import Driver, Ending, Report

__all__ = ["PUBLIC_SEED", "Driver", "Ending", "LocalDriver", "Report", "missing_requirement", "run"]
