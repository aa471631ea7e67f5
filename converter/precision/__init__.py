"""Graphs in other precisions, made from a finished package tensor by tensor and judged before they stay.

stored.py     the graphs of a package, their weights as recipes over its files
formats.py    how a weight is stored: blocks, columns, rows; the plan of a whole graph
nbits.py      block-wise matrices (q8, q4) and row-wise tables
dynamic.py    int8 and uint8 matrices with activations quantized on the way
half.py       fp16 with an fp32 interface
catalogue.py  precisions by name, as plugins registered them: the built-in ones are in plugins/precisions.py
budget.py     what must be kept, and by how much it is missed
added.py      which modules of a precision add how much error
judge.py      the quality of a graph on texts nobody calibrated on
search.py     the first plan that keeps the budget, and which modules get more bits
quantize.py   all of it, on a package
"""
