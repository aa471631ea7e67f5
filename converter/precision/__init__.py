"""Graphs in other precisions, made from a finished package tensor by tensor and judged before they stay.

formats.py     what a weight may be stored as; the plan of a whole graph
packed.py      recipes of weights in blocks, 4-bit floats and rows
columns.py     recipes of matrices with a scale for each column
products.py    what is quantized in a graph: products and lookups
nbits.py       blocks and 4-bit floats, put into a graph
dynamic.py     integer products: activations by tensor, by token, or calibrated
tables.py      looked-up tables, shared with the matrix that some of them are as well
half.py        fp16 with an fp32 interface
apply.py       a plan, applied to a graph
stored.py      the graphs of a package, their weights as recipes over its files
foreign.py     an .onnx file of anybody's as a package
samples.py     what is calibrated and judged on; made_up.py where a model has no inputs of its own
sessions.py    graphs that are run and looked into; statistics.py what calibration measures
kinds.py       which kind of model a package holds; tasks.py how each kind is run
compare.py     how much of fp32 is kept; budget.py what must be, judge.py says whether
added.py       which modules of a precision add how much error
latency.py     speed against fp32 in the same rounds
search.py      the smallest or fastest plan that keeps the budget; grids.py the one that weights were trained for
targets.py     what processors can do and users ask for; settings.py all of it as one record
workbench.py   where candidates are made
catalogue.py   precisions by name, as plugins registered them: the built-in ones are in plugins/precisions.py
work.py        a precision, searched for and judged
quantize.py    all of it, on a package; report.py what came of it
"""
