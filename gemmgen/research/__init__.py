"""The research workbench: many variants of a kernel, built, timed, kept, looked at.

    from gemmgen import research

    frame = research.Sweep.from_yaml("sweep.yaml", "results.db").run().to_dataframe()

`space` is what a sweep asks for, `sweep` the order of its work, `pool` and `dask_pool` where the
work is done, `database` what is remembered, `model` what a kernel should take.
"""
