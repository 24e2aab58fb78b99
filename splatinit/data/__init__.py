"""The field's public benchmark scenes: where they come from, how they are fetched, and whether they are whole.

benchmarks   the registry (data/registry/*.yaml): scene → source, licence, size, checksum, protocol
download     one file, resumed after an interrupt, verified
archives     zip and tar, unpacked so that nothing of them can land elsewhere
fetch        from a name to a folder that ``splatinit run`` reads, and back: is that folder whole?
"""
