"""Damaged and hostile input for every reader: ``python -m tests.fuzz --help``.

A target (targets.py) is a small valid input and the way to read it; mutate.py damages one of its files; plain.py reads
the result a second time, with a parser that shares no code with the reader and accepts nothing it does not understand.
A case passes when the reader raises a SplatinitError, or reads the same as before, or reads exactly what the plain
parser says stands in the damaged file now. Everything else is a finding (engine.py), and becomes a named test.
"""
