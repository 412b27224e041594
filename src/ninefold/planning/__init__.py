"""WHICH: from a problem alone to the engine that runs it; printable, remembered."""

from ninefold.planning.decide import make_problem, plan_problem, prepare
from ninefold.planning.plan import Candidate, Plan

__all__ = ["Candidate", "Plan", "make_problem", "plan_problem", "prepare"]
