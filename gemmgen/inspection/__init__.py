"""What a cubin holds, as facts for a person or a program to read: bytes in, frozen data out.

    from gemmgen import inspection

    facts = inspection.inspect(cubin)
    facts.kernels[0].statistics.longest_ffma_row, facts.kernels[0].lines[14].control

Reads the code with `sass_patch` and changes nothing. `facts` is what is known of a cubin, put
together from `sections` (which part of a GEMM an instruction belongs to) and `statistics`;
`disassembly` asks nvdisasm for the text of instructions, and `comparison` holds two cubins side by
side.
"""

from gemmgen.inspection.comparison import Comparison, Difference, compare, kind_of_change
from gemmgen.inspection.disassembly import OWN_DECODER, Disassembly, disassemble
from gemmgen.inspection.facts import Inspection, KernelFacts, Line, inspect
from gemmgen.inspection.sections import Section, find_sections
from gemmgen.inspection.statistics import Arithmetic, Statistics

__all__ = [
    "OWN_DECODER",
    "Arithmetic",
    "Comparison",
    "Difference",
    "Disassembly",
    "Inspection",
    "KernelFacts",
    "Line",
    "Section",
    "Statistics",
    "compare",
    "disassemble",
    "find_sections",
    "inspect",
    "kind_of_change",
]
