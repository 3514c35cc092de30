"""Measures what a model costs: time per frame, memory, start-up.

    times.py         many durations in a few numbers
    speed.py         steps of an engine: live streams, blocks, hours on end
    files.py         recordings: in blocks, and frame by frame
    subprocesses.py  memory and start-up, each in a process of its own
    dummy.py         dummy models: the published shapes with random weights
    machine.py       the processor, its instructions, and how fast the memory is read
    limit.py         the least time of a decoder step at that memory speed
    hardware.py      what GPUs and processors can do by their data sheets
    roofline.py      what a step reads and computes, and the least time for that
    known.py         measured and published numbers of streams
    fits.py          how many streams memory and time allow
    plan.py          how many streams fit, and how many machines are needed
    assumptions.py   the assumptions of a plan
    doctor.py        what is installed here, and what to expect of it

Nothing here imports torch. Callers pass the clock, so that the arithmetic can be tested.
"""
