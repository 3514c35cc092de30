"""What a model does and costs, measured: time per frame, memory, start-up.

    times.py         many durations in a few numbers
    speed.py         live streams, blocks, hours on end, on an engine that is ready
    live.py          live streams under load, through the whole loop; from finalize on
    instrumented.py  an engine that notes what its parts take, and can be told what to say
    files.py         recordings: in blocks, and frame by frame
    subprocesses.py  memory and start-up, each in a process of its own
    dummy.py         dummy models: of the published shapes with random weights
    machine.py       the processor, its instructions, and how fast the memory is read
    limit.py         what that allows at best
    hardware.py      what GPUs and processors can do by their data sheets
    roofline.py      what a step reads and computes, and what that takes at best
    known.py         what was measured or published of it
    fits.py          what memory and time allow
    plan.py          how many streams fit, and how many machines are needed
    assumptions.py   what a plan takes for granted
    doctor.py        what is installed here, and what to expect of it

Nothing here imports torch. Whoever measures passes the clock, so that the arithmetic can be tested.
"""
