"""Search for the control codes that make a kernel fast. Knows no GPU: what measures is handed in.

`searching` is the way of the work, `candidates` what is tried, `log` what is remembered.
"""

from gemmgen.tune.candidates import OWN, POLICIES, Candidate
from gemmgen.tune.log import Log, Step
from gemmgen.tune.searching import Options, Report, Row, search

__all__ = ["OWN", "POLICIES", "Candidate", "Log", "Options", "Report", "Row", "Step", "search"]
