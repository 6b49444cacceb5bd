"""What is called with the totals of a tile after its mainloop."""

from __future__ import annotations

from gemmgen.grouping import Grouping
from gemmgen.plan import KernelPlan
from gemmgen.spelling_function import DeviceFunction

CUDA_TYPES = {
    "u32": "uint32_t",
    "u64": "uint64_t",
    "i32": "int",
    "f32": "float",
    "bf16": "uint16_t",
    "f16": "uint16_t",
    "e4m3": "uint8_t",
}


def way_out(plan: KernelPlan, grouping: Grouping) -> dict[str, DeviceFunction]:
    """The functions by name, in the order of their calls."""
    problem = plan.problem
    row, column = ("uint32_t row", "row + lane / 4"), ("uint32_t column", "column")
    pair = ("uint32_t column", "column + 2 * (lane % 4)")
    sizes, lane = ("Problem problem", "problem"), ("uint32_t lane", "lane")
    totals, tile = ("Totals& totals", "totals"), [("const TileScheduler& tile", "tile")]
    of_d = tile * ("d" in grouping.grouped or grouping.clipped)
    of_b = tile * ("b" in grouping.grouped)
    functions = []
    if problem.c:
        c = (f"const {CUDA_TYPES[problem.c]}* c", "c")
        functions += [("add_c", [totals, *of_d, c, sizes, row, pair])]
    if problem.bias:
        bias = (f"const {CUDA_TYPES[problem.bias]}* bias", "bias")
        functions += [("operate", [totals, *of_b, bias, sizes, pair])]
    elif problem.operations:
        functions += [("operate", [totals])]
    if plan.store.scale_columns:
        scale = ("float* scale_d", "scale_d")
        functions += [("quantise", [totals, *of_d, scale, sizes, row, column, lane])]
    d = [("Element* d", "d"), sizes] * grouping.clipped
    map_d = ("const TensorMap& map_d", "tensor_map_d")
    buffers = [("uint32_t buffers", "buffers"), ("uint32_t& turn", "turn")]
    first = [("uint32_t row", "row"), column]
    read = ("const Totals& totals", "totals")
    if plan.store.late:
        packed = ("PackedTile& packed", "packed")
        last = [packed, read, *of_d, *first, *[lane] * grouping.clipped]
        functions += [("pack_tile", last)]
    else:
        functions += [("store_tile", [read, *of_d, map_d, *d, *buffers, *first, lane])]
    return {name: DeviceFunction(name, tuple(parameters)) for name, parameters in functions}
