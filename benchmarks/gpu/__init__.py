"""Everything that a GPU is needed for, as programmes of a few minutes each whose figures survive any end.

`__main__.py` is the command, `programmes.py` what is measured in which order, `supervisor.py` the process that keeps
the time, `worker.py` the one that holds torch and the GPU, `bench.py` what a step is given, `steps.py` and `runs.py`
the measurements, `records.py` the files of the output folder, `page.py` the goals and the page that shows them.
"""
