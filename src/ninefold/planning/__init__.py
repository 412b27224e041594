"""WHICH: from a problem alone to the engine that runs it; printable, remembered."""

from ninefold.planning.decide import plan_problem, pose, prepare
from ninefold.planning.plan import Candidate, Plan

__all__ = ["Candidate", "Plan", "plan_problem", "pose", "prepare"]
